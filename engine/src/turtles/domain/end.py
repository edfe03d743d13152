# SPDX-License-Identifier: GPL-3.0-or-later
"""How the end of a VMI is reported: its final phase, and the event that says why and what to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from turtles.api.guests import grace_period
from turtles.api.phases import FAILED, SUCCEEDED
from turtles.domain import definition, lifecycle


@dataclass(frozen=True)
class End:
    """The end of a VMI. ``reason`` and ``message`` are the event's; ``requested``: a user asked for it."""

    reason: str
    message: str
    phase: str = FAILED
    requested: bool = False

    @property
    def event_type(self) -> str:
        """Type of the event."""
        return "Normal" if self.requested or self.phase == SUCCEEDED else "Warning"


DELETED_BEFORE_START = End(
    "Deleted", "The VirtualMachineInstance was deleted before its guest was started.", requested=True
)


def stopped(
    spec: Mapping[str, Any],
    state: int,
    reason: int,
    *,
    shutdown_requested: bool,
    out_of_memory: bool = False,
    frozen: bool = False,
) -> End:
    """Return the end of a guest whose domain has ended.

    :param state: the domain's, with the *reason* for it.
    :param shutdown_requested: the guest was asked to shut down, because its VMI was deleted.
    :param out_of_memory: the kernel has ended a process of the launcher because of the Pod's memory limit.
    :param frozen: the guest was paused when it was to shut down.
    """
    phase = lifecycle.phase_of(state, reason, acpi=definition.acpi_enabled(spec)) or FAILED
    if out_of_memory and lifecycle.crashed(state, reason):
        return End(
            "OOMKilled",
            "QEMU was killed because the launcher Pod reached its memory limit; raise "
            "spec.domain.resources.limits.memory, or leave it out.",
            phase,
        )
    grace = grace_period(spec) if shutdown_requested else None
    requested = grace is not None and lifecycle.at_once(grace)
    return End("Stopped", lifecycle.end_text(state, reason, grace, frozen=frozen), phase, requested)


def lost(why: str) -> End:
    """Return the end of a guest of which it is unknown how it ended.

    :param why: says why its domain can't be asked.
    """
    return End(
        "LauncherUnresponsive",
        f"The launcher Pod no longer answers for the guest ({why}). See the launcher Pod's log; "
        "a VirtualMachine with runStrategy Always or RerunOnFailure starts a new instance.",
    )


def not_destroyed(seconds: float) -> End:
    """Return the end of a guest that could not be destroyed within that time."""
    return End(
        "LauncherUnresponsive",
        f"The guest could not be powered off within {seconds:g} s; its launcher Pod is terminated instead.",
    )


def start_timed_out(seconds: float, last_error: str) -> End:
    """Return the end of a VMI whose guest could not be started within that time."""
    return End("StartTimeout", f"The guest could not be started within {seconds:g} s. Last error: {last_error}")


def start_refused(error: Exception) -> End:
    """Return the end of a VMI whose domain libvirt refuses for good."""
    return End("StartFailed", f"libvirt refuses the machine: {error}")


def domain_not_supported(error: Exception) -> End:
    """Return the end of a VMI for which no domain can be defined."""
    return End("DomainNotSupported", str(error))


def disk_not_usable(message: str) -> End:
    """Return the end of a VMI one of whose disks is a file that can't be used."""
    return End("DiskNotUsable", message)


def network_not_supported(error: Exception) -> End:
    """Return the end of a VMI whose interface can't be connected to its Pod's."""
    return End("NetworkNotSupported", str(error))


def no_passt(version: int, needed: int) -> End:
    """Return the end of a VMI with passt where libvirt doesn't know that; versions are as libvirt counts them."""

    def words(number: int) -> str:
        return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"

    return End(
        "NetworkNotSupported",
        f"passtBinding needs libvirt {words(needed)} or later in the launcher, which has {words(version)}; use a "
        "node or launcher image with Debian 13, or masquerade",
    )


def no_launcher_pod(node: str) -> End:
    """Return the end of a VMI that was handed over to a node where it has no launcher."""
    return End(
        "NoLauncherPod", f"status.activePods names no launcher Pod on node {node}; delete the VMI to have it recreated."
    )
