# SPDX-License-Identifier: GPL-3.0-or-later
"""Reviews: who am I, who is this token, may this user do that."""

from typing import Any

from turtles.standalone.apiserver.access.auth import AUDIENCES, Authenticator, User, user_info
from turtles.standalone.apiserver.access.node_authorizer import node_of
from turtles.standalone.apiserver.access.rbac import Attributes, Authorizer
from turtles.standalone.apiserver.schema.kinds import Kind, Review
from turtles.standalone.apiserver.schema.metadata import check_envelope
from turtles.standalone.apiserver.wire.errors import Cause, Object, bad_request, invalid, invalid_value


def answer(
    review: Review, body: Any, user: User, namespace: str, authenticator: Authenticator, authorizer: Authorizer
) -> Object:
    """Return a review with its status.

    :param review: which kind of review.
    :param body: what the client sent.
    :param user: who asks, whom the reviews of oneself are about.
    :param namespace: the one of a LocalSubjectAccessReview's path.
    :raises StatusError: 400 for what is no such review, 422 for one that is wrong.
    """
    check_envelope(body, Kind(review.group, review.version, review.kind, review.plural))
    spec = body.get("spec") or {}
    if not isinstance(spec, dict):
        raise bad_request(f"{review.kind}.spec must be an object")
    if not isinstance(body["metadata"], dict):
        raise bad_request(f"{review.kind}.metadata must be an object")
    result: Object = {
        "kind": review.kind,
        "apiVersion": f"{review.group}/{review.version}",
        "metadata": body["metadata"],
        "spec": spec,
    }
    if review.kind == "TokenReview":
        result["status"] = _token(spec, authenticator)
    elif review.kind == "SelfSubjectReview":
        result.pop("spec")
        result["status"] = {"userInfo": user_info(user)}
    elif review.kind == "SelfSubjectRulesReview":
        result["status"] = _rules(spec, user, authorizer)
    else:
        causes = _access_causes(review, body, spec, namespace)
        if causes:
            raise invalid(review.group, "", "", causes)
        subject = user if review.kind == "SelfSubjectAccessReview" else _subject(spec)
        wanted = _attributes(spec)
        result["status"] = {"allowed": authorizer.allowed(subject, wanted)}
    return result


def _access_causes(review: Review, body: Object, spec: Object, namespace: str) -> list[Cause]:
    """Return what is wrong with an access review (k8s.io/kubernetes/pkg/apis/authorization/validation)."""
    resource, plain = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    causes = []
    if resource is not None and plain is not None:
        text = "cannot be specified in combination with resourceAttributes"
        path, verb = (plain.get(one, "") if isinstance(plain, dict) else "" for one in ("path", "verb"))
        shown = {"Path": path, "Verb": verb}
        causes.append(invalid_value("spec.nonResourceAttributes", shown, text))
    if resource is None and plain is None:
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        causes.append(invalid_value("spec.resourceAttributes", None, text))
    if review.kind != "SelfSubjectAccessReview" and not spec.get("user") and not spec.get("groups"):
        text = "at least one of user or group must be specified"
        causes.append(invalid_value("spec.user", "", text))
    allowed = ("namespace",) if review.kind == "LocalSubjectAccessReview" else ()
    if any(value for name, value in body["metadata"].items() if name not in (*allowed, "managedFields")):
        text = "must be empty except for namespace" if allowed else "must be empty"
        causes.append(invalid_value("metadata", body["metadata"], text))
    if review.kind == "LocalSubjectAccessReview" and isinstance(resource, dict):
        asked = resource.get("namespace") or ""
        if asked != namespace:
            causes.append(invalid_value("spec.resourceAttributes.namespace", asked, "must match metadata.namespace"))
    return causes


def _token(spec: Object, authenticator: Authenticator) -> Object:
    token = spec.get("token")
    if not isinstance(token, str) or not token:
        raise bad_request("token is required for TokenReview in authentication")
    audiences = spec.get("audiences") or []
    if not isinstance(audiences, list):
        raise bad_request("TokenReview.spec.audiences must be a list")
    identity = authenticator.identify(token, audiences or AUDIENCES)
    if identity is None:
        return {"user": {}, "error": "invalid bearer token"}
    user, good = identity
    return {"authenticated": True, "user": user_info(user), "audiences": good}


def _subject(spec: Object) -> User:
    name, groups = spec.get("user") or "", spec.get("groups") or ()
    if not isinstance(name, str) or not isinstance(groups, list | tuple) or not (name or groups):
        raise bad_request("spec.user or spec.groups must be given")
    return User(name, tuple(str(group) for group in groups))


def _attributes(spec: Object) -> Attributes:
    resource, plain = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(plain, dict) and not resource:
        return Attributes(str(plain.get("verb", "")), path=str(plain.get("path", "")))
    if not isinstance(resource, dict):
        raise bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified")

    def text(name: str) -> str:
        return str(resource.get(name) or "")

    return Attributes(
        text("verb"),
        text("group"),
        text("version"),
        text("resource"),
        text("subresource"),
        text("namespace"),
        text("name"),
    )


def _rules(spec: Object, user: User, authorizer: Authorizer) -> Object:
    if not spec.get("namespace"):
        raise bad_request("no namespace on request")
    namespace = spec.get("namespace")
    if not isinstance(namespace, str) or not namespace:
        raise bad_request("no namespace on request")
    rules = authorizer.rules(user, "") + authorizer.rules(user, namespace)
    # An authorizer of nodes has no rules to tell.
    incomplete = bool(node_of(user))
    status = {
        "resourceRules": [rule for rule in rules if not rule.get("nonResourceURLs")],
        "nonResourceRules": [rule for rule in rules if rule.get("nonResourceURLs")],
        "incomplete": incomplete,
    }
    if incomplete:
        status["evaluationError"] = "node authorizer does not support user rule resolution"
    return status
