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
from dataclasses import replace
from typing import Any

from turtles.standalone.apiserver.access.auth import INTERNAL, User
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.access.node_authorizer import Change, node_of, restrict
from turtles.standalone.apiserver.access.rbac import Attributes, Authorizer
from turtles.standalone.apiserver.admission.review import (
    Refused,
    Subject,
    check_registered,
    denied,
    request_of,
    response_of,
    version_for,
)
from turtles.standalone.apiserver.builtin.registry import Registry
from turtles.standalone.apiserver.custom.conversion import Converter, by_webhook
from turtles.standalone.apiserver.schema.cel import conditions
from turtles.standalone.apiserver.schema.kinds import ADMISSION, Kind
from turtles.standalone.apiserver.schema.selectors import match_selector
from turtles.standalone.apiserver.storage.entries import Event, Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire import patch
from turtles.standalone.apiserver.wire.encoding import decode
from turtles.standalone.apiserver.wire.errors import Object, StatusError, forbidden, internal
from turtles.standalone.apiserver.wire.webhook_client import UnusableClient, WebhookClient, WebhookError

log = logging.getLogger(__name__)
MUTATING, VALIDATING = f"{ADMISSION}/mutatingwebhookconfigurations", f"{ADMISSION}/validatingwebhookconfigurations"
#: Kinds that webhooks never see, so that a broken one can be repaired.
EXEMPT = (MUTATING, VALIDATING)


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

    def _configured(self, resource: str, context: Context) -> list[Object]:
        """Return the webhooks of a kind of configuration, none for requests that none may see."""
        if context.kind.resource in EXEMPT or context.user is INTERNAL:
            return []
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
        hooks = [*self._configured(MUTATING, context), *self._configured(VALIDATING, context)]
        return any(self._matches(one, context, operation) for one in hooks)

    async def mutate(
        self, context: Context, operation: str, obj: Object | None, old: Object | None, options: Object | None = None
    ) -> Object | None:
        """Return the object as the mutating webhooks want it.

        :raises StatusError: one of them refuses, or can't be asked and must not be ignored.
        """
        subject = Subject(context, operation, obj, old, options)
        asked: list[tuple[Object, Object | None]] = []
        for webhook in self._configured(MUTATING, context):
            if kind := self._wants(webhook, subject):
                subject = replace(subject, obj=await self._ask_mutating(webhook, kind, subject))
                asked.append((webhook, subject.obj))
        # What a later webhook changed is shown again, once, to those who want to see it.
        for webhook, seen in asked[:-1]:
            is_due = webhook.get("reinvocationPolicy") == "IfNeeded" and seen != subject.obj
            if is_due and (kind := self._wants(webhook, subject)):
                subject = replace(subject, obj=await self._ask_mutating(webhook, kind, subject))
        return subject.obj

    async def validate(
        self, context: Context, operation: str, obj: Object | None, old: Object | None, options: Object | None = None
    ) -> None:
        """Ask the validating webhooks; check a node's request against NodeRestriction first.

        :raises StatusError: a webhook refuses, the first one's error; or the node may not do this.
        """
        subject = Subject(context, operation, obj, old, options)
        node = node_of(context.user)
        if node:
            change = Change(
                operation, context.kind.resource, context.subresource, context.namespace, subject.name, obj, old
            )
            restrict(self._store, node, change)
        hooks = [(one, self._wants(one, subject)) for one in self._configured(VALIDATING, context)]
        asked = (self._ask(webhook, kind, subject) for webhook, kind in hooks if kind)
        for result in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    def _wants(self, webhook: Object, subject: Subject) -> Kind | None:
        """Return the version of the kind in which a webhook is to be asked; None if it isn't to be asked.

        :raises StatusError: a condition can't be evaluated, and the webhook must not be ignored.
        """
        context = subject.context
        kind = self._matches(webhook, context, subject.operation)
        if kind is None or not self._selects(webhook, subject):
            return None
        match_conditions = webhook.get("matchConditions")
        if not match_conditions:
            return kind

        def access(wanted: dict[str, str]) -> bool:
            return self._may(context.user, wanted)

        met, errors = conditions.met(match_conditions, lambda: request_of(subject, kind), context.user.name, access)
        if errors and webhook.get("failurePolicy") != "Ignore":
            why = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
            raise forbidden(context.kind.group, context.kind.plural, subject.name, why)
        return kind if met else None

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

    def _selects(self, webhook: Object, subject: Subject) -> bool:
        """Whether a webhook's selectors choose the object, as it was or as it is to become, and its namespace."""
        context, obj, old = subject.context, subject.obj, subject.old
        selector = webhook.get("objectSelector")
        if selector and not any(match_selector(selector, _labels(one)) for one in (obj, old) if one):
            return False
        selector = webhook.get("namespaceSelector")
        if not selector:
            return True
        if context.kind.resource == "/namespaces":
            return match_selector(selector, _labels(obj or old or {}))
        if not context.kind.namespaced:
            return True
        entry = self._store.get(Key("/namespaces", "", context.namespace))
        return match_selector(selector, entry.labels if entry else {})

    async def _ask_mutating(self, webhook: Object, kind: Kind, subject: Subject) -> Object | None:
        """Return the object as a webhook wants it, in the request's version."""
        obj, own = subject.obj, subject.context.kind
        response = await self._ask(webhook, kind, subject, mutating=True)
        if response is None or not response.get("patch") or obj is None:
            return obj
        try:
            operations = decode(base64.b64decode(response["patch"], validate=True))
            # The webhook saw the object in its own version; what it patches goes back to the request's.
            seen = copy.deepcopy(await self._in_version(obj, own, kind))
            changed = patch.json_patch(seen, operations)
            if not isinstance(changed, dict):
                raise Refused("the patch doesn't leave an object")
            return await self._in_version(changed, kind, own)
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

    async def _ask(self, webhook: Object, kind: Kind, subject: Subject, *, mutating: bool = False) -> Object | None:
        """Return a webhook's response; None if it failed and may be ignored.

        :raises StatusError: it refuses, or failed and must not be ignored.
        """
        context, name = subject.context, webhook["name"]
        if context.dry_run and webhook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise StatusError(400, "BadRequest", f'admission webhook "{name}" does not support dry run')
        if kind.api_version != context.kind.api_version:
            obj, old = [
                await self._in_version(one, context.kind, kind) if one is not None else None
                for one in (subject.obj, subject.old)
            ]
            subject = replace(subject, obj=obj, old=old)
        version, request = version_for(webhook), request_of(subject, kind)
        review = {"kind": "AdmissionReview", "apiVersion": version, "request": request}
        try:
            answer = await self.client.post(webhook["clientConfig"], review, webhook.get("timeoutSeconds", 10))
            check_registered(answer)
            response = response_of(answer, request["uid"], version, mutating)
        except UnusableClient as error:
            _note_failure(webhook, str(error))
            return None
        except WebhookError as error:
            _note_failure(webhook, f"failed to call webhook: {error}")
            return None
        except Refused as error:
            _note_failure(webhook, f"received invalid webhook response: {error}")
            return None
        context.warnings += [str(one) for one in response.get("warnings") or ()]
        noted = response.get("auditAnnotations")
        for key, value in noted.items() if isinstance(noted, dict) else ():
            context.annotations[f"{name}/{key}"] = str(value)
        if response.get("allowed") is not True:
            raise denied(name, response.get("status"))
        return response


def _note_failure(webhook: Object, why: str) -> None:
    """Log that a webhook failed.

    :raises StatusError: its failurePolicy doesn't let it be ignored.
    """
    log.warning("webhook failed", extra={"webhook": webhook["name"], "reason": why})
    if webhook.get("failurePolicy") != "Ignore":
        raise internal(f'failed calling webhook "{webhook["name"]}": {why}')


def _labels(obj: Object) -> Object:
    return (obj.get("metadata") or {}).get("labels") or {}


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
