# SPDX-License-Identifier: GPL-3.0-or-later
import pytest

from turtles.api.phases import FINAL_PHASES
from turtles.domain import lifecycle
from turtles.domain.lifecycle import Paused, Shutoff, State

libvirt = pytest.importorskip("libvirt")


def test_the_numbers_are_libvirts() -> None:
    for enum, prefix in (
        (State, "VIR_DOMAIN_"),
        (Shutoff, "VIR_DOMAIN_SHUTOFF_"),
        (Paused, "VIR_DOMAIN_PAUSED_"),
    ):
        for member in enum:
            assert getattr(libvirt, prefix + member.name) == member, member


@pytest.mark.parametrize("detail", ["SHUTDOWN", "DESTROYED", "CRASHED", "MIGRATED", "SAVED", "FAILED", "FROM_SNAPSHOT"])
def test_event_details_are_reasons(detail: str) -> None:
    event = getattr(libvirt, f"VIR_DOMAIN_EVENT_STOPPED_{detail}")
    assert lifecycle.stopped_event_reason(event) == getattr(Shutoff, detail)


@pytest.mark.parametrize(
    ("state", "reason", "acpi", "phase"),
    [
        (State.RUNNING, 1, True, "Running"),
        (State.BLOCKED, 0, True, "Running"),
        (State.PAUSED, Paused.USER, True, "Running"),
        (State.PAUSED, Paused.POSTCOPY_FAILED, True, "Failed"),
        (State.PMSUSPENDED, 0, True, "Running"),
        (State.SHUTDOWN, 1, True, "Running"),
        (State.SHUTOFF, Shutoff.SHUTDOWN, True, "Succeeded"),
        (State.SHUTOFF, Shutoff.SAVED, True, "Succeeded"),
        (State.SHUTOFF, Shutoff.FROM_SNAPSHOT, True, "Succeeded"),
        (State.SHUTOFF, Shutoff.DESTROYED, True, "Failed"),
        (State.SHUTOFF, Shutoff.DESTROYED, False, "Succeeded"),
        (State.SHUTOFF, Shutoff.CRASHED, True, "Failed"),
        (State.SHUTOFF, Shutoff.FAILED, True, "Failed"),
        (State.SHUTOFF, Shutoff.DAEMON, True, "Failed"),
        (State.SHUTOFF, Shutoff.UNKNOWN, True, "Failed"),
        (State.SHUTOFF, Shutoff.MIGRATED, True, None),
        (State.CRASHED, 0, True, "Failed"),
        (State.NOSTATE, 0, True, None),
    ],
)
def test_phases(state: int, reason: int, acpi: bool, phase: str | None) -> None:
    assert lifecycle.phase_of(state, reason, acpi=acpi) == phase
    if phase in FINAL_PHASES:
        assert lifecycle.end_text(state, reason)


@pytest.mark.parametrize(
    ("grace", "text"),
    [
        (None, "launcher Pod was terminated"),
        (0, "as requested"),
        (1, "as requested"),
        (30, "grace period of 30 s"),
    ],
)
def test_who_switched_it_off_is_told(grace: int | None, text: str) -> None:
    assert text in lifecycle.end_text(State.SHUTOFF, Shutoff.DESTROYED, grace)


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        (State.RUNNING, 1, None),
        (State.PAUSED, Paused.USER, "PausedByUser"),
        (State.PAUSED, Paused.IOERROR, "PausedIOError"),
        (State.PAUSED, Paused.WATCHDOG, "PausedByWatchdog"),
        (State.PAUSED, Paused.MIGRATION, None),
        (State.PAUSED, Paused.STARTING_UP, None),
    ],
)
def test_pauses(state: int, reason: int, expected: str | None) -> None:
    pause = lifecycle.pause_of(state, reason)
    assert (pause.reason if pause else None) == expected


@pytest.mark.parametrize(
    ("state", "reason", "frozen"),
    [
        (State.PAUSED, Paused.USER, True),
        (State.PAUSED, Paused.IOERROR, True),
        (State.PAUSED, Paused.WATCHDOG, True),
        (State.PAUSED, Paused.CRASHED, True),
        (State.PAUSED, Paused.FROM_SNAPSHOT, True),
        (State.PAUSED, Paused.UNKNOWN, True),
        # In a moment it goes on, or has shut down
        (State.PAUSED, Paused.STARTING_UP, False),
        (State.PAUSED, Paused.MIGRATION, False),
        (State.PAUSED, 8, False),
        (State.RUNNING, 1, False),
        (State.SHUTDOWN, 1, False),
        (State.PMSUSPENDED, 0, False),
    ],
)
def test_which_guests_cannot_react(state: int, reason: int, frozen: bool) -> None:
    assert lifecycle.is_frozen(state, reason) is frozen
    assert lifecycle.is_asleep(state) is (state == State.PMSUSPENDED)


def test_what_may_be_started_again() -> None:
    assert lifecycle.never_ran(State.SHUTOFF, Shutoff.UNKNOWN)
    assert lifecycle.never_ran(State.SHUTOFF, Shutoff.FAILED)
    assert not lifecycle.never_ran(State.SHUTOFF, Shutoff.SHUTDOWN)
    assert not lifecycle.never_ran(State.RUNNING, 0)
