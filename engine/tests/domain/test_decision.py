# SPDX-License-Identifier: GPL-3.0-or-later
import itertools
from typing import Any

import pytest

from turtles.domain import decision
from turtles.domain.decision import ShutdownStep, Step, Wait
from turtles.domain.lifecycle import Paused, Shutoff, State

ABSENT = None
NEW = (State.SHUTOFF, Shutoff.UNKNOWN)
NOT_STARTED = (State.SHUTOFF, Shutoff.FAILED)
RUNNING = (State.RUNNING, 1)
PAUSED = (State.PAUSED, Paused.USER)
ENDED = (State.SHUTOFF, Shutoff.SHUTDOWN)
CRASHED = (State.CRASHED, 0)
STATELESS = (State.NOSTATE, 0)


@pytest.mark.parametrize(
    ("domain", "has_run", "deleted", "step"),
    [
        # Nothing was started yet
        (ABSENT, False, False, Step.START),
        (NEW, False, False, Step.START),
        (NOT_STARTED, False, False, Step.START),
        (ABSENT, False, True, Step.CANCEL),
        (NEW, False, True, Step.CANCEL),
        (NOT_STARTED, False, True, Step.CANCEL),
        # The guest runs. The agent may have been killed before it noted that it started it
        (RUNNING, False, False, Step.WATCH),
        (RUNNING, True, False, Step.WATCH),
        (PAUSED, True, False, Step.WATCH),
        (RUNNING, False, True, Step.SHUT_DOWN),
        (RUNNING, True, True, Step.SHUT_DOWN),
        (PAUSED, True, True, Step.SHUT_DOWN),
        # It has ended: it is never started twice
        (ABSENT, True, False, Step.LOST),
        (ABSENT, True, True, Step.LOST),
        (NEW, True, False, Step.WATCH),
        (NOT_STARTED, True, False, Step.WATCH),
        (NOT_STARTED, True, True, Step.WATCH),
        (ENDED, False, False, Step.WATCH),
        (ENDED, True, False, Step.WATCH),
        (ENDED, True, True, Step.WATCH),
        (CRASHED, True, True, Step.WATCH),
        (STATELESS, False, False, Step.WATCH),
    ],
)
def test_the_next_step(domain: tuple[int, int] | None, has_run: bool, deleted: bool, step: Step) -> None:
    state, reason = domain or STATELESS
    assert decision.next_step(state, reason, defined=domain is not None, has_run=has_run, deleted=deleted) is step


LONG, PAST_START = decision.UNRESPONSIVE_AFTER + 0.1, decision.START_LIMIT + 0.1


@pytest.mark.parametrize(
    ("silent", "has_run", "deleted", "gone", "step"),
    [
        (0.0, False, False, False, Wait(decision.LOOK_AGAIN)),
        (LONG, False, False, False, Wait(decision.LOOK_AGAIN)),
        # Its Pod may not be there yet
        (LONG, False, False, True, Wait(decision.LOOK_AGAIN)),
        (PAST_START, False, False, False, Step.LOST),
        (0.0, False, True, False, Step.CANCEL),
        (PAST_START, False, True, True, Step.CANCEL),
        (0.0, True, False, False, Wait(decision.LOOK_AGAIN)),
        (decision.NOT_READY_AFTER, True, False, False, Wait(decision.LOOK_AGAIN, report=True)),
        (decision.NOT_READY_AFTER, True, True, False, Wait(decision.LOOK_AGAIN, report=True)),
        (LONG, True, False, False, Step.LOST),
        (LONG, True, True, False, Step.LOST),
        (0.0, True, False, True, Step.LOST),
        (0.0, True, True, True, Step.LOST),
    ],
)
def test_silence(silent: float, has_run: bool, deleted: bool, gone: bool, step: Step | Wait) -> None:
    assert decision.on_silence(silent, has_run=has_run, deleted=deleted, gone=gone, busy=False) == step


@pytest.mark.parametrize(("silent", "seconds"), [(0.0, decision.SOON), (1.0, 0.25), (60.0, decision.LOOK_AGAIN)])
def test_who_is_about_to_answer_is_asked_soon(silent: float, seconds: float) -> None:
    assert decision.on_silence(silent, has_run=False, deleted=False, gone=False, busy=True) == Wait(seconds)


@pytest.mark.parametrize(
    ("left", "acpi", "since_pressed", "step", "again"),
    [
        (30.0, True, None, ShutdownStep.PRESS_POWER_BUTTON, decision.SHUTDOWN_REPEAT),
        (29.0, True, 1.0, ShutdownStep.WAIT, decision.SHUTDOWN_REPEAT),
        (25.0, True, decision.SHUTDOWN_REPEAT - 0.05, ShutdownStep.PRESS_POWER_BUTTON, decision.SHUTDOWN_REPEAT),
        (2.0, True, 1.0, ShutdownStep.WAIT, 2.0),
        (0.0, True, 1.0, ShutdownStep.DESTROY, decision.LOOK_AGAIN),
        (30.0, False, None, ShutdownStep.DESTROY, decision.LOOK_AGAIN),
        (-decision.DESTROY_LIMIT, True, 1.0, ShutdownStep.DESTROY, decision.LOOK_AGAIN),
        (-decision.DESTROY_LIMIT - 0.1, True, 1.0, ShutdownStep.GIVE_UP, decision.LOOK_AGAIN),
        (-decision.DESTROY_LIMIT - 0.1, False, None, ShutdownStep.GIVE_UP, decision.LOOK_AGAIN),
    ],
)
def test_shutdown(left: float, acpi: bool, since_pressed: float | None, step: ShutdownStep, again: float) -> None:
    assert decision.shutdown_step(left, acpi=acpi, since_pressed=since_pressed) == (step, again)


@pytest.mark.parametrize("left", [3600.0, 30.0, 0.0, -1.0])
def test_a_guest_that_cannot_react_is_not_waited_for(left: float) -> None:
    step, _ = decision.shutdown_step(left, acpi=True, since_pressed=None, frozen=True)
    assert step is ShutdownStep.DESTROY


def test_attempts_become_rarer_up_to_a_limit() -> None:
    pauses = [decision.retry_pause(failures) for failures in range(40)]
    assert pauses[:3] == [0.05, 0.1, 0.2]
    assert all(later >= earlier for earlier, later in itertools.pairwise(pauses))
    assert pauses[-1] == decision.LONGEST_PAUSE
    assert decision.retry_pause(10**6) == decision.LONGEST_PAUSE


@pytest.mark.parametrize(
    ("pods", "uid"),
    [
        (None, None),
        ({}, None),
        ({"a": "node-2"}, None),
        ({"a": "node-2", "b": "node-1"}, "b"),
        ({"../..": "node-1"}, None),
        ({"../../etc": "node-1"}, "etc"),
        ({"": "node-1", "b": "node-1"}, "b"),
    ],
)
def test_the_launcher_of_a_node(pods: dict[str, str] | None, uid: str | None) -> None:
    vmi: dict[str, Any] = {"status": {"activePods": pods}}
    assert decision.launcher_pod_uid(vmi, "node-1") == uid
