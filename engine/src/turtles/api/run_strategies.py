# SPDX-License-Identifier: GPL-3.0-or-later
"""Run strategies of a VirtualMachine, and the requests its status holds (KubeVirt user guide, "Run strategies")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALWAYS, RERUN_ON_FAILURE, MANUAL, HALTED, ONCE = "Always", "RerunOnFailure", "Manual", "Halted", "Once"
#: Those that say by themselves whether the machine runs.
RUN_STRATEGIES = (HALTED, MANUAL, ALWAYS, RERUN_ON_FAILURE, ONCE)
#: Starts nothing: the machine waits for its instance to come by a migration from another cluster.
WAIT_AS_RECEIVER = "WaitAsReceiver"

#: Actions in status.stateChangeRequests.
START, STOP = "Start", "Stop"


def run_strategy(vm: Mapping[str, Any]) -> str:
    """Return the run strategy of a VirtualMachine. `spec.running` is the old way to say Always and Halted."""
    spec = vm["spec"]
    if spec.get("runStrategy"):
        return str(spec["runStrategy"])
    return ALWAYS if spec.get("running") else HALTED
