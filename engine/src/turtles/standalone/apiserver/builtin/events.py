# SPDX-License-Identifier: GPL-3.0-or-later
"""Events: rules, and conversion between v1 and events.k8s.io/v1.

Old ones are hardly validated, those of events.k8s.io/v1 strictly. Source: Kubernetes'
pkg/apis/core/validation/events.go.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from turtles.standalone.apiserver.builtin.columns import age, as_map, column, name_of, wide
from turtles.standalone.apiserver.builtin.fields import IMMUTABLE
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.schema.metadata import qualified_causes
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value, required

_EVENT = "@core.v1.Event."
_LIMIT, _NOTE_LIMIT = 128, 1024
_NAMESPACE = "does not match event.namespace"
_IMMUTABLE = (
    "involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "reason", "type",
    "eventTime", "action", "related", "reportingController", "reportingInstance",
)  # fmt: skip


class Events(Strategy):
    """Events, in both of their groups; stored as v1."""

    columns = (
        column("Last Seen", f"{_EVENT}lastTimestamp"), column("Type", f"{_EVENT}type"),
        column("Reason", f"{_EVENT}reason"), column("Object", f"{_EVENT}involvedObject"),
        wide("Subobject", "@core.v1.ObjectReference.fieldPath"), wide("Source", f"{_EVENT}source"),
        column("Message", f"{_EVENT}message"), wide("First Seen", f"{_EVENT}firstTimestamp"),
        wide("Count", f"{_EVENT}count"), wide("Name", "@meta.v1.ObjectMeta.name"),
    )  # fmt: skip

    def cells(self, obj: Object) -> list[Any]:
        obj = convert(obj, "v1")
        involved, source, series = (as_map(obj.get(field)) for field in ("involvedObject", "source", "series"))
        first = age(obj.get("firstTimestamp") or obj.get("eventTime"))
        last, count = age(obj["lastTimestamp"]) if obj.get("lastTimestamp") else first, obj.get("count") or 1
        if series:
            last, count = age(series.get("lastObservedTime")), series.get("count", 0)
        about = str(involved.get("kind", "")).lower()
        component = source.get("component") or obj.get("reportingComponent") or ""
        host = source.get("host") or obj.get("reportingInstance")
        return [
            last, obj.get("type", ""), obj.get("reason", ""), f"{about}/{involved['name']}" if involved.get("name") else
            about, involved.get("fieldPath", ""), f"{component}, {host}" if host else component,
            str(obj.get("message", "")).strip(), first, count, name_of(obj),
        ]  # fmt: skip

    def served(self, entry: Entry, kind: Kind) -> bytes:
        """Return an Event's JSON in the version of ``kind``."""
        if kind.api_version == kind.storage_api_version:
            return entry.raw
        return msgspec.json.encode(convert(entry.object(), kind.api_version))

    async def load(self, entry: Entry, kind: Kind) -> Object:
        """Return an Event, the caller's own, in the version of ``kind``."""
        return convert(entry.object(), kind.api_version)

    def viewed(self, kind: Kind) -> Callable[[Entry], Object]:
        """Return what gives an Event as field selectors of a version see it."""
        if kind.api_version == kind.storage_api_version:
            return Entry.object
        return lambda entry: convert(entry.object(), kind.api_version)

    async def to_storage(self, obj: Object, kind: Kind) -> Object:
        """Return an Event as it is stored."""
        return convert(obj, kind.storage_api_version)

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        event = convert(obj, "v1")
        causes = _legacy(event)
        if obj["apiVersion"] == "v1":
            return causes
        return causes + (_strict(event) if old is None else _change(event, convert(old, "v1")))


def convert(obj: Object, api_version: str) -> Object:
    """Convert an Event between v1 and events.k8s.io/v1, which name the same fields differently."""
    if obj.get("apiVersion") == api_version:
        return obj
    pairs = {
        "involvedObject": "regarding",
        "message": "note",
        "source": "deprecatedSource",
        "count": "deprecatedCount",
        "firstTimestamp": "deprecatedFirstTimestamp",
        "lastTimestamp": "deprecatedLastTimestamp",
        "reportingComponent": "reportingController",
    }
    if api_version == "v1":
        pairs = {new: old for old, new in pairs.items()}
    result = {pairs.get(name, name): value for name, value in obj.items()}
    result["apiVersion"] = api_version
    for name in ("reportingController", "reportingInstance"):
        # v1 writes them empty, events.k8s.io/v1 leaves them out.
        if api_version == "v1":
            result.setdefault("reportingComponent" if name == "reportingController" else name, "")
        elif result.get(name) == "":
            del result[name]
    return result


def _legacy(event: Object) -> list[Cause]:
    involved = (event.get("involvedObject") or {}).get("namespace") or ""
    namespace = event["metadata"].get("namespace") or ""
    if not event.get("eventTime"):
        # Events about objects without a namespace belong in default.
        fits = involved == namespace if involved else namespace in ("", "default")
        return [] if fits else [invalid_value("involvedObject.namespace", involved, _NAMESPACE)]
    causes: list[Cause] = []
    # Those of newer ways to tell them are anywhere; without a namespace they used to be in kube-system.
    if not involved and namespace not in ("default", "kube-system"):
        causes.append(invalid_value("involvedObject.namespace", involved, _NAMESPACE))
    controller = event.get("reportingComponent") or ""
    if not controller:
        causes.append(required("reportingController"))
    causes += qualified_causes("reportingController", controller)
    for field, needed, limit in (
        ("reportingInstance", True, _LIMIT), ("action", True, _LIMIT), ("reason", True, _LIMIT),
        ("message", False, _NOTE_LIMIT),
    ):  # fmt: skip
        if needed and not event.get(field):
            causes.append(required(field))
        if len((event.get(field) or "").encode()) > limit:
            causes.append(invalid_value(field, "", f"can have at most {limit} characters"))
    return causes


def _series(event: Object) -> list[Cause]:
    series = event.get("series")
    if not series:
        return []
    causes = []
    if (series.get("count") or 0) < 2:
        causes.append(invalid_value("series.count", "", "should be at least 2"))
    if not series.get("lastObservedTime"):
        causes.append(required("series.lastObservedTime"))
    return causes


def _strict(event: Object) -> list[Cause]:
    causes = _series(event)
    if not event.get("eventTime"):
        causes.append(required("eventTime"))
    if event.get("type") not in ("Normal", "Warning"):
        causes.append(invalid_value("type", "", f"has invalid value: {event.get('type') or ''}"))
    source = event.get("source") or {}
    for field, value in (
        ("firstTimestamp", event.get("firstTimestamp")), ("lastTimestamp", event.get("lastTimestamp")),
        ("count", event.get("count")), ("source", source.get("component") or source.get("host")),
    ):  # fmt: skip
        if value:
            causes.append(invalid_value(field, "", "needs to be unset"))
    return causes


def _change(event: Object, old: Object) -> list[Cause]:
    causes = _series(event) if event.get("series") != old.get("series") else []
    for field in _IMMUTABLE:
        stored = {"reportingController": "reportingComponent"}.get(field, field)
        value = _value(event, stored)
        if value != _value(old, stored):
            causes.append(invalid_value(field, value, IMMUTABLE))
    return causes


def _value(event: Object, field: str) -> Any:
    return event.get(field) or ("" if field != "count" else 0)
