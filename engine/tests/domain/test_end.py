# SPDX-License-Identifier: GPL-3.0-or-later
from typing import Any

import pytest

from turtles.domain import end
from turtles.domain.end import End
from turtles.domain.lifecycle import Paused, Shutoff, State

NO_ACPI = {"domain": {"features": {"acpi": {"enabled": False}}}}
AT_ONCE = {"domain": {}, "terminationGracePeriodSeconds": 0}
PATIENT = {"domain": {}, "terminationGracePeriodSeconds": 60}
DEFAULT = {"domain": {}}


@pytest.mark.parametrize(
    ("spec", "domain", "shutdown", "expected"),
    [
        (DEFAULT, (State.SHUTOFF, Shutoff.SHUTDOWN), False, ("Succeeded", "Normal", "The guest shut down.")),
        (DEFAULT, (State.SHUTOFF, Shutoff.SHUTDOWN), True, ("Succeeded", "Normal", "The guest shut down.")),
        (DEFAULT, (State.SHUTOFF, Shutoff.DESTROYED), False, ("Failed", "Warning", "by someone on the node")),
        (DEFAULT, (State.SHUTOFF, Shutoff.DESTROYED), True, ("Failed", "Warning", "grace period of 30 s")),
        (PATIENT, (State.SHUTOFF, Shutoff.DESTROYED), True, ("Failed", "Warning", "grace period of 60 s")),
        (AT_ONCE, (State.SHUTOFF, Shutoff.DESTROYED), True, ("Failed", "Normal", "as requested")),
        (AT_ONCE, (State.SHUTOFF, Shutoff.DESTROYED), False, ("Failed", "Warning", "by someone on the node")),
        (NO_ACPI, (State.SHUTOFF, Shutoff.DESTROYED), True, ("Succeeded", "Normal", "grace period of 30 s")),
        (DEFAULT, (State.SHUTOFF, Shutoff.CRASHED), False, ("Failed", "Warning", "crashed")),
        (DEFAULT, (State.CRASHED, 0), False, ("Failed", "Warning", "crashed")),
        (DEFAULT, (State.SHUTOFF, Shutoff.FAILED), False, ("Failed", "Warning", "could not be started")),
        (DEFAULT, (State.SHUTOFF, Shutoff.UNKNOWN), False, ("Failed", "Warning", "unknown reason")),
        (DEFAULT, (State.PAUSED, Paused.POSTCOPY_FAILED), False, ("Failed", "Warning", "unknown reason")),
        # An event can say so, of which a phase doesn't follow
        (DEFAULT, (State.SHUTOFF, Shutoff.MIGRATED), False, ("Failed", "Warning", "migrated away")),
    ],
)
def test_a_domain_that_ended(
    spec: dict[str, Any], domain: tuple[int, int], shutdown: bool, expected: tuple[str, str, str]
) -> None:
    how = end.stopped(spec, *domain, shutdown_requested=shutdown)
    phase, event_type, text = expected
    assert (how.reason, how.phase, how.event_type) == ("Stopped", phase, event_type)
    assert text in how.message


@pytest.mark.parametrize(
    ("spec", "reason", "text"),
    [
        (DEFAULT, Shutoff.DESTROYED, "it was paused"),
        (AT_ONCE, Shutoff.DESTROYED, "as requested"),
        (DEFAULT, Shutoff.SHUTDOWN, "The guest shut down."),
    ],
)
def test_a_paused_guest_that_was_to_shut_down(spec: dict[str, Any], reason: int, text: str) -> None:
    how = end.stopped(spec, State.SHUTOFF, reason, shutdown_requested=True, frozen=True)
    assert text in how.message


@pytest.mark.parametrize(
    ("domain", "reason"),
    [
        ((State.SHUTOFF, Shutoff.CRASHED), "OOMKilled"),
        ((State.CRASHED, 0), "OOMKilled"),
        # It survived that
        ((State.SHUTOFF, Shutoff.SHUTDOWN), "Stopped"),
        ((State.SHUTOFF, Shutoff.DESTROYED), "Stopped"),
    ],
)
def test_the_memory_limit_explains_a_crash(domain: tuple[int, int], reason: str) -> None:
    how = end.stopped(DEFAULT, *domain, shutdown_requested=False, out_of_memory=True)
    assert how.reason == reason
    if reason == "OOMKilled":
        assert (how.phase, how.event_type) == ("Failed", "Warning")
        assert "spec.domain.resources.limits.memory" in how.message


@pytest.mark.parametrize(
    ("how", "reason", "text"),
    [
        (end.lost("libvirtd is silent"), "LauncherUnresponsive", "(libvirtd is silent)"),
        (end.not_destroyed(30.0), "LauncherUnresponsive", "within 30 s"),
        (end.start_timed_out(300.0, "no tap"), "StartTimeout", "within 300 s. Last error: no tap"),
        (end.start_refused(ValueError("bad")), "StartFailed", "libvirt refuses the machine: bad"),
        (end.domain_not_supported(ValueError("bad")), "DomainNotSupported", "bad"),
        (end.network_not_supported(ValueError("bad")), "NetworkNotSupported", "bad"),
        (end.no_launcher_pod("node-1"), "NoLauncherPod", "no launcher Pod on node node-1"),
    ],
)
def test_failures(how: End, reason: str, text: str) -> None:
    assert (how.reason, how.phase, how.event_type) == (reason, "Failed", "Warning")
    assert text in how.message


def test_a_deletion_is_nothing_to_be_warned_of() -> None:
    assert end.DELETED_BEFORE_START.phase == "Failed"
    assert end.DELETED_BEFORE_START.event_type == "Normal"
