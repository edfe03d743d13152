# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VirtualMachine's status says (KubeVirt API, VirtualMachineStatus). Pure."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from turtles.api import cdi
from turtles.api.conditions import TERMINATING, condition_of, get_condition, is_true, remove_condition, set_condition
from turtles.api.kinds.instancetype.matchers import MATCHERS
from turtles.api.objects import Object, is_deleted
from turtles.api.phases import PENDING, RUNNING, is_final, phase_of
from turtles.api.run_strategies import ALWAYS, RERUN_ON_FAILURE, WAIT_AS_RECEIVER, run_strategy
from turtles.api.times import rfc3339
from turtles.controller.vm.data_volumes import FAILED_CREATE as FAILED_DATA_VOLUME
from turtles.controller.vm.data_volumes import UNAUTHORIZED as UNAUTHORIZED_DATA_VOLUME
from turtles.controller.vm.plan import Plan
from turtles.controller.vm.revision import started_generation

#: Conditions of the VM itself; every other one is the VMI's.
_OWN_CONDITIONS = ("Ready", "Failure", "RestartRequired", "ManualRecoveryRequired", "Initialized")
#: Why a node has no image (kubelet, pkg/kubelet/images), and what a VM says of it, which knows two words for all.
_IMAGE_TROUBLE = {
    "ImagePullBackOff": "ImagePullBackOff",
    **dict.fromkeys(
        ("ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"),
        "ErrImagePull",
    ),
}
#: Reasons of the condition Failure: no instance could be made; one of that name isn't the VM's.
FAILED_CREATE, NOT_ADOPTED = "FailedCreate", "NotAdopted"
#: The instance type or the preference that the VM names doesn't exist.
FAILED_FIND = {"instancetype": "FailedFindInstancetype", "preference": "FailedFindPreference"}
#: Those that hold no longer than what causes them.
_PASSING = (FAILED_CREATE, NOT_ADOPTED, FAILED_DATA_VOLUME, UNAUTHORIZED_DATA_VOLUME, *FAILED_FIND.values())
_RESTART_REQUIRED = "a non-live-updatable field was changed in the template spec"


@dataclass(frozen=True)
class Context:
    """What else a VM's status depends on.

    :param outdated: the VMI isn't what the VM's template asks for now, and can't follow it while it runs.
    :param why: it can't.
    :param failure: (reason, message) of what went wrong just now.
    :param pvcs: the claims its volumes name; None for one that does not exist.
    :param data_volumes: those that fill its claims, by name.
    """

    outdated: bool = False
    why: str = ""
    failure: tuple[str, str] | None = None
    pvcs: Mapping[str, Object | None] = field(default_factory=dict)
    data_volumes: Mapping[str, Object] = field(default_factory=dict)


def status(vm: Object, vmi: Object | None, decided: Plan, around: Context, now: datetime) -> Object:
    """Return the VM's whole status.

    :param vmi: the VMI after what ``decided`` says was done: the new one when one was created.
    """
    old = vm.get("status") or {}
    new: Object = copy.deepcopy(old)
    stamp = rfc3339(now)
    strategy = run_strategy(vm)
    generation = int(vm["metadata"].get("generation") or 0)
    new["conditions"] = _conditions(
        old.get("conditions") or [],
        vmi,
        _failure(old.get("conditions"), vmi, decided, around),
        restart=(around.why or _RESTART_REQUIRED) if around.outdated else "",
        leaving=vmi is not None and (decided.delete or is_deleted(vmi)),
        now=stamp,
    )
    for key, value in (("created", vmi is not None), ("ready", is_true(new["conditions"], "Ready"))):
        if value:
            new[key] = True
        else:
            new.pop(key, None)
    _put(new, "stateChangeRequests", list(decided.requests))
    _put(new, "startFailure", decided.start_failure)
    waits = decided.wait is not None or decided.held or around.failure
    if vmi is not None or (old.get("runStrategy") and not waits):
        new["runStrategy"] = strategy
    for matcher in MATCHERS:
        if matcher.of(vm) is None:
            # What is named again later is taken as it is then
            new.pop(matcher.reference, None)
    new["desiredGeneration"] = generation
    if vmi is not None:
        # Changes beside the template do not concern the running instance: it has seen them all.
        seen = started_generation(vm, vmi) if around.outdated else generation
        if seen is not None:
            new["observedGeneration"] = seen
    new["printableStatus"] = printable_status(
        vm, vmi, decided.start_failure, around.pvcs, around.data_volumes, stopping=decided.delete
    )
    return new


def _put(obj: Object, key: str, value: Any) -> None:
    if value:
        obj[key] = value
    else:
        obj.pop(key, None)


