# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VirtualMachine's run strategy asks for (KubeVirt user guide, "Run strategies"). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from turtles.api import labels
from turtles.api.conditions import condition_of
from turtles.api.objects import Object, is_deleted
from turtles.api.phases import (
    FAILED,
    PENDING,
    SCHEDULED,
    SCHEDULING,
    SUCCEEDED,
    is_final,
    phase_of,
    was_running,
)
from turtles.api.run_strategies import ALWAYS, HALTED, MANUAL, ONCE, RERUN_ON_FAILURE, START, STOP, run_strategy
from turtles.api.times import parse_time, rfc3339
from turtles.controller.vm.revision import revision_name, template_of
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
    :param run_always: the VM's run strategy is to become Always; the rest is decided then.
    :param held: it would start, and its disks aren't there yet.
    """

    create: Object | None = None
    delete: bool = False
    why: str = ""
    requests: Sequence[Object] = ()
    start_failure: Object | None = None
    wait: float | None = None
    run_always: bool = False
    held: bool = False


def plan(
    vm: Object,
    vmi: Object | None,
    now: datetime,
    jitter: float = 0.0,
    *,
    outdated: bool = False,
    held: bool = False,
) -> Plan:
    """Decide whether the VM's VMI is to be created or deleted.

    :param vm: not being deleted.
    :param vmi: the VMI of that name that the VM controls, or None.
    :param jitter: 0…1, spreads the start backoff.
    :param outdated: the VMI isn't what the VM's template asks for now.
    :param held: the VM can't start, because its disks aren't there yet.
    """
    strategy = run_strategy(vm)
    vm_status = vm.get("status") or {}
    requests = _open_requests(vm_status.get("stateChangeRequests") or (), vmi)
    if strategy == HALTED:
        # Halting is the later word, whatever was asked for before: nothing of it may start the VM in another life.
        requests = [request for request in requests[-1:] if _starts_halted(vm, request)]
    failure = _start_failure(vm, vmi, strategy, now, jitter, outdated=outdated)
    first = requests[0] if requests else {}
    start_asked = first.get("action") == START
    if vmi is not None:
        delete, why, requests = _stop(vm, vmi, first, requests, outdated=outdated)
        return Plan(delete=delete and not is_deleted(vmi), why=why, requests=requests, start_failure=failure)
    if vm_status.get("restoreInProgress"):
        # Its disks are about to be others
        return Plan(requests=requests, start_failure=failure)
    if strategy == ALWAYS:
        wanted = True
    elif strategy == RERUN_ON_FAILURE:
        # Whoever comes from another strategy gets a first start; later ones need a request.
        wanted = start_asked or vm_status.get("runStrategy") != strategy
    elif strategy == MANUAL:
        wanted = start_asked
    elif strategy == ONCE:
        # Nobody else's request is admitted: this one is for an instance that never ran and was replaced.
        wanted = start_asked or vm_status.get("runStrategy") != strategy
    elif strategy == HALTED and start_asked:
        return Plan(requests=requests, run_always=True)
    else:
        wanted = False
    if not wanted:
        return Plan(requests=requests, start_failure=failure)
    wait = _backoff_left(failure, now)
    if wait > 0:
        return Plan(requests=requests, start_failure=failure, wait=wait)
    if held:
        return Plan(requests=requests, start_failure=failure, held=True)
    paused = start_asked and _is_paused(first)
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


def _starts_halted(vm: Object, request: Mapping[str, Any]) -> bool:
    """Tell whether a request starts a halted VM: only a paused start is a request, all others set the run strategy.

    It was made for the VM as it is now; one that was made before the VM was halted is moot.
    """
    if request.get("action") != START or not _is_paused(request):
        return False
    seen = (vm.get("status") or {}).get("desiredGeneration")
    return seen in (None, vm["metadata"].get("generation"))


def _is_paused(request: Mapping[str, Any]) -> bool:
    return (request.get("data") or {}).get("paused") == "true"


def _stop(
    vm: Object, vmi: Object, first: Mapping[str, Any], requests: list[Object], *, outdated: bool
) -> tuple[bool, str, list[Object]]:
    """Return whether an existing VMI must go, why, and the requests to remember."""
    strategy = run_strategy(vm)
    if strategy == HALTED:
        return True, "the VM is halted", requests
    if first.get("action") == STOP:
        return True, "a stop was requested", requests
    phase = phase_of(vmi)
    if strategy == ALWAYS and phase in (SUCCEEDED, FAILED):
        return True, f"it is {phase} and the VM's runStrategy is Always", requests
    if strategy == RERUN_ON_FAILURE and phase == FAILED and not is_deleted(vmi):
        # The request outlives the VMI, and us.
        again = requests if first.get("action") == START else [*requests, {"action": START}]
        return True, "it failed and the VM's runStrategy is RerunOnFailure", again
    if outdated and not is_deleted(vmi) and _has_not_come_up(vmi):
        return True, "it never ran, and the VM's template has changed since", [*requests, *_start_again(vm, vmi)]
    return False, "", requests


def _has_not_come_up(vmi: Object) -> bool:
    """Tell whether a VMI never ran and isn't about to: replacing it interrupts no guest.

    Once it is scheduled its guest may start at any moment, unless something is known to prevent that.
    """
    if was_running(vmi):
        return False
    phase = phase_of(vmi)
    synchronized = condition_of(vmi, "Synchronized") or {}
    return phase in ("", PENDING, SCHEDULING) or (phase == SCHEDULED and synchronized.get("status") == "False")


def _start_again(vm: Object, vmi: Object) -> list[Object]:
    """Return the request that makes the VM start another instance in place of one that never ran."""
    if vmi["spec"].get("startStrategy") == "Paused" and template_of(vm).get("startStrategy") != "Paused":
        return [{"action": START, "data": {"paused": "true"}}]
    return [] if run_strategy(vm) == ALWAYS else [{"action": START}]


def _start_failure(
    vm: Object, vmi: Object | None, strategy: str, now: datetime, jitter: float, *, outdated: bool
) -> Object | None:
    """Count VMIs that ended before they ran. A VMI that somebody deleted on its way does not count.

    What was corrected since is tried at once.
    """
    vm_status = vm.get("status") or {}
    before: Object | None = vm_status.get("startFailure")
    if (vmi is not None and was_running(vmi)) or strategy not in (ALWAYS, RERUN_ON_FAILURE, ONCE):
        return None
    if outdated:
        return None
    if vmi is None and vm_status.get("observedGeneration") not in (None, vm["metadata"].get("generation")):
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
