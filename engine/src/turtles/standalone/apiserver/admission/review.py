# SPDX-License-Identifier: GPL-3.0-or-later
"""AdmissionReviews: what a webhook is asked, and which answers are accepted.

Source: the Kubernetes documentation "Dynamic Admission Control"; for answers that can't be used
pkg/admission/plugin/webhook/request of k8s.io/apiserver.
"""

import uuid
from dataclasses import dataclass
from typing import Any

from turtles.standalone.apiserver.access.auth import user_info
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.wire.errors import Object, StatusError, unregistered
from turtles.standalone.apiserver.wire.webhook_client import WebhookError

_V1, _V1BETA1 = "admission.k8s.io/v1", "admission.k8s.io/v1beta1"


class Refused(Exception):
    """A webhook gave an answer that can't be used."""


@dataclass(frozen=True)
class Subject:
    """What webhooks are asked about.

    :param operation: CREATE, UPDATE, DELETE or CONNECT.
    :param obj: the object as it is to become; None if it is deleted.
    :param old: the object as it is; None if it is created.
    :param options: those of the request.
    """

    context: Context
    operation: str
    obj: Object | None
    old: Object | None
    options: Object | None = None

    @property
    def name(self) -> str:
        """The object's name; empty while it has none, as it will be generated."""
        return self.context.name or str(((self.obj or {}).get("metadata") or {}).get("name", ""))


def version_for(webhook: Object) -> str:
    """Return the API version of the AdmissionReviews that a webhook takes: the first one that this server knows."""
    known = [one for one in webhook.get("admissionReviewVersions") or () if one in ("v1", "v1beta1")]
    return f"admission.k8s.io/{known[0] if known else 'v1'}"


def request_of(subject: Subject, kind: Kind) -> Object:
    """Return the request of an AdmissionReview.

    :param kind: the version of the kind that the webhook wants to see, in which the subject's objects are.
    """
    context = subject.context
    name = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}.get(subject.operation)
    sent_options: Object = {**({"dryRun": ["All"]} if context.dry_run else {}), **(subject.options or {})}
    if context.subresource == "eviction":
        of_kind = {"group": "policy", "version": "v1", "kind": "Eviction"}
        asked_kind = of_kind
    elif context.subresource == "scale":
        asked_kind = of_kind = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    elif subject.operation == "CONNECT":
        asked_kind = of_kind = {"group": "", "version": "v1", "kind": (subject.obj or {})["kind"]}
    else:
        of_kind = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        asked = context.kind
        asked_kind = {"group": asked.group, "version": asked.version, "kind": asked.kind}
    request: Object = {
        "uid": str(uuid.uuid4()),
        "kind": of_kind,
        "resource": {"group": kind.group, "version": kind.version, "resource": kind.plural},
        "requestKind": asked_kind,
        "requestResource": {"group": context.kind.group, "version": context.kind.version, "resource": kind.plural},
        "operation": subject.operation,
        "userInfo": user_info(context.user),
        "dryRun": context.dry_run,
        "object": subject.obj,
        "oldObject": subject.old,
        "options": {"kind": name, "apiVersion": "meta.k8s.io/v1", **sent_options} if name else None,
    }
    if subject.name:
        request["name"] = subject.name
    if kind.namespaced:
        request["namespace"] = context.namespace
    elif kind.resource == "/namespaces":
        request["namespace"] = subject.name
    if context.subresource:
        request["subResource"] = request["requestSubResource"] = context.subresource
    return request


def check_registered(answer: Any) -> None:
    """Check that an answer isn't of a kind that no scheme has.

    :raises WebhookError: it is.
    """
    if not isinstance(answer, dict):
        return
    kind, version = str(answer.get("kind") or ""), str(answer.get("apiVersion") or "")
    if kind and version and (kind != "AdmissionReview" or version not in (_V1, _V1BETA1)):
        raise WebhookError(unregistered(kind, version))


def response_of(answer: Any, uid: str, version: str, mutating: bool) -> Object:
    """Return the response of an AdmissionReview.

    :param uid: the request's.
    :param version: the API version in which the webhook was asked.
    :param mutating: whether it may patch the object.
    :raises Refused: it can't be one to the request.
    """
    response = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(response, dict):
        raise Refused("webhook response was absent")
    if version == _V1BETA1:
        if response.get("patch"):
            response.setdefault("patchType", "JSONPatch")
        return response
    actual = f"{answer.get('apiVersion', '')}, Kind={answer.get('kind', '')}"
    if actual != f"{version}, Kind=AdmissionReview":
        raise Refused(f"expected webhook response of {version}, Kind=AdmissionReview, got {actual}")
    if response.get("uid") != uid:
        raise Refused(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
    patched, kind = response.get("patch"), response.get("patchType")
    if not mutating and (patched or kind):
        raise Refused(f"webhook response.{'patch' if patched else 'patchType'} is not allowed for validating webhooks")
    if patched and kind is None:
        raise Refused("webhook returned response.patch but not response.patchType")
    if kind is not None and not patched:
        raise Refused("webhook returned response.patchType but not response.patch")
    if kind not in (None, "JSONPatch"):
        raise Refused(f'invalid value of response.patchType: "{kind}"')
    return response


def denied(name: str, status: Any) -> StatusError:
    """Return the error that a client gets when a webhook refuses.

    :param name: the webhook's.
    :param status: what its response says about the reason, if anything.
    """
    status = status if isinstance(status, dict) else {}
    code = status.get("code")
    # A refusal is an error, whatever number it comes with.
    code = code if isinstance(code, int) and 400 <= code < 600 else 400
    message, reason = status.get("message"), status.get("reason") or ""
    text = f'admission webhook "{name}" denied the request'
    if message:
        text += f": {message}"
    elif reason:
        text += f": {reason}"
    else:
        text += " without explanation"
    details = status.get("details")
    return StatusError(code, reason, text, details if isinstance(details, dict) else None)
