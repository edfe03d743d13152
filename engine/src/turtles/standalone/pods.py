# SPDX-License-Identifier: GPL-3.0-or-later
"""Phases of Pods (Kubernetes API, PodStatus.phase)."""

from __future__ import annotations

from turtles.api.objects import Object, get

#: Phases that are never left.
FINAL_PHASES = ("Succeeded", "Failed")


def has_ended(pod: Object) -> bool:
    """Tell whether all containers of a Pod have ended for good."""
    return get(pod, "status", "phase") in FINAL_PHASES
