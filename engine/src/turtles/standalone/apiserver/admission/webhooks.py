# SPDX-License-Identifier: GPL-3.0-or-later
"""Admission webhooks: MutatingWebhookConfigurations and ValidatingWebhookConfigurations.

Source: the Kubernetes documentation "Dynamic Admission Control". Mutating webhooks are asked one after the other in
the order of their names, validating ones at once.
"""

import asyncio
import base64
import binascii
import copy
import logging
import uuid
from collections.abc import Iterator
from typing import Any

from turtles.standalone.apiserver.access.auth import INTERNAL, User, user_info
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.access.node_authorizer import Change, node_of, restrict
from turtles.standalone.apiserver.access.rbac import Attributes, Authorizer
from turtles.standalone.apiserver.builtin.registry import Registry
from turtles.standalone.apiserver.custom.conversion import Converter, by_webhook
from turtles.standalone.apiserver.schema.cel import conditions
from turtles.standalone.apiserver.schema.kinds import ADMISSION, Kind
from turtles.standalone.apiserver.schema.selectors import match_selector
from turtles.standalone.apiserver.storage.store import Event, Key, Store
from turtles.standalone.apiserver.wire import patch
from turtles.standalone.apiserver.wire.encoding import decode
from turtles.standalone.apiserver.wire.errors import Object, StatusError, forbidden, internal, unregistered
from turtles.standalone.apiserver.wire.webhook_client import UnusableClient, WebhookClient, WebhookError

log = logging.getLogger(__name__)
MUTATING, VALIDATING = f"{ADMISSION}/mutatingwebhookconfigurations", f"{ADMISSION}/validatingwebhookconfigurations"
#: Kinds that webhooks never see, so that a broken one can be repaired.
EXEMPT = (MUTATING, VALIDATING)
_REVIEW_VERSIONS = ("admission.k8s.io/v1", "admission.k8s.io/v1beta1")


class Refused(Exception):
    """A webhook gave an answer that can't be used."""


