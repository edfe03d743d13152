# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VirtualMachine's run strategy asks for (KubeVirt user guide, "Run strategies"). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from turtles.api import labels
from turtles.api.objects import Object, is_deleted
from turtles.api.phases import FAILED, SUCCEEDED, is_final, phase_of, was_running
from turtles.api.run_strategies import ALWAYS, HALTED, MANUAL, ONCE, RERUN_ON_FAILURE, START, STOP, run_strategy
from turtles.api.times import parse_time, rfc3339
from turtles.controller.vm.revision import revision_name
from turtles.controller.vmi.template import make_vmi

#: Start backoff of a VM whose instances never reach Running: base times failures squared, at most the maximum, seconds.
BACKOFF_BASE, BACKOFF_MAX = 10, 300


@dataclass(frozen=True)
class Plan:
    """What is to happen to the VMI, and what has to be remembered in the VM's status.

    :param create: the VMI to create, or None.
    :param delete: the VMI is to be deleted.
    :param why: what made it so, for the log.
    :param requests: ``status.stateChangeRequests`` from now on.
    :param start_failure: ``status.startFailure`` from now on, or None.
    :param wait: seconds until the next start may be tried, or None.
    """

    create: Object | None = None
    delete: bool = False
    why: str = ""
    requests: Sequence[Object] = ()
    start_failure: Object | None = None
    wait: float | None = None


def plan(vm: Object, vmi: Object | None, now: datetime, jitter: float = 0.0) -> Plan:
    """Decide whether the VM's VMI is to be created or deleted.

    :param vm: not being deleted.
    :param vmi: the VMI of that name that the VM controls, or None.
    :param jitter: 0…1, spreads the start backoff.
    """
    strategy = run_strategy(vm)
    vm_status = vm.get("status") or {}
    requests = _open_requests(vm_status.get("stateChangeRequests") or (), vmi)
    failure = _start_failure(vm_status.get("startFailure"), vmi, strategy, now, jitter)
    first = requests[0] if requests else {}
    start_asked = first.get("action") == START
    if vmi is not None:
        delete, why, requests = _stop(strategy, vmi, first, requests)
        return Plan(delete=delete and not is_deleted(vmi), why=why, requests=requests, start_failure=failure)
    if strategy == ALWAYS:
        wanted = True
    elif strategy == RERUN_ON_FAILURE:
        # Whoever comes from another strategy gets a first start; later ones need a request.
        wanted = start_asked or vm_status.get("runStrategy") != strategy
    elif strategy == MANUAL:
        wanted = start_asked
    elif strategy == ONCE:
        wanted = vm_status.get("runStrategy") != strategy
    else:
        wanted = False
    if not wanted:
        return Plan(requests=requests, start_failure=failure)
    wait = _backoff_left(failure, now)
    if wait > 0:
        return Plan(requests=requests, start_failure=failure, wait=wait)
    paused = start_asked and (first.get("data") or {}).get("paused") == "true"
    return Plan(
        create=instance_of(vm, paused=paused), requests=requests[1:] if start_asked else requests, start_failure=failure
    )


def instance_of(vm: Object, *, paused: bool = False) -> Object:
    """Return the VMI that a VM's template asks for."""
    generation = int(vm["metadata"].get("generation") or 0)
    vmi = make_vmi(vm, vm["spec"]["template"], vm["metadata"]["name"])
    vmi["metadata"]["annotations"][labels.VM_GENERATION] = str(generation)
    vmi["metadata"]["finalizers"] = [labels.VM_FINALIZER]
    vmi["status"] = {"virtualMachineRevisionName": revision_name(vm, generation)}
    if paused:
        vmi["spec"]["startStrategy"] = "Paused"
    return vmi


def _open_requests(requests: Sequence[Object], vmi: Object | None) -> list[Object]:
    """Drop the requests at the head of the list that have been carried out."""
    remaining = list(requests)
    while remaining:
        action, uid = remaining[0].get("action"), remaining[0].get("uid")
        if action == START:
            # A VMI on its way out is not the one that was asked for.
            carried_out = vmi is not None and not is_final(vmi) and not is_deleted(vmi)
        else:
            carried_out = vmi is None or bool(uid and uid != vmi["metadata"].get("uid"))
        if not carried_out:
            break
        del remaining[0]
    return remaining


def _stop(
    strategy: str, vmi: Object, first: Mapping[str, Any], requests: list[Object]
) -> tuple[bool, str, list[Object]]:
    """Return whether an existing VMI must go, why, and the requests to remember."""
    if strategy == HALTED:
        return True, "the VM is halted", requests
    if first.get("action") == STOP:
        return True, "a stop was requested", requests
    phase = phase_of(vmi)
    if strategy == ALWAYS and phase in (SUCCEEDED, FAILED):
        return True, f"it is {phase} and the VM runs always", requests
    if strategy == RERUN_ON_FAILURE and phase == FAILED and not is_deleted(vmi):
        # The request outlives the VMI, and us.
        again = requests if first.get("action") == START else [*requests, {"action": START}]
        return True, "it failed and the VM reruns on failure", again
    return False, "", requests


def _start_failure(
    before: Object | None, vmi: Object | None, strategy: str, now: datetime, jitter: float
) -> Object | None:
    """Count VMIs that ended before they ran. A VMI that somebody deleted on its way does not count."""
    if (vmi is not None and was_running(vmi)) or strategy not in (ALWAYS, RERUN_ON_FAILURE, ONCE):
        return None
    if vmi is None or not is_final(vmi) or is_deleted(vmi):
        return before
    uid = vmi["metadata"].get("uid")
    if before and before.get("lastFailedVMIUID") == uid:
        return before
    count = int((before or {}).get("consecutiveFailCount") or 0) + 1
    delay = BACKOFF_BASE * count * count
    delay = min(BACKOFF_MAX, delay + int(delay / 2 * jitter))
    return {
        "consecutiveFailCount": count,
        "lastFailedVMIUID": uid,
        "retryAfterTimestamp": rfc3339(now + timedelta(seconds=delay)),
    }


def _backoff_left(failure: Mapping[str, Any] | None, now: datetime) -> float:
    after = parse_time((failure or {}).get("retryAfterTimestamp"))
    left = max(0.0, (after - now).total_seconds()) if after else 0.0
    # More than any pause: the clock was set back since, by who knows how much.
    return left if left <= BACKOFF_MAX else 0.0
