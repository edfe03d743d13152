# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine gets from its instance type. It can't have any of that itself: that would be a conflict.

Rules and messages are those of the KubeVirt API (user guide, "Instance types and preferences").
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterator
from typing import Any

from turtles.api import quantity
from turtles.api.kinds.preference.application import apply_preference
from turtles.api.kinds.preference.topology import spread_cause, topology
from turtles.api.language import INVALID, Cause
from turtles.api.objects import Object
from turtles.api.rules import Causes, Spec

#: Fields of a machine's processors by those of an instance type's. Conflicts are named after the latter.
_CPU = {
    "model": "model",
    "dedicatedCPUPlacement": "dedicatedCpuPlacement",
    "isolateEmulatorThread": "isolateEmulatorThread",
    "numa": "numa",
    "realtime": "realtime",
}


def apply_specs(
    instancetype: Spec | None, preference: Spec | None, spec: Object, metadata: Object, path: str
) -> list[Cause]:
    """Give a machine, in place, what it has from an instance type and a preference.

    :param spec: of the machine, at `path`. Nothing is worth using in it if there are conflicts.
    :param metadata: of the machine.
    :return: the fields that it must not have beside its instance type.
    """
    if instancetype is not None:
        causes = [
            *_apply_simple("nodeSelector", instancetype, spec, path),
            *_apply_simple("schedulerName", instancetype, spec, path),
            *_apply_cpu(instancetype, preference, spec["domain"], f"{path}.domain"),
            *_apply_memory(instancetype["memory"], spec["domain"], f"{path}.domain"),
            *_apply_simple("ioThreadsPolicy", instancetype, spec["domain"], f"{path}.domain"),
            *_apply_io_threads(instancetype, spec["domain"], f"{path}.domain"),
            *_apply_simple("launchSecurity", instancetype, spec["domain"], f"{path}.domain"),
            *_apply_simple("gpus", instancetype, _devices(spec), f"{path}.domain.devices"),
            *_apply_simple("hostDevices", instancetype, _devices(spec), f"{path}.domain.devices"),
            *_apply_annotations(instancetype.get("annotations") or {}, metadata),
        ]
        if causes:
            return causes
    if preference is not None:
        apply_preference(preference, spec, metadata)
    return []


def listed(causes: list[Cause]) -> str:
    """Return the fields that conflict, as messages list them."""
    return ", ".join(cause.field for cause in causes)


def conflict_message(fields: str) -> str:
    """Return the message about fields that conflict with an instance type."""
    return f"VM field(s) {fields} conflicts with selected instance type"


def _conflict(field: str) -> Cause:
    return Cause(INVALID, conflict_message(field), field)


def _apply_simple(key: str, instancetype: Spec, holder: Object, path: str) -> Causes:
    """Set a field that the instance type has under the same name; an empty one says nothing."""
    wanted = instancetype.get(key)
    if wanted in (None, "", []):
        return
    if holder.get(key) not in (None, "", []):
        yield _conflict(f"{path}.{key}")
        return
    holder[key] = copy.deepcopy(wanted)


def _apply_cpu(instancetype: Spec, preference: Spec | None, domain: Object, path: str) -> Causes:
    wanted, cpu = instancetype["cpu"], domain.get("cpu") or {}
    if conflicts := list(_cpu_conflicts(wanted, cpu, domain, path)):
        yield from conflicts
        return
    if cause := spread_cause(instancetype, preference):
        yield cause
        return
    given = {own: copy.deepcopy(wanted[key]) for key, own in _CPU.items() if wanted.get(key) is not None}
    if wanted.get("maxSockets") is not None:
        given["maxSockets"] = wanted["maxSockets"]
    domain["cpu"] = {**cpu, **given, **topology(wanted["guest"], preference)}


def _cpu_conflicts(wanted: Spec, cpu: Spec, domain: Spec, path: str) -> Iterator[Cause]:
    for part in ("requests", "limits"):
        if "cpu" in _resources(domain, part):
            yield _conflict(f"{path}.resources.{part}.cpu")
    for key in ("sockets", "cores", "threads"):
        if cpu.get(key):
            yield _conflict(f"{path}.cpu.{key}")
    for key, own in _CPU.items():
        # An empty object is a choice, as `guestMappingPassthrough: {}` is
        if wanted.get(key) is not None and cpu.get(own) not in (None, False, ""):
            yield _conflict(f"{path}.cpu.{key}")


def _apply_memory(wanted: Spec, domain: Object, path: str) -> Causes:
    memory = domain.get("memory") or {}
    taken = [("memory.guest", memory.get("guest") is not None)]
    taken += [
        (f"memory.{key}", memory.get(key) is not None and wanted.get(key) is not None)
        for key in ("hugepages", "maxGuest")
    ]
    taken += [(f"resources.{part}.memory", "memory" in _resources(domain, part)) for part in ("requests", "limits")]
    for field, is_taken in taken:
        if is_taken:
            yield _conflict(f"{path}.{field}")
            return
    given = {key: copy.deepcopy(wanted[key]) for key in ("guest", "hugepages", "maxGuest") if wanted.get(key)}
    domain["memory"] = {**memory, **given}
    if percent := wanted.get("overcommitPercent"):
        resources = domain.get("resources") or {}
        requests = {**(resources.get("requests") or {}), "memory": _overcommitted(wanted["guest"], percent)}
        domain["resources"] = {**resources, "requests": requests}


def _overcommitted(guest: Any, percent: int) -> str:
    """Return the memory that is requested for a guest, with the rounding of KubeVirt's numbers of 32 bits."""
    share = _single(1 - _single(_single(percent) / 100))
    return quantity.format_like(int(_single(_single(quantity.to_int(guest)) * share)), guest)


def _single(value: float) -> float:
    single: float = struct.unpack("f", struct.pack("f", value))[0]
    return single


def _apply_io_threads(instancetype: Spec, domain: Object, path: str) -> Causes:
    count = (instancetype.get("ioThreads") or {}).get("supplementalPoolThreadCount")
    if count is None:
        return
    own = domain.get("ioThreads") or {}
    if own.get("supplementalPoolThreadCount") is not None:
        yield _conflict(f"{path}.ioThreads.supplementalPoolThreadCount")
        return
    domain["ioThreads"] = {**own, "supplementalPoolThreadCount": count}


def _apply_annotations(wanted: Spec, metadata: Object) -> Causes:
    own = metadata.get("annotations") or {}
    for key, value in sorted(wanted.items()):
        if own.get(key, value) != value:
            yield _conflict(f"annotations.{key}")
    if wanted:
        metadata["annotations"] = {**wanted, **own}


def _devices(spec: Object) -> Object:
    devices: Object = spec["domain"].setdefault("devices", {})
    return devices


def _resources(domain: Spec, part: str) -> Spec:
    resources: Spec = (domain.get("resources") or {}).get(part) or {}
    return resources
