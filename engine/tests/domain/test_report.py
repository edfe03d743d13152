# SPDX-License-Identifier: GPL-3.0-or-later
import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from turtles.domain import network, report
from turtles.domain.end import End
from turtles.domain.guest_info import AgentInterface, GuestInfo
from turtles.domain.lifecycle import Paused, Shutoff, State
from turtles.domain.live_domain import Live
from turtles.domain.report import Observation

POD = network.PodInterface("eth0", "0a:58:0a:f4:00:05", (("10.244.0.5", 16),), "10.244.0.1", 1400)
NOW, EARLIER = "2026-01-01T00:00:00Z", "2025-12-31T23:59:00Z"
VMI: dict[str, Any] = {
    "metadata": {"name": "testvm", "namespace": "default", "uid": "u1"},
    "spec": {
        "domain": {
            "resources": {"requests": {"memory": "32Mi"}},
            "devices": {
                "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
                "interfaces": [{"name": "default", "masquerade": {}}],
            },
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [{"name": "root", "emptyDisk": {"capacity": "1Mi"}}],
    },
    "status": {
        "phase": "Scheduled",
        "nodeName": "node-1",
        "conditions": [
            {"type": "Ready", "status": "False"},
            {"type": "Synchronized", "status": "False", "reason": "Synchronizing with the Domain failed."},
        ],
    },
}
PLANS = network.plans(VMI, {"eth0": POD})
MAC = PLANS[0].guest_mac
LIVE = Live("pc-q35-7.2", False, False, 32 << 20, {"default": MAC})
WITH_AGENT = Live("pc-q35-7.2", True, True, 32 << 20, {"default": MAC})
INFO = GuestInfo((), {"name": "Alpine"}, {MAC: AgentInterface("eth7")})


def seen(state: int = State.RUNNING, reason: int = 1, live: Live | None = LIVE) -> Observation:
    return Observation(state, reason, live, PLANS)


def vmi(**status: Any) -> dict[str, Any]:
    new = copy.deepcopy(VMI)
    new["status"].update(status)
    return new


def condition(status: Mapping[str, Any], type_: str) -> dict[str, Any]:
    return next((entry for entry in status["conditions"] if entry["type"] == type_), {})


def test_a_guest_that_has_started() -> None:
    before = vmi()
    status = report.observed(before, seen(), None, NOW)
    assert before == VMI
    assert status == {
        "phase": "Running",
        "nodeName": "node-1",
        "phaseTransitionTimestamps": [{"phase": "Running", "phaseTransitionTimestamp": NOW}],
        "machine": {"type": "pc-q35-7.2"},
        "memory": {"guestAtBoot": "32Mi", "guestCurrent": "32Mi", "guestRequested": "32Mi"},
        "currentCPUTopology": {"cores": 1, "sockets": 1, "threads": 1},
        "interfaces": [
            {
                "name": "default",
                "mac": MAC,
                "podInterfaceName": "eth0",
                "ipAddress": "10.244.0.5",
                "ipAddresses": ["10.244.0.5"],
                "infoSource": "domain",
                "queueCount": 1,
                "linkState": "up",
            }
        ],
        "volumeStatus": [{"name": "root", "target": "vda", "size": 1048576}],
        "guestOSInfo": {},
        "migrationMethod": "BlockMigration",
        "migrationTransport": "Unix",
        "conditions": [
            {"type": "Ready", "status": "False"},
            {"type": "LiveMigratable", "status": "True", "lastProbeTime": None, "lastTransitionTime": NOW},
        ],
    }
    assert [event.reason for event in report.events(before["status"], status)] == ["Started"]


def test_a_second_look_that_sees_the_same_changes_nothing() -> None:
    first = report.observed(vmi(), seen(), None, EARLIER)
    second = report.observed({**VMI, "status": first}, seen(), None, NOW)
    assert report.changes(first, second) == {}
    assert list(report.events(first, second)) == []


@pytest.mark.parametrize(
    ("state", "reason", "live", "phase"),
    [
        (State.RUNNING, 1, LIVE, "Running"),
        (State.PAUSED, Paused.STARTING_UP, LIVE, "Running"),
        (State.NOSTATE, 0, None, "Scheduled"),
        (State.SHUTOFF, Shutoff.MIGRATED, None, "Scheduled"),
    ],
)
def test_the_phase(state: int, reason: int, live: Live | None, phase: str) -> None:
    status = report.observed(vmi(), seen(state, reason, live), None, NOW)
    assert status["phase"] == phase
    assert ("machine" in status) == (live is not None)


@pytest.mark.parametrize(
    ("before", "reason", "expected", "events"),
    [
        (None, Paused.IOERROR, "PausedIOError", ["PausedIOError"]),
        ("PausedIOError", Paused.IOERROR, "PausedIOError", []),
        ("PausedByUser", Paused.IOERROR, "PausedIOError", []),
        (None, Paused.USER, "PausedByUser", []),
        (None, Paused.MIGRATION, None, []),
    ],
)
def test_pauses(before: str | None, reason: int, expected: str | None, events: list[str]) -> None:
    entries = [{"type": "Paused", "status": "True", "reason": before}] if before else []
    old = vmi(phase="Running", conditions=entries)
    status = report.observed(old, seen(State.PAUSED, reason), None, NOW)
    assert condition(status, "Paused").get("reason") == expected
    assert [event.reason for event in report.events(old["status"], status)] == events


OLD_ANSWER = {
    "guestOSInfo": {"name": "Debian"},
    "interfaces": [{"name": "default", "mac": MAC, "interfaceName": "eth3"}],
}


@pytest.mark.parametrize(
    ("live", "info", "name", "os_info", "connected", "unsupported"),
    [
        # Until the agent answers, what it said before holds
        (WITH_AGENT, None, "eth3", {"name": "Debian"}, True, True),
        (WITH_AGENT, INFO, "eth7", {"name": "Alpine"}, True, False),
        # It answers, but says nothing about the system
        (WITH_AGENT, GuestInfo(), None, {"name": "Debian"}, True, False),
        (WITH_AGENT, GuestInfo(("guest-ping",)), None, {"name": "Debian"}, True, True),
        (LIVE, None, None, {}, False, False),
    ],
)
def test_what_the_agent_said(
    live: Live,
    info: GuestInfo | None,
    name: str | None,
    os_info: dict[str, str] | None,
    connected: bool,
    unsupported: bool,
) -> None:
    entries = [{"type": "AgentVersionNotSupported", "status": "True", "reason": "RequiredCommandsNotSupported"}]
    status = report.observed(vmi(conditions=entries, **OLD_ANSWER), seen(live=live), info, NOW)
    assert status["interfaces"][0].get("interfaceName") == name
    assert status.get("guestOSInfo") == os_info
    assert bool(condition(status, "AgentConnected")) == connected
    assert bool(condition(status, "AgentVersionNotSupported")) == unsupported
    assert bool(condition(status, "SoftwareEmulation")) == live.emulated
    assert not condition(status, "Synchronized")


def test_an_end() -> None:
    types = ("LiveMigratable", "Paused", "AgentConnected", "AgentVersionNotSupported", "Synchronized", "Ready")
    before = vmi(phase="Running", conditions=[{"type": type_, "status": "True"} for type_ in types])
    status = report.ended(before, End("Stopped", "The guest shut down.", "Succeeded"), NOW)
    assert status["phase"] == "Succeeded"
    assert status["phaseTransitionTimestamps"] == [{"phase": "Succeeded", "phaseTransitionTimestamp": NOW}]
    assert [(entry["type"], entry["status"]) for entry in status["conditions"]] == [
        ("LiveMigratable", "True"),
        ("Ready", "False"),
    ]
    assert condition(status, "Ready")["reason"] == "GuestNotRunning"


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (End("StartTimeout", "no tap"), ("False", "StartTimeout", "no tap")),
        (End("Stopped", "The guest was powered off immediately, as requested.", requested=True), None),
        (End("Stopped", "The guest shut down.", "Succeeded"), None),
    ],
)
def test_why_a_guest_failed_is_in_a_condition_too(end: End, said: tuple[str, str, str] | None) -> None:
    """Events are gone in an hour, and a VM reads no events."""
    before = vmi(conditions=[{"type": "Synchronized", "status": "False", "reason": "older"}])
    found = condition(report.ended(before, end, NOW), "Synchronized")
    assert ((found and (found["status"], found["reason"], found["message"])) or None) == said