class Webhooks:
    """Asks the webhooks that the store configures."""

    def __init__(self, store: Store, registry: Registry, authorizer: Authorizer) -> None:
        self._store, self._registry, self._authorizer = store, registry, authorizer
        self._hooks: dict[str, list[Object]] = {}
        self.client = WebhookClient(store)
        self.converter = Converter(self.client)
        store.observe(self._on_event)

    def _on_event(self, event: Event) -> None:
        if event.entry.key.resource in EXEMPT:
            self._hooks.clear()

    async def close(self) -> None:
        """Close connections."""
        await self.client.close()

    def _configured(self, resource: str) -> list[Object]:
        hooks = self._hooks.get(resource)
        if hooks is None:
            hooks = self._hooks[resource] = [
                {**webhook, "configuration": entry.key.name}
                for entry in self._store.entries(resource)
                for webhook in entry.object().get("webhooks") or ()
            ]
        return hooks

    def is_asked(self, context: Context, operation: str) -> bool:
        """Whether any webhook may be asked about an operation."""
        hooks = [*self._configured(MUTATING), *self._configured(VALIDATING)]
        if not hooks or context.kind.resource in EXEMPT or context.user is INTERNAL:
            return False
        return any(self._matches(one, context, operation) for one in hooks)

    async def mutate(
        self, context: Context, operation: str, obj: Object | None, old: Object | None, options: Object | None = None
    ) -> Object | None:
        """Return the object as the mutating webhooks want it."""
        asked: list[tuple[Object, Object | None]] = []
        for webhook, kind in self._matching(MUTATING, context, operation, obj, old):
            obj = await self._ask_mutating(webhook, kind, context, operation, obj, old, options)
            asked.append((webhook, obj))
        # What a later webhook changed is shown again, once, to those who want to see it.
        for webhook, seen in asked[:-1]:
            if webhook.get("reinvocationPolicy") == "IfNeeded" and seen != obj:
                kind = self._matches(webhook, context, operation) or context.kind
                if self._wants(webhook, kind, context, operation, obj, old, options):
                    obj = await self._ask_mutating(webhook, kind, context, operation, obj, old, options)
        return obj

    async def validate(
        self, context: Context, operation: str, obj: Object | None, old: Object | None, options: Object | None = None
    ) -> None:
        """Raise what the first validating webhook that refuses says; a node is held against NodeRestriction."""
        node = node_of(context.user)
        if node:
            name = context.name or ((obj or {}).get("metadata") or {}).get("name", "")
            change = Change(operation, context.kind.resource, context.subresource, context.namespace, name, obj, old)
            restrict(self._store, node, change)
        hooks = list(self._matching(VALIDATING, context, operation, obj, old))
        if not hooks:
            return
        asked = (self._ask(webhook, kind, context, operation, obj, old, options) for webhook, kind in hooks)
        for result in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    def _matching(
        self, resource: str, context: Context, operation: str, obj: Object | None, old: Object | None
    ) -> Iterator[tuple[Object, Kind]]:
        hooks = self._configured(resource)
        if not hooks or context.kind.resource in EXEMPT or context.user is INTERNAL:
            return
        for webhook in hooks:
            kind = self._matches(webhook, context, operation)
            if kind is not None and self._wants(webhook, kind, context, operation, obj, old, None):
                yield webhook, kind

    def _wants(
        self,
        webhook: Object,
        kind: Kind,
        context: Context,
        operation: str,
        obj: Object | None,
        old: Object | None,
        options: Object | None,
    ) -> bool:
        """Whether a webhook's selectors and conditions let it be asked."""
        if not self._selects(webhook, context, obj, old):
            return False
        match_conditions = webhook.get("matchConditions")
        if not match_conditions:
            return True

        def access(wanted: dict[str, str]) -> bool:
            return self._may(context.user, wanted)

        met, errors = conditions.met(
            match_conditions,
            lambda: _review_request(kind, context, operation, obj, old, options),
            context.user.name,
            access,
        )
        if errors and webhook.get("failurePolicy") != "Ignore":
            why = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
            name = context.name or ((obj or {}).get("metadata") or {}).get("name", "")
            raise forbidden(context.kind.group, context.kind.plural, name, why)
        return met

    def _may(self, user: User, wanted: dict[str, str]) -> bool:
        if wanted.get("user"):
            name = wanted["user"]
            space = name.split(":")[2]
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{space}", "system:authenticated")
            user = User(name, groups)
        if "path" in wanted:
            return self._authorizer.allowed(user, Attributes(wanted["verb"], path=wanted["path"]))
        names = ("group", "resource", "subresource", "namespace", "name")
        return self._authorizer.allowed(
            user, Attributes(wanted["verb"], version="*", **{one: wanted.get(one, "") for one in names})
        )

    def _matches(self, webhook: Object, context: Context, operation: str) -> Kind | None:
        """Return the version of the kind in which a webhook wants to be asked, None when it doesn't."""
        equivalent = webhook.get("matchPolicy") != "Exact"
        candidates = [context.kind]
        if equivalent:
            candidates += [one for one in self._registry.versions(context.kind) if one != context.kind]
        for kind in candidates:
            if any(_rule_matches(rule, kind, context, operation) for rule in webhook.get("rules") or ()):
                return kind
        return None

    def _selects(self, webhook: Object, context: Context, obj: Object | None, old: Object | None) -> bool:
        selector = webhook.get("objectSelector")
        if selector and not any(
            match_selector(selector, (one.get("metadata") or {}).get("labels") or {}) for one in (obj, old) if one
        ):
            return False
        selector = webhook.get("namespaceSelector")
        if not selector:
            return True
        if context.kind.resource == "/namespaces":
            subject = obj or old or {}
            return match_selector(selector, (subject.get("metadata") or {}).get("labels") or {})
        if not context.kind.namespaced:
            return True
        entry = self._store.get(Key("/namespaces", "", context.namespace))
        return match_selector(selector, entry.labels if entry else {})

    async def _ask_mutating(
        self,
        webhook: Object,
        kind: Kind,
        context: Context,
        operation: str,
        obj: Object | None,
        old: Object | None,
        options: Object | None,
    ) -> Object | None:
        response = await self._ask(webhook, kind, context, operation, obj, old, options, True)
        if response is None or not response.get("patch") or obj is None:
            return obj
        try:
            operations = decode(base64.b64decode(response["patch"], validate=True))
            # The webhook saw the object in its own version; what it patches goes back to the request's.
            seen = copy.deepcopy(await self._in_version(obj, context.kind, kind))
            changed = patch.json_patch(seen, operations)
            if not isinstance(changed, dict):
                raise Refused("the patch doesn't leave an object")
            return await self._in_version(changed, kind, context.kind)
        except patch.Inapplicable as error:
            raise internal(error.why) from None
        except StatusError as error:
            if error.code < 500:
                raise internal(error.message) from None
            raise
        except (Refused, binascii.Error, ValueError, TypeError) as error:
            raise internal(str(error)) from None

    async def _in_version(self, obj: Object, current: Kind, wanted: Kind) -> Object:
        """Return an object of a request in another version of its kind."""
        if current.api_version == wanted.api_version or obj.get("kind") != current.kind:
            return obj
        if by_webhook(current):
            converted = await self.converter.convert([obj], current.api_version, wanted.api_version, current)
            return converted[0]
        return {**obj, "apiVersion": wanted.api_version}

    def _failed(self, webhook: Object, why: str, obj: Object | None) -> Object | None:
        """Go on with ``obj`` or raise, as the webhook's failurePolicy says."""
        log.warning("webhook failed", extra={"webhook": webhook["name"], "reason": why})
        if webhook.get("failurePolicy") == "Ignore":
            return obj
        raise internal(f'failed calling webhook "{webhook["name"]}": {why}')

    async def _ask(
        self,
        webhook: Object,
        kind: Kind,
        context: Context,
        operation: str,
        obj: Object | None,
        old: Object | None,
        options: Object | None,
        mutating: bool = False,
    ) -> Object | None:
        """Return a webhook's response; None when it failed and may be ignored; raise when it refuses."""
        if context.dry_run and webhook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            text = f'admission webhook "{webhook["name"]}" does not support dry run'
            raise StatusError(400, "BadRequest", text)
        if kind.api_version != context.kind.api_version:
            obj = await self._in_version(obj, context.kind, kind) if obj is not None else None
            old = await self._in_version(old, context.kind, kind) if old is not None else None
        request = _review_request(kind, context, operation, obj, old, options)
        reviews = [one for one in webhook.get("admissionReviewVersions") or () if one in ("v1", "v1beta1")]
        version = f"admission.k8s.io/{reviews[0] if reviews else 'v1'}"
        review = {"kind": "AdmissionReview", "apiVersion": version, "request": request}
        try:
            answer = await self.client.post(webhook["clientConfig"], review, webhook.get("timeoutSeconds", 10))
            _check_registered(answer)
            response = _response(answer, request["uid"], version, mutating)
        except UnusableClient as error:
            self._failed(webhook, str(error), None)
            return None
        except WebhookError as error:
            self._failed(webhook, f"failed to call webhook: {error}", None)
            return None
        except Refused as error:
            self._failed(webhook, f"received invalid webhook response: {error}", None)
            return None
        context.warnings += [str(one) for one in response.get("warnings") or ()]
        noted = response.get("auditAnnotations")
        for name, value in noted.items() if isinstance(noted, dict) else ():
            context.annotations[f"{webhook['name']}/{name}"] = str(value)
        if response.get("allowed") is not True:
            raise _denied(webhook["name"], response.get("status"))
        return response


