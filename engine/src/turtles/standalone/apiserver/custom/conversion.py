# SPDX-License-Identifier: GPL-3.0-or-later
"""Custom resources in the version asked for: conversion by webhook, and schemas that changed since the write.

Source: the Kubernetes documentation "Versions in CustomResourceDefinitions" (apiextensions.k8s.io/v1 ConversionReview),
"Defaulting" and "Pruning": both happen on reading too.
"""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from turtles.standalone.apiserver.schema import validation as schema
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.wire.encoding import plain_numbers
from turtles.standalone.apiserver.wire.errors import Object, StatusError
from turtles.standalone.apiserver.wire.webhook_client import WebhookClient, WebhookError

SECONDS = 30.0
_FIXED = ("name", "namespace", "uid")


def version_of(raw: bytes) -> str:
    """Return the apiVersion that an object's JSON starts with."""
    return raw[15 : raw.index(b'"', 15)].decode()


def by_webhook(kind: Kind) -> bool:
    """Whether versions of a kind are converted by a webhook."""
    return bool(kind.conversion) and (kind.conversion or {}).get("strategy") == "Webhook"


def reshape(obj: Object, kind: Kind) -> Object:
    """Prune and default an object by its kind's schema, in place."""
    if kind.schema is not None:
        if not kind.preserve:
            schema.prune(obj, kind.schema)
        schema.default(obj, kind.schema)
    return obj


