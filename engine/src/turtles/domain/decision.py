# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node agent does next about one VMI, from what it knows. Pure: times are given, in seconds.

Level-triggered: each decision starts from the VMI, its domain's state and what was noted, never from the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import PurePosixPath
from typing import Any

from turtles.domain import lifecycle

#: Seconds between two requests to the guest to shut down.
SHUTDOWN_REPEAT = 5.0
#: Seconds from the first attempt to end a guest at once until its Pod has to be ended instead.
DESTROY_LIMIT = 30.0
#: Seconds the launcher of a running guest may stay silent; it restarts its libvirtd within one.
UNRESPONSIVE_AFTER = 20.0
#: Seconds of that after which the VMI isn't Ready any more.
NOT_READY_AFTER = 5.0
#: Seconds in which a VMI must have started, from the first attempt (KubeVirt's default for the same).
START_LIMIT = 300.0
#: Seconds after which a running guest's libvirtd is asked again, though nothing seems to have happened.
LOOK_INTERVAL = 30.0
#: Seconds after which a VMI without a launcher is looked at again, should a notification have been lost.
LOOK_AGAIN = 2.0
#: Seconds after which libvirtd, seen but not listening yet, is tried again.
SOON = 0.02
#: First and longest pause between two attempts to do what failed, seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 30.0


class Step(Enum):
    """What is to be done about a guest."""

    #: Nothing: see how it is, and report that.
    WATCH = auto()
    START = auto()
    SHUT_DOWN = auto()
    #: End the VMI: it was deleted before its guest was started.
    CANCEL = auto()
    #: End the VMI: its guest has run, and there is nobody any more to ask how it ended.
    LOST = auto()


class ShutdownStep(Enum):
    """What is to be done about a guest whose VMI was deleted."""

    WAIT = auto()
    PRESS_POWER_BUTTON = auto()
    DESTROY = auto()
    #: It can't be destroyed: end the VMI, so that its Pod is ended.
    GIVE_UP = auto()


@dataclass(frozen=True)
class Wait:
    """Wait for a launcher that doesn't answer. ``report``: the VMI's status has to say that it doesn't."""

    seconds: float
    report: bool = False


def launcher_pod_uid(vmi: Mapping[str, Any], node: str) -> str | None:
    """Return the uid of a VMI's launcher Pod on a node, as its status has it; None if there is none."""
    for uid, node_name in (vmi["status"].get("activePods") or {}).items():
        if node_name == node and (name := PurePosixPath(uid).name).strip("."):
            return name  # it becomes part of a path
    return None


def next_step(state: int, reason: int, *, defined: bool, has_run: bool, deleted: bool) -> Step:
    """Decide what to do about a guest whose libvirtd answers.

    :param state: the domain's, with the *reason* for it.
    :param defined: there is such a domain.
    :param has_run: the guest is known to have run: it is never started twice.
    :param deleted: the deletion of the VMI was requested.
    """
    if has_run and not defined:
        return Step.LOST
    if not defined or (lifecycle.never_ran(state, reason) and not has_run):
        return Step.CANCEL if deleted else Step.START
    return Step.SHUT_DOWN if deleted and lifecycle.alive(state) else Step.WATCH


def on_silence(silent: float, *, has_run: bool, deleted: bool, gone: bool, busy: bool) -> Step | Wait:
    """Decide what to do about a guest whose libvirtd can't be asked.

    :param silent: seconds for which it has been so.
    :param gone: nothing is left that could answer.
    :param busy: there is a process that may answer any moment.
    """
    if deleted and not has_run:
        return Step.CANCEL
    if (gone and has_run) or silent > (UNRESPONSIVE_AFTER if has_run else START_LIMIT):
        return Step.LOST
    pause = max(SOON, silent / 4) if busy else LOOK_AGAIN
    return Wait(min(LOOK_AGAIN, pause), report=has_run and silent >= NOT_READY_AFTER)


def shutdown_step(
    left: float, *, acpi: bool, since_pressed: float | None, frozen: bool = False
) -> tuple[ShutdownStep, float]:
    """Decide what to do about a guest that has to end, and after how many seconds to look again.

    :param left: seconds of its grace period that are left; negative once it is over.
    :param acpi: whether the guest has a power button.
    :param since_pressed: seconds since that was pressed; None if it wasn't yet.
    :param frozen: the guest is paused, so that it can't react.
    """
    if left < -DESTROY_LIMIT:
        return ShutdownStep.GIVE_UP, LOOK_AGAIN
    if left <= 0 or not acpi or frozen:
        return ShutdownStep.DESTROY, LOOK_AGAIN
    # A timer may be a little early
    due = since_pressed is None or since_pressed >= SHUTDOWN_REPEAT - 0.1
    return ShutdownStep.PRESS_POWER_BUTTON if due else ShutdownStep.WAIT, min(SHUTDOWN_REPEAT, left)


def retry_pause(failures: int) -> float:
    """Return the seconds until the next attempt.

    :param failures: how many attempts in a row had failed before the one that just did.
    """
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 30)))
