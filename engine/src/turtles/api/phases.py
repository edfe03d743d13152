# SPDX-License-Identifier: GPL-3.0-or-later
"""Phases of a VirtualMachineInstance (KubeVirt API, VirtualMachineInstanceStatus.phase). A Pod has some of them too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api.objects import Object, get

PENDING, SCHEDULING, SCHEDULED, RUNNING = "Pending", "Scheduling", "Scheduled", "Running"
SUCCEEDED, FAILED = "Succeeded", "Failed"
#: Phases that are never left.
FINAL_PHASES = (SUCCEEDED, FAILED)
#: Phases in which the node agent owns a VMI.
HANDED_OVER = (SCHEDULED, RUNNING)


def phase_of(obj: Mapping[str, Any] | None) -> str:
    """Return the phase of an object, such as a VMI, a Pod or a DataVolume; empty if it has none or doesn't exist."""
    return str(get(obj, "status", "phase") or "")


def is_final(obj: Mapping[str, Any]) -> bool:
    """Say whether a VMI or Pod has ended for good."""
    return phase_of(obj) in FINAL_PHASES


def was_running(vmi: Mapping[str, Any]) -> bool:
    """Say whether a VMI is running or has ever been."""
    history = get(vmi, "status", "phaseTransitionTimestamps") or ()
    return phase_of(vmi) == RUNNING or any(entry.get("phase") == RUNNING for entry in history)


def set_phase(status: Object, phase: str, now: str) -> None:
    """Set the phase in a VMI's status, and record the time of the transition. Does nothing if it is the same phase."""
    if status.get("phase") == phase:
        return
    status["phase"] = phase
    status["phaseTransitionTimestamps"] = [
        *(status.get("phaseTransitionTimestamps") or ()),
        {"phase": phase, "phaseTransitionTimestamp": now},
    ]
