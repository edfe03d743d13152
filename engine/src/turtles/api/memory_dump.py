# SPDX-License-Identifier: GPL-3.0-or-later
"""Phases of a VirtualMachine's memory dump (KubeVirt API, MemoryDumpPhase)."""

from __future__ import annotations

ASSOCIATING = "Associating"
IN_PROGRESS = "InProgress"
UNMOUNTING = "Unmounting"
COMPLETED = "Completed"
DISSOCIATING = "Dissociating"
FAILED = "Failed"
