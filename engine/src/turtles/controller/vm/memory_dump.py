# SPDX-License-Identifier: GPL-3.0-or-later
"""How a VirtualMachine's memory is dumped to a claim. Pure.

The claim becomes a volume of the template, which says that they belong together, and of the instance, while the node
agent writes to it; then it leaves the instance again. Rules: KubeVirt user guide, "Memory Dump".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from turtles.api.kinds.vmi import hotplug
from turtles.api.memory_dump import ASSOCIATING, COMPLETED, DISSOCIATING, FAILED, IN_PROGRESS, UNMOUNTING
from turtles.api.objects import Object, get, is_deleted
from turtles.api.phases import RUNNING, phase_of

_FAILED = "Memory dump failed"
_STOPPED = "the machine stopped before its memory was dumped"


@dataclass(frozen=True)
class Step:
    """What follows for a memory dump.

    :param request: status.memoryDumpRequest as it is to be; None if it isn't any more.
    :param template: volumes of the template, if they change. :param instance: those of the instance.
    :param annotation: of the claim.
    """

    request: Object | None
    template: list[Object] | None = None
    instance: list[Object] | None = None
    annotation: str = ""


def step(vm: Object, vmi: Object | None, now: str) -> Step | None:
    """Decide about a machine's memory dump; None if there is nothing to do.

    :param vmi: its instance.
    :param now: the current time (RFC 3339).
    """
    request = get(vm, "status", "memoryDumpRequest")
    if not request or request.get("phase") == COMPLETED:
        return None
    claim, phase = request["claimName"], request.get("phase")
    template = _volumes((vm["spec"].get("template") or {}).get("spec") or {})
    instance = None if vmi is None else _volumes(vmi["spec"])
    entry = _entry(vmi, claim)
    runs = vmi is not None and phase_of(vmi) == RUNNING and not is_deleted(vmi)
    if phase == ASSOCIATING:
        if not runs or instance is None:
            return Step({**request, "phase": FAILED, "message": _STOPPED, "endTimestamp": now})
        if entry and claim not in _names(instance):
            return None  # an earlier one is on its way out
        begun = {**request, "phase": IN_PROGRESS}
        return Step(begun, _with(template, claim), _with(instance, claim))
    if phase == IN_PROGRESS:
        if not runs:
            return Step({**request, "phase": FAILED, "message": _STOPPED, "endTimestamp": now})
        return _progress(request, entry)
    away = _without(instance or [], claim)
    if phase == DISSOCIATING:
        gone = _without(template, claim)
        done = not entry and away is None and gone is None
        return Step(None if done else request, gone, away)
    if phase == UNMOUNTING:
        done = not entry and away is None
        annotation = str(request.get("fileName") or "")
        return Step({**request, "phase": COMPLETED} if done else request, None, away, annotation)
    if phase == FAILED:
        return Step(request, None, away, _FAILED)
    return None


def _progress(request: Object, entry: Mapping[str, Any]) -> Step | None:
    dump = entry.get("memoryDumpVolume") or {}
    after = dict(request)
    for key in ("startTimestamp", "endTimestamp"):
        if dump.get(key):
            after[key] = dump[key]
    if entry.get("phase") == hotplug.DUMPED:
        after |= {"phase": UNMOUNTING, "fileName": dump.get("targetFileName") or ""}
    elif entry.get("phase") == hotplug.DUMP_FAILED:
        after |= {"phase": FAILED, "message": entry.get("message") or ""}
    return Step(after) if after != request else None


def _volumes(spec: Mapping[str, Any]) -> list[Object]:
    return list(spec.get("volumes") or ())


def _names(volumes: list[Object]) -> set[str]:
    return {volume["name"] for volume in volumes}


def _entry(vmi: Object | None, claim: str) -> Mapping[str, Any]:
    entries = ((vmi or {}).get("status") or {}).get("volumeStatus") or ()
    return next((entry for entry in entries if entry["name"] == claim), {})


def _with(volumes: list[Object], claim: str) -> list[Object] | None:
    """Return the volumes with the claim's; None if they have it."""
    if claim in _names(volumes):
        return None
    return [*volumes, {"name": claim, "memoryDump": {"claimName": claim, "hotpluggable": True}}]


def _without(volumes: list[Object], claim: str) -> list[Object] | None:
    """Return the volumes without the claim's; None if they don't have it."""
    found = [volume for volume in volumes if not (volume["name"] == claim and "memoryDump" in volume)]
    return None if len(found) == len(volumes) else found