class Converter:
    """Gives custom resources in other versions than the stored one. Results are kept with the entries."""

    def __init__(self, client: WebhookClient) -> None:
        self._client = client

    def served(self, entry: Entry, kind: Kind) -> bytes:
        """Return an object's JSON in the version of ``kind``.

        :raises LookupError: a webhook converts it, and :meth:`prepare` hasn't been awaited for it.
        """
        same = entry.raw.startswith(b'{"apiVersion":"' + kind.api_version.encode() + b'"')
        if same and entry.version >= kind.reshaped:
            return entry.raw
        raw = entry.converted.get(_slot(kind)) if entry.converted else None
        if raw is None:
            if not same and by_webhook(kind):
                raise LookupError(f"{entry.key} has not been converted to {kind.api_version}")
            raw = self._keep(entry, kind, {**entry.object(), "apiVersion": kind.api_version})
        return raw

    def _keep(self, entry: Entry, kind: Kind, obj: Object) -> bytes:
        raw = msgspec.json.encode(reshape(obj, kind))
        if entry.converted is None:
            entry.converted = {}
        if raw == entry.raw:
            raw = entry.raw
        entry.converted[_slot(kind)] = raw
        return raw

    async def prepare(self, entries: Sequence[Entry], kind: Kind, again: bool = False) -> None:
        """Have the webhook convert, in one call per version, what isn't in the version of ``kind`` yet.

        :param again: whether what was converted before is converted again: only watches show what a webhook said
            once, as from kube-apiserver's watch cache.
        :raises StatusError: 500 when it can't or doesn't.
        """
        waiting: dict[str, list[Entry]] = {}
        for entry in self.waiting(entries, kind, again):
            waiting.setdefault(version_of(entry.raw), []).append(entry)
        for version, batch in waiting.items():
            converted = await self.convert([one.object() for one in batch], version, kind.api_version, kind)
            for entry, obj in zip(batch, converted, strict=True):
                self._keep(entry, kind, obj)

    def waiting(self, entries: Iterable[Entry], kind: Kind, again: bool = False) -> list[Entry]:
        """Return the objects that a webhook has yet to convert to the version of ``kind``.

        :param again: see :meth:`prepare`.
        """
        if not by_webhook(kind):
            return []
        slot = _slot(kind)
        return [
            entry
            for entry in entries
            if version_of(entry.raw) != kind.api_version and (again or slot not in (entry.converted or {}))
        ]

    async def to_storage(self, obj: Object, kind: Kind) -> Object:
        """Return an object in the version in which it is stored.

        :param kind: in whose version it is.
        :raises StatusError: as for :meth:`convert`.
        """
        if kind.storage_api_version == kind.api_version or not by_webhook(kind):
            return {**obj, "apiVersion": kind.storage_api_version}
        return (await self.convert([obj], kind.api_version, kind.storage_api_version, kind))[0]

    async def convert(self, objects: list[Object], current: str, desired: str, kind: Kind) -> list[Object]:
        """Return objects in another version, as the webhook of the kind's definition gives them.

        Source: the Kubernetes documentation "Versions in CustomResourceDefinitions"; messages are those of
        pkg/apiserver/conversion of k8s.io/apiextensions-apiserver.

        :param current: the API version that they are in.
        :param desired: the one that they are wanted in.
        :raises StatusError: 500 if the webhook can't be asked, refuses, or changes what it must not.
        """
        webhook = (kind.conversion or {})["webhook"]
        request = {"uid": str(uuid.uuid4()), "desiredAPIVersion": desired, "objects": objects}
        review = {"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "request": request}
        what = f"conversion webhook for {current}, Kind={kind.kind}"
        try:
            answer = await self._client.post(webhook["clientConfig"], review, SECONDS)
        except WebhookError as error:
            raise _failed(f"{what} failed: {error}") from None
        response = answer.get("response") if isinstance(answer, dict) else None
        if not isinstance(response, dict):
            raise _failed(f"{what} failed: the answer has no response")
        if response.get("uid") != request["uid"]:
            text = f'expected response.uid="{request["uid"]}", got "{response.get("uid", "")}"'
            raise _failed(f"invalid response from {what}: {text}")
        result = response.get("result")
        if not isinstance(result, dict) or result.get("status") != "Success":
            reason = result.get("message") if isinstance(result, dict) else None
            raise _failed(f"{what} failed: {reason or 'unknown error'}")
        converted = response.get("convertedObjects")
        if not isinstance(converted, list) or len(converted) != len(objects):
            count = len(converted) if isinstance(converted, list) else 0
            raise _failed(f"{what} returned {count} objects, expected {len(objects)}")
        return [
            _checked(old, new, desired, f"{what} returned invalid", index)
            for index, (old, new) in enumerate(zip(objects, converted, strict=True))
        ]


def _slot(kind: Kind) -> tuple[str, int]:
    return kind.api_version, kind.definition


def _failed(message: str) -> StatusError:
    return StatusError(500, "", message)


def _checked(old: Object, new: Any, desired: str, what: str, index: int) -> Object:
    """Return a converted object with the metadata that a webhook can't change."""
    if not isinstance(new, dict):
        raise _failed(f"{what} converted object at index {index}: it is no object")
    if new.get("apiVersion") != desired:
        text = f"invalid groupVersion (expected {desired}, received {new.get('apiVersion', '')})"
        raise _failed(f"{what} converted object at index {index}: {text}")
    if new.get("kind") != old.get("kind"):
        text = f"invalid kind (expected {old.get('kind')}, received {new.get('kind', '')})"
        raise _failed(f"{what} converted object at index {index}: {text}")
    meta = new.get("metadata")
    if not isinstance(meta, dict):
        raise _failed(f"{what} metadata in object at index {index}: it must be an object")
    for name in _FIXED:
        if meta.get(name, "") != old["metadata"].get(name, ""):
            raise _failed(f"{what} metadata in object at index {index}: must have the same {name}")
    metadata = dict(old["metadata"])
    for name in ("labels", "annotations"):
        values = meta.get(name) or {}
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise _failed(f"{what} metadata in object at index {index}: {name} must be a map of texts")
        if values:
            metadata[name] = values
        else:
            metadata.pop(name, None)
    rest = {name: plain_numbers(value) for name, value in new.items() if name not in ("apiVersion", "kind", "metadata")}
    return {"apiVersion": desired, "kind": new["kind"], "metadata": metadata, **rest}
