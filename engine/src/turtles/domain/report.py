# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of a VMI, and the events that go with it, from what the node agent has seen. Pure.

Its parts are in ``*_status.py`` beside it. No function changes the VMI; all return a new status.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turtles.api import conditions
from turtles.api.conditions import Condition, conditions_in, get_condition, remove_condition, set_condition
from turtles.api.objects import Object
from turtles.api.phases import FAILED, RUNNING, set_phase
from turtles.domain import compute_status, definition, growth, interface_status, lifecycle, migratability
from turtles.domain.credentials import Synchronization
from turtles.domain.end import End
from turtles.domain.guest_info import AgentInterface, GuestInfo
from turtles.domain.live_domain import Live
from turtles.domain.network import InterfacePlan
from turtles.domain.volume_status import Dump, Plugged, volume_status

#: Conditions that say something about a guest that runs, or about attempts to have it run.
_OF_RUNNING = (
    *("Paused", "AgentConnected", "AgentVersionNotSupported", "AccessCredentialsSynchronized", "Synchronized"),
    *(growth.VCPU_CHANGE, growth.MEMORY_CHANGE),
)
#: Why credentials aren't synchronized.
_NOT_TAKEN = "AccessCredentialsSyncFailed"


@dataclass(frozen=True)
class Observation:
    """A domain as it was found; ``live`` is None unless it is alive.

    ``plans`` are those of its interfaces. ``refused`` says why a change of the running guest
    (:mod:`turtles.domain.growth`) couldn't be made, by its condition; ``checksums`` what is known of container disks';
    ``volumes`` how far those are that come or go while the guest runs; ``dumps`` those of its memory;
    ``interface_failures`` why interfaces couldn't be plugged in or unplugged; ``migratable_plugins`` with which network
    binding plugins guests on the Pod network can be migrated.
    """

    state: int
    reason: int
    live: Live | None
    plans: tuple[InterfacePlan, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, int] = field(default_factory=dict)
    volumes: Mapping[str, Plugged] = field(default_factory=dict)
    dumps: Mapping[str, Dump] = field(default_factory=dict)
    interface_failures: Mapping[str, str] = field(default_factory=dict)
    migratable_plugins: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Event:
    """An event of a VMI."""

    type: str
    reason: str
    message: str


#: Reasons of a volume's phase that events tell of, and the events' types.
_VOLUME_EVENTS = {
    "VolumeMountedToPod": "Normal",
    "VolumeReady": "Normal",
    "VolumeUnMountedFromPod": "Normal",
    "MemoryDumpCompleted": "Normal",
    "MemoryDumpError": "Warning",
    "FailedAttachVolume": "Warning",
    "FailedDetachVolume": "Warning",
}
SHUTTING_DOWN = Event("Normal", "ShuttingDown", "Signaled Graceful Shutdown")
_STARTED = Event("Normal", "Started", "VirtualMachineInstance started.")
_IO_ERROR = Event(
    "Warning",
    "PausedIOError",
    "The guest is paused because a disk could not be written or read; free some space on its storage, then unpause it.",
)


def observed(
    vmi: Mapping[str, Any],
    seen: Observation,
    info: GuestInfo | None,
    now: str,
    credentials: Synchronization | None = None,
) -> Object:
    """Return the status of a VMI whose domain hasn't ended.

    :param info: what the guest agent last answered this agent.
    :param now: the current time (RFC 3339).
    :param credentials: whether the guest agent took the guest's credentials; None if it hasn't been told any.
    """
    status: Object = copy.deepcopy(vmi["status"])
    spec, live = vmi["spec"], seen.live
    if lifecycle.phase_of(seen.state, seen.reason, acpi=definition.acpi_enabled(spec)) == RUNNING:
        set_phase(status, RUNNING, now)
    if live is not None:
        status["machine"] = {"type": live.machine}
        status["memory"] = compute_status.memory(spec, live.memory, status.get("memory"))
        status["currentCPUTopology"] = compute_status.cpu_topology(spec, live.vcpus)
    connected = live is not None and live.agent_connected
    if not connected or (info is not None and not info.frozen):
        status.pop("fsFreezeStatus", None)
    elif info is not None:
        status["fsFreezeStatus"] = "frozen"
        info = None  # it says nothing else then
    if info is not None:
        seen_inside: Mapping[str, AgentInterface] = info.interfaces
    else:  # until the agent has answered an agent of ours that was restarted, what it said before holds
        seen_inside = interface_status.known_interfaces(status.get("interfaces")) if connected else {}
    status["interfaces"] = interface_status.interfaces(seen.plans, seen_inside, live, status.get("interfaces"))
    disks = None if live is None else live.disks
    status["volumeStatus"] = volume_status(
        spec, status.get("volumeStatus"), seen.checksums, disks, seen.volumes, seen.dumps
    )
    if info is not None and info.os_info:
        status["guestOSInfo"] = info.os_info
    elif not connected:
        status["guestOSInfo"] = {}
    migration = migratability.of(vmi, seen.plans, seen.migratable_plugins)
    status["migrationMethod"] = migration.method
    status["migrationTransport"] = "Unix"
    status["conditions"] = _conditions(status.get("conditions") or [], seen, info, migration, now)
    if live is not None:
        _put_changes(status["conditions"], growth.changes(vmi, live), seen.refused, now)
    if credentials is not None:
        outcome = ("True", "", "") if credentials.succeeded else ("False", _NOT_TAKEN, credentials.message)
        set_condition(status["conditions"], "AccessCredentialsSynchronized", *outcome, now)
    return status