def _check_registered(answer: Any) -> None:
    """Raise where an answer is of a kind that nobody knows."""
    if not isinstance(answer, dict):
        return
    kind, version = str(answer.get("kind") or ""), str(answer.get("apiVersion") or "")
    if kind and version and (kind != "AdmissionReview" or version not in _REVIEW_VERSIONS):
        raise WebhookError(unregistered(kind, version))


def _response(answer: Any, uid: str, version: str, mutating: bool) -> Object:
    """Return the response of an AdmissionReview.

    :raises Refused: it can't be one to the request.
    """
    response = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(response, dict):
        raise Refused("webhook response was absent")
    if version == "admission.k8s.io/v1beta1":
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


def _rule_matches(rule: Object, kind: Kind, context: Context, operation: str) -> bool:
    def has(values: Any, value: str) -> bool:
        return isinstance(values, list) and ("*" in values or value in values)

    if not has(rule.get("operations"), operation) or not has(rule.get("apiGroups"), kind.group):
        return False
    if not has(rule.get("apiVersions"), kind.version):
        return False
    scope = rule.get("scope", "*")
    if scope != "*" and (scope == "Namespaced") != kind.namespaced:
        return False
    for pattern in rule.get("resources") or ():
        resource, _, subresource = str(pattern).partition("/")
        if resource not in ("*", kind.plural):
            continue
        if pattern == "*/*" or subresource == context.subresource or (subresource == "*" and "/" in pattern):
            return True
    return False


def _review_request(
    kind: Kind, context: Context, operation: str, obj: Object | None, old: Object | None, options: Object | None
) -> Object:
    name = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}.get(operation)
    given: Object = {**({"dryRun": ["All"]} if context.dry_run else {}), **(options or {})}
    if context.subresource == "eviction":
        of_kind = {"group": "policy", "version": "v1", "kind": "Eviction"}
        asked_kind = of_kind
    elif context.subresource == "scale":
        asked_kind = of_kind = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    elif operation == "CONNECT":
        asked_kind = of_kind = {"group": "", "version": "v1", "kind": (obj or {})["kind"]}
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
        "operation": operation,
        "userInfo": user_info(context.user),
        "dryRun": context.dry_run,
        "object": obj,
        "oldObject": old,
        "options": {"kind": name, "apiVersion": "meta.k8s.io/v1", **given} if name else None,
    }
    value = context.name or ((obj or {}).get("metadata") or {}).get("name", "")
    if value:
        request["name"] = value
    if kind.namespaced:
        request["namespace"] = context.namespace
    elif kind.resource == "/namespaces":
        request["namespace"] = value
    if context.subresource:
        request["subResource"] = request["requestSubResource"] = context.subresource
    return request


def _denied(name: str, status: Any) -> StatusError:
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
