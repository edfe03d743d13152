# SPDX-License-Identifier: GPL-3.0-or-later
"""What Events must look like: old ones little, those of events.k8s.io/v1 strictly.

Source: Kubernetes' pkg/apis/core/validation/events.go.
"""

from typing import Any

from turtles.standalone.apiserver.schema.kinds import convert_event
from turtles.standalone.apiserver.schema.metadata import qualified_causes
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value, required

_LIMIT, _NOTE_LIMIT = 128, 1024
_NAMESPACE = "does not match event.namespace"
_IMMUTABLE = (
    "involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "reason", "type",
    "eventTime", "action", "related", "reportingController", "reportingInstance",
)  # fmt: skip


def validate(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with an Event of either group."""
    event = convert_event(obj, "v1")
    causes = _legacy(event)
    if obj["apiVersion"] == "v1":
        return causes
    return causes + (_strict(event) if old is None else _change(event, convert_event(old, "v1")))


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
            causes.append(invalid_value(field, value, "field is immutable"))
    return causes


def _value(event: Object, field: str) -> Any:
    return event.get(field) or ("" if field != "count" else 0)