def ended(vmi: Mapping[str, Any], end: End, now: str) -> Object:
    """Return the status of a VMI that ends. Events are gone after an hour: why it failed is in a condition, too."""
    status: Object = copy.deepcopy(vmi["status"])
    set_phase(status, end.phase, now)
    entries = conditions_in(status)
    for type_ in _OF_RUNNING:
        remove_condition(entries, type_)
    if end.phase == FAILED and not end.requested:
        set_condition(entries, "Synchronized", "False", end.reason, end.message, now)
    set_condition(entries, "Ready", "False", *conditions.GUEST_NOT_RUNNING, now)
    return status


def attempt_failed(vmi: Mapping[str, Any], message: str, now: str) -> Object:
    """Return the status of a VMI for which something failed that is tried again.

    The first of several messages stays: a write for every attempt would call for the next one at once.
    """
    status: Object = copy.deepcopy(vmi["status"])
    entries = conditions_in(status)
    if _reason(entries, "Synchronized") != conditions.AGENT_FAILED:
        set_condition(entries, "Synchronized", "False", conditions.AGENT_FAILED, message, now)
    return status


def unresponsive(vmi: Mapping[str, Any], message: str, now: str) -> Object:
    """Return the status of a VMI of which nobody knows whether its guest runs. The first of several messages stays."""
    status: Object = copy.deepcopy(vmi["status"])
    entries = conditions_in(status)
    if _reason(entries, "Synchronized") != conditions.UNRESPONSIVE:
        for type_ in ("Synchronized", "Ready"):
            set_condition(entries, type_, "False", conditions.UNRESPONSIVE, message, now)
    return status


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Object:
    """Return what a merge patch has to say to make one status of the other."""
    return {name: new.get(name) for name in {*old, *new} if new.get(name) != old.get(name)}


def events(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Event]:
    """Return the events that go with a new status from :func:`observed`."""
    if new["phase"] != old["phase"]:
        yield _STARTED
    if get_condition(old.get("conditions"), "Paused") is None and _reason(new["conditions"], "Paused") == (
        _IO_ERROR.reason
    ):
        yield _IO_ERROR
    trouble = (get_condition(new["conditions"], "Synchronized") or {}).get("message")
    if trouble and trouble != (get_condition(old.get("conditions"), "Synchronized") or {}).get("message"):
        yield Event("Warning", "SyncFailed", f"{trouble} (trying again)")
    before = {entry["name"]: entry for entry in old.get("volumeStatus") or ()}
    for entry in new.get("volumeStatus") or ():
        reason = entry.get("reason")
        if reason in _VOLUME_EVENTS and reason != before.get(entry["name"], {}).get("reason"):
            yield Event(_VOLUME_EVENTS[reason], reason, str(entry.get("message") or ""))


def _conditions(
    entries: list[Condition],
    seen: Observation,
    info: GuestInfo | None,
    migration: migratability.Migratability,
    now: str,
) -> list[Condition]:
    def put(type_: str, wanted: bool, status: str = "True", reason: str = "", message: str = "") -> None:
        if wanted:
            set_condition(entries, type_, status, reason, message, now)
        else:
            remove_condition(entries, type_)

    put("LiveMigratable", True, "False" if migration.reason else "True", migration.reason, migration.message)
    pause = lifecycle.pause_of(seen.state, seen.reason)
    put("Paused", pause is not None, "True", pause.reason if pause else "", pause.message if pause else "")
    live = seen.live
    connected = live is not None and live.agent_connected
    put("AgentConnected", connected)
    missing = info.missing if info else ()
    if info is not None or not connected:
        put(
            "AgentVersionNotSupported",
            connected and bool(missing),
            "True",
            "RequiredCommandsNotSupported",
            f"The guest agent lacks or refuses {', '.join(missing)}; update it, or allow them in its settings.",
        )
    put(
        "SoftwareEmulation",
        live is not None and live.emulated,
        "True",
        "KVMNotAvailable",
        "The guest runs under software emulation because KVM is not available to its launcher.",
    )
    failures = "; ".join(message for _, message in sorted(seen.interface_failures.items()))
    put("Synchronized", bool(failures), "False", conditions.AGENT_FAILED, failures)
    return entries


def _put_changes(
    entries: list[Condition], changes: Sequence[growth.Change], refused: Mapping[str, str], now: str
) -> None:
    going_on = {change.condition for change in changes}
    for type_ in (growth.VCPU_CHANGE, growth.MEMORY_CHANGE):
        if type_ in refused:
            set_condition(entries, type_, "False", conditions.CHANGE_FAILED, refused[type_], now)
        elif type_ in going_on:
            set_condition(entries, type_, "True", "", "", now)
        else:
            remove_condition(entries, type_)


def _reason(entries: list[Condition], type_: str) -> str | None:
    return (get_condition(entries, type_) or {}).get("reason")
