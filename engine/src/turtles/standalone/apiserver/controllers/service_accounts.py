# SPDX-License-Identifier: GPL-3.0-or-later
"""What every namespace and service account gets: the authority's certificate, tokens in Secrets that ask for them.

Source: the Kubernetes documentation "Managing Service Accounts": the token controller, the root CA certificate
publisher; "Secrets", the type kubernetes.io/service-account-token.
"""

import base64
from collections.abc import Iterable
from pathlib import Path

from turtles.api.objects import annotations_of
from turtles.standalone.apiserver.access.auth import INTERNAL
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.access.tokens import Tokens
from turtles.standalone.apiserver.controllers.internal import context_of, kind_of
from turtles.standalone.apiserver.resource.create import create
from turtles.standalone.apiserver.resource.delete import delete
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.resource.update import modify
from turtles.standalone.apiserver.storage.entries import DELETED, Event, Key
from turtles.standalone.apiserver.wire.errors import Object, StatusError
from turtles.standalone.apiserver.wire.options import DeleteOptions
from turtles.standalone.well_known import SERVICE_ACCOUNT_NAME, SERVICE_ACCOUNT_TOKEN

UID = "kubernetes.io/service-account.uid"
CONFIG_MAP = "kube-root-ca.crt"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


class RootCertificates:
    """Keeps the ConfigMap kube-root-ca.crt in every namespace."""

    resources: frozenset[str] | None = frozenset({"/namespaces", "/configmaps"})

    def __init__(self, resources: Resources, authority: Path) -> None:
        self._resources = resources
        self._data = {"ca.crt": authority.read_text() if authority.exists() else ""}

    def initial(self) -> Iterable[Key]:
        """Return every namespace."""
        return [entry.key for entry in self._resources.store.entries("/namespaces")]

    def concerned(self, event: Event) -> Iterable[Key]:
        """Return the namespace that is new, or whose ConfigMap was touched."""
        key = event.entry.key
        if key.resource == "/namespaces":
            return [key] if event.type != DELETED else []
        return [Key("/namespaces", "", key.namespace)] if key.name == CONFIG_MAP else []

    async def reconcile(self, key: Key) -> None:
        """Create or restore the ConfigMap of a namespace.

        :raises StatusError: it can't be written; try again.
        """
        namespace = self._resources.store.get(key)
        if namespace is None or namespace.metadata.deletion_timestamp:
            return
        context = Context(kind_of(self._resources, "/configmaps"), INTERNAL, key.name, CONFIG_MAP)
        entry = self._resources.store.get(context.key)
        if entry is None:
            annotations = {"kubernetes.io/description": _DESCRIPTION}
            body = {"metadata": {"name": CONFIG_MAP, "annotations": annotations}, "data": dict(self._data)}
            try:
                await create(self._resources, context, body)
            except StatusError as error:
                # It came from elsewhere, or the namespace is ending.
                if error.code not in (403, 404, 409):
                    raise
        elif entry.object().get("data") != self._data:

            async def restored(old: Object) -> Object:
                return {**old, "data": dict(self._data)}

            await modify(self._resources, context, restored)


class SecretTokens:
    """Fills Secrets of type kubernetes.io/service-account-token, and deletes those whose account is gone."""

    resources: frozenset[str] | None = frozenset({"/secrets", "/serviceaccounts"})

    def __init__(self, resources: Resources, tokens: Tokens, authority: Path) -> None:
        self._resources, self._tokens = resources, tokens
        self._authority = base64.b64encode(authority.read_bytes() if authority.exists() else b"").decode()

    def initial(self) -> Iterable[Key]:
        """Return every Secret with a token."""
        return [entry.key for entry in self._resources.store.entries("/secrets") if _is_token(entry.raw)]

    def concerned(self, event: Event) -> Iterable[Key]:
        """Return the Secret, or the Secrets of an account's namespace."""
        entry = event.entry
        if entry.key.resource == "/secrets":
            return [entry.key] if event.type != DELETED and _is_token(entry.raw) else []
        if event.type != DELETED and event.previous is not None:
            return []
        secrets = self._resources.store.entries("/secrets", entry.key.namespace)
        return [secret.key for secret in secrets if _is_token(secret.raw)]

    async def reconcile(self, key: Key) -> None:
        """Give a Secret its account's token and uid; delete it if the account is gone.

        :raises StatusError: it can't be written; try again.
        """
        store = self._resources.store
        entry = store.get(key)
        if entry is None or entry.metadata.deletion_timestamp:
            return
        secret = entry.object()
        annotations = annotations_of(secret)
        name, uid = annotations.get(SERVICE_ACCOUNT_NAME), annotations.get(UID)
        if secret.get("type") != SERVICE_ACCOUNT_TOKEN or not name:
            return
        account = store.get(Key("/serviceaccounts", key.namespace, name))
        context = context_of(self._resources, key)
        if account is None or (uid and uid != account.metadata.uid):
            try:
                await delete(self._resources, context, DeleteOptions(uid=entry.metadata.uid))
            except StatusError as error:
                if error.code not in (404, 409):
                    raise
            return
        data = secret.get("data") or {}
        if uid and all(data.get(one) for one in ("ca.crt", "namespace", "token")):
            return
        wanted = {
            "ca.crt": self._authority,
            "namespace": base64.b64encode(key.namespace.encode()).decode(),
        }
        if not data.get("token"):
            token = self._tokens.legacy(key.namespace, name, account.metadata.uid, key.name)
            wanted["token"] = base64.b64encode(token.encode()).decode()

        async def filled(old: Object) -> Object:
            old["data"] = {**(old.get("data") or {}), **wanted}
            old["metadata"].setdefault("annotations", {})[UID] = account.metadata.uid
            return old

        await modify(self._resources, context, filled)


def _is_token(raw: bytes) -> bool:
    return SERVICE_ACCOUNT_TOKEN.encode() in raw