@pytest.mark.parametrize(
    ("reason", "written"),
    [
        (None, True),
        ("NodeAgentNotResponding", True),
        ("LauncherUnresponsive", True),
        # The first message stays
        ("Synchronizing with the Domain failed.", False),
    ],
)
def test_a_failed_attempt(reason: str | None, written: bool) -> None:
    entries = [{"type": "Synchronized", "status": "False", "reason": reason}] if reason else []
    before = vmi(conditions=entries)
    status = report.attempt_failed(before, "no tap", NOW)
    assert bool(report.changes(before["status"], status)) == written
    assert condition(status, "Synchronized").get("message") == ("no tap" if written else None)
    assert condition(status, "Synchronized")["reason"] == "Synchronizing with the Domain failed."


@pytest.mark.parametrize(
    ("reason", "written"),
    [(None, True), ("Synchronizing with the Domain failed.", True), ("LauncherUnresponsive", False)],
)
def test_silence(reason: str | None, written: bool) -> None:
    entries = [{"type": "Ready", "status": "True"}]
    if reason:
        entries.append({"type": "Synchronized", "status": "False", "reason": reason})
    before = vmi(phase="Running", conditions=entries)
    status = report.unresponsive(before, "no answer", NOW)
    assert list(report.changes(before["status"], status)) == (["conditions"] if written else [])
    assert condition(status, "Ready")["status"] == ("False" if written else "True")
    assert condition(status, "Synchronized")["reason"] == "LauncherUnresponsive"