def _failure(
    before: Sequence[Object] | None, vmi: Object | None, decided: Plan, around: Context
) -> tuple[str, str] | None:
    """Return reason and message of what goes wrong.

    Why an instance ended before its guest ran stays until a guest runs or the template is changed: the instance is
    gone in a moment, and all that it said with it.
    """
    if around.failure or not decided.start_failure:
        return around.failure
    if vmi is not None and is_final(vmi) and decided.start_failure.get("lastFailedVMIUID") == vmi["metadata"]["uid"]:
        synchronized = condition_of(vmi, "Synchronized") or {}
        if synchronized.get("status") == "False" and synchronized.get("message"):
            return str(synchronized.get("reason") or "Failed"), str(synchronized["message"])
        return "Failed", f"VirtualMachineInstance {vmi['metadata']['name']} ended before its guest ran; see its events"
    kept = get_condition(before, "Failure")
    if kept is None or kept.get("reason") in _PASSING:
        return None
    return str(kept.get("reason") or ""), str(kept.get("message") or "")


def _conditions(
    old: Sequence[Object],
    vmi: Object | None,
    failure: tuple[str, str] | None,
    *,
    restart: str,
    leaving: bool,
    now: str,
) -> list[Object]:
    conditions = [dict(condition) for condition in old if condition.get("type") in _OWN_CONDITIONS]
    theirs = ((vmi or {}).get("status") or {}).get("conditions") or []
    if vmi is None:
        set_condition(conditions, "Ready", "False", "VMINotExists", "VMI does not exist", now)
    elif (ready := get_condition(theirs, "Ready")) is None:
        set_condition(conditions, "Ready", "False", "VMIConditionMissing", "VMI is missing the Ready condition", now)
    elif leaving and ready["status"] != "False":
        # The VMI's own condition may be a write behind.
        set_condition(conditions, "Ready", "False", *TERMINATING, now)
    else:
        set_condition(conditions, "Ready", ready["status"], ready.get("reason", ""), ready.get("message", ""), now)
    if failure:
        set_condition(conditions, "Failure", "True", *failure, now)
    else:
        remove_condition(conditions, "Failure")
    if restart:
        set_condition(conditions, "RestartRequired", "True", "RestartRequired", restart, now)
    else:
        remove_condition(conditions, "RestartRequired")
    conditions += [dict(condition) for condition in theirs if condition.get("type") not in _OWN_CONDITIONS]
    return conditions


def printable_status(
    vm: Object,
    vmi: Object | None,
    start_failure: Object | None,
    pvcs: Mapping[str, Object | None],
    data_volumes: Mapping[str, Object] | None = None,
    *,
    stopping: bool = False,
) -> str:
    """Return the word that ``kubectl get vm`` shows; the first that applies (KubeVirt API, printableStatus).

    :param stopping: the VMI is deleted as soon as this is stored: one write says so and what is to follow.
    """
    if is_deleted(vm):
        return "Terminating"
    alive = vmi is not None and not is_final(vmi)
    vmi_status = (vmi or {}).get("status") or {}
    conditions = vmi_status.get("conditions")
    migration = vmi_status.get("migrationState") or {}
    if vmi is not None and alive and (stopping or is_deleted(vmi)):
        return "Stopping"
    if alive and migration.get("startTimestamp") and not migration.get("endTimestamp"):
        return "Migrating"
    if alive and is_true(conditions, "Paused"):
        return "Paused"
    if vmi_status.get("phase") == RUNNING:
        return "Running"
    synchronized = get_condition(conditions, "Synchronized") or {}
    unsynchronized = synchronized.get("reason", "") if synchronized.get("status") == "False" else ""
    scheduled = get_condition(conditions, "PodScheduled") or {}
    if alive and unsynchronized == "FailedPvcNotFound":
        return "ErrorPvcNotFound"
    filling = [each for each in (data_volumes or {}).values() if not cdi.is_populated(each)]
    if any(cdi.failure_of(each) for each in filling):
        return "DataVolumeError"
    if alive and scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return "ErrorUnschedulable"
    if any(phase_of(each) not in cdi.AWAITS_CONSUMER for each in filling):
        return "Provisioning"
    if alive and any(phase_of(pvc) == PENDING for pvc in pvcs.values() if pvc):
        return "WaitingForVolumeBinding"
    if alive and unsynchronized in _IMAGE_TROUBLE:
        return _IMAGE_TROUBLE[unsynchronized]
    if alive:
        return "Starting"
    if start_failure and start_failure.get("consecutiveFailCount") and run_strategy(vm) in (ALWAYS, RERUN_ON_FAILURE):
        return "CrashLoopBackOff"
    return "WaitingForReceiver" if run_strategy(vm) == WAIT_AS_RECEIVER and vmi is None else "Stopped"
