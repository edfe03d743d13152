# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt says about a domain → phase and conditions of its VMI. Pure tables.

The numbers are libvirt's (``virDomainState``, ``virDomainShutoffReason``, ``virDomainPausedReason``,
``virDomainEventStoppedDetailType``), which its ABI guarantees; having them here keeps this module free of the library.
The table is KubeVirt's: a guest that shut down has succeeded; one that crashed, or had to be destroyed although it
could have shut down, has failed.
"""

from dataclasses import dataclass
from enum import IntEnum

from turtles.api.phases import FAILED, FINAL_PHASES, RUNNING, SUCCEEDED


class State(IntEnum):
    """``virDomainState``."""

    NOSTATE = 0
    RUNNING = 1
    BLOCKED = 2
    PAUSED = 3
    SHUTDOWN = 4
    SHUTOFF = 5
    CRASHED = 6
    PMSUSPENDED = 7


class Shutoff(IntEnum):
    """``virDomainShutoffReason``."""

    UNKNOWN = 0
    SHUTDOWN = 1
    DESTROYED = 2
    CRASHED = 3
    MIGRATED = 4
    SAVED = 5
    FAILED = 6
    FROM_SNAPSHOT = 7
    DAEMON = 8


class Paused(IntEnum):
    """``virDomainPausedReason``, as far as a reason has a meaning of its own here."""

    UNKNOWN = 0
    USER = 1
    MIGRATION = 2
    IOERROR = 5
    WATCHDOG = 6
    FROM_SNAPSHOT = 7
    CRASHED = 10
    STARTING_UP = 11
    POSTCOPY_FAILED = 13


_ALIVE = (State.RUNNING, State.BLOCKED, State.PAUSED, State.SHUTDOWN, State.PMSUSPENDED)
#: Pauses that last until somebody ends them. The others are a moment of an operation, such as the end of a shutdown.
_LASTING_PAUSES = (
    Paused.UNKNOWN,
    Paused.USER,
    Paused.IOERROR,
    Paused.WATCHDOG,
    Paused.FROM_SNAPSHOT,
    Paused.CRASHED,
)
_CLEAN_ENDS = (Shutoff.SHUTDOWN, Shutoff.SAVED, Shutoff.FROM_SNAPSHOT)
_END_TEXTS: dict[int, str] = {
    Shutoff.SHUTDOWN: "The guest shut down.",
    Shutoff.SAVED: "The guest was saved.",
    Shutoff.FROM_SNAPSHOT: "The guest was stopped by reverting to a snapshot.",
    Shutoff.DESTROYED: "The guest was powered off because its launcher Pod was terminated, or by someone on the node.",
    Shutoff.CRASHED: "QEMU or the guest crashed; see the launcher Pod's log and the node's kernel log (OOM?).",
    Shutoff.MIGRATED: "The guest migrated away.",
    Shutoff.FAILED: "QEMU could not be started; see the launcher Pod's log.",
    Shutoff.DAEMON: "libvirtd lost the guest while restarting; see the launcher Pod's log.",
}


@dataclass(frozen=True)
class Pause:
    """Reason and message of a Paused condition."""

    reason: str
    message: str


def alive(state: int) -> bool:
    """Say whether a domain in this state has a QEMU process that executes or can continue."""
    return state in _ALIVE


def is_frozen(state: int, reason: int) -> bool:
    """Whether a domain's processors stand still until somebody lets them go on: it can't react to its power button."""
    return state == State.PAUSED and reason in _LASTING_PAUSES


def is_asleep(state: int) -> bool:
    """Whether a guest has suspended itself to memory: it has to be woken up before it can react."""
    return state == State.PMSUSPENDED


def never_ran(state: int, reason: int) -> bool:
    """Whether a defined domain has not been started since, or could not be: starting it (again) loses nothing."""
    return state == State.SHUTOFF and reason in (Shutoff.UNKNOWN, Shutoff.FAILED)


def phase_of(state: int, reason: int, *, acpi: bool) -> str | None:
    """Return the VMI's phase for a domain's state and reason, None if they say nothing (no state, migrated away).

    :param acpi: whether the guest could have been shut down by its power button. If not, destroying is the normal end.
    """
    if state == State.PAUSED and reason == Paused.POSTCOPY_FAILED:
        return FAILED
    if alive(state):
        return RUNNING
    if state == State.CRASHED:
        return FAILED
    if state != State.SHUTOFF or reason == Shutoff.MIGRATED:
        return None
    if reason in _CLEAN_ENDS or (reason == Shutoff.DESTROYED and not acpi):
        return SUCCEEDED
    return FAILED


def has_ended(state: int, reason: int) -> bool:
    """Whether a domain in this state means that its VMI has ended."""
    return phase_of(state, reason, acpi=True) in FINAL_PHASES


def crashed(state: int, reason: int) -> bool:
    """Whether a domain has ended because its guest or its QEMU crashed, or was killed."""
    return state == State.CRASHED or (state == State.SHUTOFF and reason == Shutoff.CRASHED)


def end_text(state: int, reason: int, grace: int | None = None, *, frozen: bool = False) -> str:
    """Return a sentence that says how a domain ended.

    :param grace: seconds it had to shut down; None if it wasn't asked to.
    :param frozen: it was paused when it was to shut down.
    """
    if state == State.CRASHED:
        reason = Shutoff.CRASHED
    if reason == Shutoff.DESTROYED and grace is not None:
        if at_once(grace):
            return "The guest was powered off immediately, as requested."
        if frozen:
            return "The guest was powered off immediately: it was paused and therefore could not shut down."
        return f"The guest was powered off because it did not shut down within its grace period of {grace} s."
    return _END_TEXTS.get(reason, "The guest stopped for an unknown reason; see the launcher Pod's log.")


def at_once(grace: int) -> bool:
    """Whether a grace period in seconds asks for no shutdown at all; a forced restart sets it to 1 (KubeVirt API)."""
    return grace <= 1


def stopped_event_reason(detail: int) -> int:
    """Return the shutoff reason that corresponds to the detail of a STOPPED lifecycle event.

    Both enumerations have the same order; the reasons begin with "unknown".
    """
    return detail + 1 if 0 <= detail <= 6 else Shutoff.UNKNOWN


def pause_of(state: int, reason: int) -> Pause | None:
    """Return what the Paused condition says; None if the guest isn't paused, or only while it starts or migrates."""
    if state != State.PAUSED or reason in (Paused.MIGRATION, Paused.STARTING_UP):
        return None
    if reason == Paused.IOERROR:
        return Pause("PausedIOError", "VMI was paused, low-level IO error detected")
    if reason == Paused.WATCHDOG:
        return Pause("PausedByWatchdog", "VMI was paused by its watchdog")
    return Pause("PausedByUser", "VMI was paused by user")