def test_changes_name_what_is_gone() -> None:
    assert report.changes({"a": 1, "b": 2, "c": [3]}, {"a": 1, "c": [4], "d": 5}) == {"b": None, "c": [4], "d": 5}


def test_no_interface_no_plans() -> None:
    assert network.plans({**VMI, "spec": {"domain": {}}}, {"eth0": POD}) == ()
    assert network.plans(VMI, {}) == ()
    assert [plan.name for plan in PLANS] == ["default"]


@pytest.mark.parametrize(
    ("live", "info", "before", "after"),
    [
        (WITH_AGENT, GuestInfo(frozen=True), None, "frozen"),
        (WITH_AGENT, GuestInfo(), "frozen", None),
        # The agent of ours that knew was restarted, and hasn't asked yet
        (WITH_AGENT, None, "frozen", "frozen"),
        (LIVE, None, "frozen", None),
    ],
)
def test_frozen_file_systems(live: Live, info: GuestInfo | None, before: str | None, after: str | None) -> None:
    status = report.observed(vmi(**({"fsFreezeStatus": before} if before else {})), seen(live=live), info, NOW)
    assert status.get("fsFreezeStatus") == after


def test_a_frozen_guest_says_nothing_else_and_what_it_said_holds() -> None:
    before = report.observed(vmi(), seen(live=WITH_AGENT), INFO, EARLIER)
    after = report.observed({**vmi(), "status": before}, seen(live=WITH_AGENT), GuestInfo(frozen=True), NOW)
    assert report.changes(before, after) == {"fsFreezeStatus": "frozen"}


def test_an_interface_that_cannot_be_plugged_in() -> None:
    failing = replace(seen(), interface_failures={"blue": "interface 'blue' can't be plugged in: no port"})
    old = vmi(phase="Running", conditions=[])
    status = report.observed(old, failing, None, NOW)
    assert condition(status, "Synchronized")["message"] == "interface 'blue' can't be plugged in: no port"
    assert [event.reason for event in report.events(old["status"], status)] == ["SyncFailed"]
    assert list(report.events(status, report.observed({**old, "status": status}, failing, None, NOW))) == []
    assert not condition(report.observed({**old, "status": status}, seen(), None, NOW), "Synchronized")
