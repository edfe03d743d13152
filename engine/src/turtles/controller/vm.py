# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachine → VirtualMachineInstance: what a run strategy asks for, and what a VM's status says.

The rules are KubeVirt's (user guide, "Run strategies"; kubevirt.io API, VirtualMachineStatus). :func:`plan` and
:func:`status` are pure; :class:`VMController` reads the caches, asks them, and writes what they say.
"""

import copy
import logging
import random
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from turtles.api import labels
from turtles.api.conditions import get_condition, is_true, remove_condition, set_condition
from turtles.api.guests import firmware_uuid
from turtles.api.objects import Object, controller_of, is_deleted, owner_reference
from turtles.api.phases import FAILED, RUNNING, SUCCEEDED, is_final, phase_of, was_running
from turtles.api.run_strategies import ALWAYS, HALTED, MANUAL, ONCE, RERUN_ON_FAILURE, START, STOP, run_strategy
from turtles.api.times import parse_time, rfc3339
from turtles.controller import remedies
from turtles.controller.changes import json_diff, merge_diff
from turtles.kube.client import JSON, AlreadyExists, ApiError, Client, Conflict, NotFound, Unavailable
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, Key
from turtles.kube.kubevirt import VM, VMI
from turtles.kube.resources import CONTROLLERREVISION

log = logging.getLogger(__name__)

#: Start backoff of a VM whose instances never reach Running: base times failures squared, at most the maximum, seconds.
BACKOFF_BASE, BACKOFF_MAX = 10, 300
#: Conditions of the VM itself; every other one is the VMI's.
_OWN_CONDITIONS = ("Ready", "Failure", "RestartRequired", "ManualRecoveryRequired", "Initialized")
#: Why a node has no image (kubelet, pkg/kubelet/images), and what a VM says of it, which knows two words for all.
_IMAGE_TROUBLE = {
    "ImagePullBackOff": "ImagePullBackOff",
    **dict.fromkeys(("ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
                     "RegistryUnavailable"), "ErrImagePull"),
}
_ORPHAN = "orphan"
_RESTART_REQUIRED = "a non-live-updatable field was changed in the template spec"
_REMEMBERED_TEMPLATES = 1000


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
    return Plan(create=make_vmi(vm, paused=paused), requests=requests[1:] if start_asked else requests,
                start_failure=failure)


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


def _stop(strategy: str, vmi: Object, first: Mapping[str, Any],
          requests: list[Object]) -> tuple[bool, str, list[Object]]:
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


def _start_failure(before: Object | None, vmi: Object | None, strategy: str, now: datetime,
                   jitter: float) -> Object | None:
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
    return {"consecutiveFailCount": count, "lastFailedVMIUID": uid,
            "retryAfterTimestamp": rfc3339(now + timedelta(seconds=delay))}


def _backoff_left(failure: Mapping[str, Any] | None, now: datetime) -> float:
    after = parse_time((failure or {}).get("retryAfterTimestamp"))
    return max(0.0, (after - now).total_seconds()) if after else 0.0


def make_vmi(vm: Object, *, paused: bool = False) -> Object:
    """Return the VMI that a VM's template asks for."""
    metadata, template = vm["metadata"], vm["spec"]["template"]
    spec = copy.deepcopy(template.get("spec") or {})
    firmware = spec.setdefault("domain", {}).setdefault("firmware", {})
    firmware.setdefault("uuid", firmware_uuid(metadata["name"]))
    if paused:
        spec["startStrategy"] = "Paused"
    generation = int(metadata.get("generation") or 0)
    of_template = template.get("metadata") or {}
    return {
        "apiVersion": VMI.api_version,
        "kind": VMI.kind,
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": dict(of_template.get("labels") or {}),
            "annotations": {**(of_template.get("annotations") or {}), labels.VM_GENERATION: str(generation)},
            "ownerReferences": [owner_reference(vm)],
            "finalizers": [labels.VM_FINALIZER],
        },
        "spec": spec,
        "status": {"virtualMachineRevisionName": revision_name(vm, generation)},
    }


def revision_name(vm: Object, generation: int) -> str:
    """Return the name of the ControllerRevision that keeps the spec a VMI was started with."""
    return f"revision-start-vm-{vm['metadata']['uid']}-{generation}"


def make_revision(vm: Object) -> Object:
    """Return the ControllerRevision of the VM's present generation."""
    generation = int(vm["metadata"].get("generation") or 0)
    return {
        "apiVersion": CONTROLLERREVISION.api_version,
        "kind": CONTROLLERREVISION.kind,
        "metadata": {
            "name": revision_name(vm, generation),
            "namespace": vm["metadata"]["namespace"],
            "ownerReferences": [owner_reference(vm)],
        },
        "data": {"spec": copy.deepcopy(vm["spec"])},
        "revision": generation,
    }


def started_generation(vmi: Mapping[str, Any]) -> int | None:
    """Return the generation of the VM a VMI was made from, or None."""
    text = (vmi["metadata"].get("annotations") or {}).get(labels.VM_GENERATION, "")
    return int(text) if text.isdigit() else None


@dataclass(frozen=True)
class Surroundings:
    """What else a VM's status depends on.

    :param template: ``spec.template.spec`` the running VMI was made from, when it may differ from the present one.
    :param failure: (reason, message) of what went wrong just now.
    :param pvcs: the claims its volumes name; None for one that does not exist.
    """

    template: Mapping[str, Any] | None = None
    failure: tuple[str, str] | None = None
    pvcs: Mapping[str, Object | None] = field(default_factory=dict)


def status(vm: Object, vmi: Object | None, decided: Plan, around: Surroundings, now: datetime) -> Object:
    """Return the VM's whole status.

    :param vmi: the VMI after what ``decided`` says was done: the new one when one was created.
    """
    old = vm.get("status") or {}
    new: Object = copy.deepcopy(old)
    stamp = rfc3339(now)
    strategy = run_strategy(vm)
    generation = int(vm["metadata"].get("generation") or 0)
    outdated = vmi is not None and around.template is not None and around.template != _template(vm)
    new["conditions"] = _conditions(old.get("conditions") or [], vmi, around.failure, outdated, stamp)
    for key, value in (("created", vmi is not None), ("ready", is_true(new["conditions"], "Ready"))):
        if value:
            new[key] = True
        else:
            new.pop(key, None)
    _put(new, "stateChangeRequests", list(decided.requests))
    _put(new, "startFailure", decided.start_failure)
    if vmi is not None or (old.get("runStrategy") and decided.wait is None and not around.failure):
        new["runStrategy"] = strategy
    new["desiredGeneration"] = generation
    if vmi is not None:
        started = started_generation(vmi)
        # Changes beside the template do not concern the running instance: it has seen them all.
        seen = generation if around.template is not None and not outdated else started
        if seen is not None:
            new["observedGeneration"] = seen
    new["printableStatus"] = printable_status(vm, vmi, decided.start_failure, around.pvcs, stopping=decided.delete)
    return new


def _put(obj: Object, key: str, value: Any) -> None:
    if value:
        obj[key] = value
    else:
        obj.pop(key, None)


def _template(vm: Object) -> Mapping[str, Any]:
    return (vm["spec"].get("template") or {}).get("spec") or {}


def _conditions(old: Sequence[Object], vmi: Object | None, failure: tuple[str, str] | None, outdated: bool,
                now: str) -> list[Object]:
    conditions = [dict(condition) for condition in old if condition.get("type") in _OWN_CONDITIONS]
    theirs = ((vmi or {}).get("status") or {}).get("conditions") or []
    if vmi is None:
        set_condition(conditions, "Ready", "False", "VMINotExists", "VMI does not exist", now)
    elif (ready := get_condition(theirs, "Ready")) is None:
        set_condition(conditions, "Ready", "False", "VMIConditionMissing", "VMI is missing the Ready condition", now)
    else:
        set_condition(conditions, "Ready", ready["status"], ready.get("reason", ""), ready.get("message", ""), now)
    if failure:
        set_condition(conditions, "Failure", "True", *failure, now)
    else:
        remove_condition(conditions, "Failure")
    if outdated:
        set_condition(conditions, "RestartRequired", "True", "RestartRequired", _RESTART_REQUIRED, now)
    else:
        remove_condition(conditions, "RestartRequired")
    conditions += [dict(condition) for condition in theirs if condition.get("type") not in _OWN_CONDITIONS]
    return conditions


def printable_status(vm: Object, vmi: Object | None, start_failure: Object | None,
                     pvcs: Mapping[str, Object | None], *, stopping: bool = False) -> str:
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
    if alive and scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return "ErrorUnschedulable"
    if alive and any((pvc.get("status") or {}).get("phase") == "Pending" for pvc in pvcs.values() if pvc):
        return "WaitingForVolumeBinding"
    if alive and unsynchronized in _IMAGE_TROUBLE:
        return _IMAGE_TROUBLE[unsynchronized]
    if alive:
        return "Starting"
    if start_failure and start_failure.get("consecutiveFailCount") and run_strategy(vm) in (ALWAYS, RERUN_ON_FAILURE):
        return "CrashLoopBackOff"
    return "Stopped"


def claim_names(spec: Mapping[str, Any]) -> list[str]:
    """Return the names of the PersistentVolumeClaims that a VMI's spec uses."""
    return [volume["persistentVolumeClaim"]["claimName"] for volume in spec.get("volumes") or ()
            if (volume.get("persistentVolumeClaim") or {}).get("claimName")]


def with_finalizer(metadata: Mapping[str, Any], present: str, old: str) -> list[str] | None:
    """Return the finalizers with ``present`` in them and the ``old`` spelling gone; None when they are so already."""
    before = list(metadata.get("finalizers") or ())
    after = [name for name in before if name != old]
    if present not in after:
        after.append(present)
    return after if after != before else None


class VMController:
    """Reconciles VirtualMachines; :meth:`reconcile` is called by the workers."""

    def __init__(self, client: Client, vms: Informer, vmis: Informer, pvcs: Informer, recorder: Recorder) -> None:
        self._client, self._vms, self._vmis, self._pvcs, self._recorder = client, vms, vmis, pvcs, recorder
        self._templates: OrderedDict[str, Object | None] = OrderedDict()
        self._templates_lock = threading.Lock()
        #: Uids of VMIs whose end is in their VM's status, by the VM's key.
        self._noted: dict[Key, str] = {}

    def has_noted_end(self, vmi: Object) -> bool:
        """Whether the VM of a VMI has taken note of how that ended, so that it may go. Called by other threads."""
        metadata = vmi["metadata"]
        return bool(self._noted.get((metadata["namespace"], metadata["name"])) == metadata["uid"])

    def reconcile(self, key: Key) -> float | None:
        """Bring one VM closer to its spec; returns seconds after which to look again."""
        vm, vmi = self._vms.get(*key), self._vmis.get(*key)
        if vmi is None:
            self._noted.pop(key, None)
        if vm is None:
            if vmi is not None and is_deleted(vmi):
                self._release(vmi)
            return None
        controller = controller_of(vmi) if vmi is not None else None
        foreign = controller is not None and controller.get("uid") != vm["metadata"]["uid"]
        if is_deleted(vm):
            self._terminate(vm, None if foreign else vmi)
            return None
        if finalizers := with_finalizer(vm["metadata"], labels.VM_FINALIZER, labels.VM_FINALIZER_OLD):
            vm = self._patch_vm(vm, {"metadata": {"finalizers": finalizers}})
        if foreign:
            # Its VM may be on its way out under the same name; otherwise somebody has to decide.
            self._store(vm, None, Plan(), Surroundings(failure=(
                "FailedCreate", f"a VirtualMachineInstance {key[1]} exists that {_named(controller)} controls")))
            return None
        if vmi is not None and controller is None and not is_deleted(vmi):
            vmi = self._adopt(vm, vmi)
        return self._sync(vm, vmi)

    def _sync(self, vm: Object, vmi: Object | None) -> float | None:
        now = datetime.now(UTC)
        decided = plan(vm, vmi, now, random.random())  # noqa: S311
        if decided.create is not None:
            vmi, failure = self._create(vm, decided.create)
            if failure:
                # What was asked for still is.
                requests = (vm.get("status") or {}).get("stateChangeRequests") or ()
                decided = Plan(requests=requests, start_failure=decided.start_failure)
            self._store(vm, vmi, decided, self._around(vm, vmi, _reason(failure)))
            if failure:
                raise failure
            return None
        stored = self._store(vm, vmi, decided, self._around(vm, vmi, None))
        if vmi is not None and decided.delete:
            # Only now: the status says what has to happen once the VMI is gone.
            self._delete(stored, vmi, decided.why)
        if vmi is not None and is_deleted(vmi) and is_final(vmi):
            self._let_go(vmi)
            self._forget_revision(vm, vmi)
        return decided.wait

    def _around(self, vm: Object, vmi: Object | None, failure: tuple[str, str] | None) -> Surroundings:
        namespace = vm["metadata"]["namespace"]
        pvcs = {name: self._pvcs.get(namespace, name) for name in claim_names(_template(vm))}
        return Surroundings(self._started_template(vm, vmi), failure, pvcs)

    # The VMI

    def _create(self, vm: Object, wanted: Object) -> tuple[Object | None, ApiError | None]:
        """Create the VMI; returns it, or what prevented it."""
        name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
        try:
            vmi = self._client.create(VMI, wanted)
        except AlreadyExists as error:
            # The cache was behind.
            existing = self._client.get(VMI, namespace, name)
            self._vmis.observe(existing)
            controller = controller_of(existing)
            if controller is not None and controller.get("uid") == vm["metadata"]["uid"]:
                return existing, None
            return None, error
        except Unavailable:
            raise
        except ApiError as error:
            words = f"Failed to create virtual machine instance: {error.message}"
            self._recorder.event(vm, "Warning", "FailedCreate", remedies.advised(words, remedies.of_refusal(error)))
            return None, error
        self._vmis.observe(vmi)
        log.info("VMI created", extra={"namespace": namespace, "vm": name, "uid": vmi["metadata"]["uid"]})
        self._recorder.event(vm, "Normal", "SuccessfulCreate",
                             f"Started the virtual machine by creating the new virtual machine instance {name}")
        revision = make_revision(vm)
        try:
            self._client.create(CONTROLLERREVISION, revision)
        except AlreadyExists:
            pass
        except ApiError as error:
            log.warning("no revision stored, a later change will not ask for a restart: %s", error,
                        extra={"namespace": namespace, "vm": name})
        self._remember(revision["metadata"]["name"], _template(vm))
        return vmi, None

    def _delete(self, vm: Object, vmi: Object, why: str) -> None:
        metadata = vmi["metadata"]
        try:
            # The version too: a VMI that was orphaned meanwhile, unseen as yet, must stay.
            answer = self._client.delete(VMI, metadata["namespace"], metadata["name"], uid=metadata["uid"],
                                         resource_version=metadata["resourceVersion"])
        except NotFound:
            return
        except Conflict:
            raise  # seen too early: nothing for users, the next look does it
        except ApiError as error:
            self._recorder.event(vm, "Warning", "FailedDelete",
                                 f"Error deleting virtual machine instance {metadata['name']}: {error.message}")
            raise
        if answer.get("kind") == VMI.kind:
            self._vmis.observe(answer)
        log.info("VMI deleted: %s", why, extra={"namespace": metadata["namespace"], "vm": metadata["name"]})
        self._recorder.event(vm, "Normal", "SuccessfulDelete",
                             f"Stopped the virtual machine by deleting the virtual machine instance {metadata['name']}")

    def _adopt(self, vm: Object, vmi: Object) -> Object:
        metadata = {
            "ownerReferences": [*(vmi["metadata"].get("ownerReferences") or ()), owner_reference(vm)],
            "finalizers": [*(vmi["metadata"].get("finalizers") or ()), labels.VM_FINALIZER],
        }
        return self._patch_vmi(vmi, metadata)

    def _let_go(self, vmi: Object) -> None:
        """The VM has taken note of the VMI's end: its controller takes our finalizer with its own, or we do after it.
        """
        metadata = vmi["metadata"]
        self._noted[metadata["namespace"], metadata["name"]] = metadata["uid"]
        theirs = (labels.VMI_FINALIZER, labels.VMI_FINALIZER_OLD)
        if not any(name in theirs for name in metadata.get("finalizers") or ()):
            self._release(vmi)

    def _release(self, vmi: Object, *, orphan_of: str | None = None) -> None:
        """Take our finalizer off a VMI; with ``orphan_of`` also the reference to that VM (uid)."""
        finalizers = list(vmi["metadata"].get("finalizers") or ())
        kept = [name for name in finalizers if name not in (labels.VM_FINALIZER, labels.VM_FINALIZER_OLD)]
        metadata: Object = {"finalizers": kept}
        if orphan_of is not None:
            metadata["ownerReferences"] = [reference for reference in vmi["metadata"].get("ownerReferences") or ()
                                           if reference.get("uid") != orphan_of]
        elif kept == finalizers:
            return
        try:
            self._patch_vmi(vmi, metadata)
        except NotFound:
            return

    def _patch_vmi(self, vmi: Object, changed: Object) -> Object:
        wanted = {**vmi, "metadata": {**vmi["metadata"], **changed}}
        patch = json_diff(vmi, wanted, [("metadata", key) for key in changed])
        if not patch:
            return vmi
        metadata = vmi["metadata"]
        uid = {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]}
        stored = self._client.patch(VMI, metadata["namespace"], metadata["name"], [uid, *patch], kind=JSON)
        self._vmis.observe(stored)
        return stored

    # The VM

    def _terminate(self, vm: Object, vmi: Object | None) -> None:
        """The VM is being deleted: its VMI goes first, unless it is to be left alone."""
        finalizers = vm["metadata"].get("finalizers") or ()
        ours = (labels.VM_FINALIZER, labels.VM_FINALIZER_OLD)
        if not any(name in ours for name in finalizers):
            return
        # The garbage collector may have taken the reference, then the finalizer, before this looks.
        orphaned = _ORPHAN in finalizers or (vmi is not None and controller_of(vmi) is None)
        if vmi is not None and orphaned:
            self._release(vmi, orphan_of=vm["metadata"]["uid"])
        elif vmi is not None:
            stored = self._store(vm, vmi, Plan(), Surroundings())
            if not is_deleted(vmi):
                self._delete(stored, vmi, "the VM is being deleted")
            elif is_final(vmi):
                self._let_go(vmi)
            return
        self._patch_vm(vm, {"metadata": {"finalizers": [name for name in finalizers if name not in ours]}})

    def _store(self, vm: Object, vmi: Object | None, decided: Plan, around: Surroundings) -> Object:
        """Write the VM's status if it changed."""
        before = vm.get("status") or {}
        after = status(vm, vmi, decided, around, datetime.now(UTC))
        patch = merge_diff(before, after)
        return self._patch_vm(vm, {"status": patch}, subresource="status") if patch else vm

    def _patch_vm(self, vm: Object, patch: Object, subresource: str | None = None) -> Object:
        metadata = vm["metadata"]
        guarded = {**patch, "metadata": {**patch.get("metadata", {}), "resourceVersion": metadata["resourceVersion"],
                                         "uid": metadata["uid"]}}
        stored = self._client.patch(VM, metadata["namespace"], metadata["name"], guarded, subresource=subresource)
        self._vms.observe(stored)
        return stored

    # What a VMI was started with

    def _started_template(self, vm: Object, vmi: Object | None) -> Object | None:
        """Return the template a VMI was made from when it may differ from the VM's, else None."""
        if vmi is None or (generation := started_generation(vmi)) is None:
            return None
        if generation == int(vm["metadata"].get("generation") or 0):
            return None
        name = revision_name(vm, generation)
        with self._templates_lock:
            if name in self._templates:
                return self._templates[name]
        try:
            revision = self._client.get(CONTROLLERREVISION, vm["metadata"]["namespace"], name)
        except NotFound:
            return None
        spec = (revision.get("data") or {}).get("spec") or {}
        template = (spec.get("template") or {}).get("spec") or {}
        self._remember(name, template)
        return dict(template)

    def _remember(self, name: str, template: Mapping[str, Any]) -> None:
        with self._templates_lock:
            self._templates[name] = dict(template)
            if len(self._templates) > _REMEMBERED_TEMPLATES:
                self._templates.popitem(last=False)

    def _forget_revision(self, vm: Object, vmi: Object) -> None:
        """Delete the revision of a VMI that is gone, unless the next VMI starts from the same generation."""
        generation = started_generation(vmi)
        if generation is None or generation == int(vm["metadata"].get("generation") or 0):
            return
        try:
            self._client.delete(CONTROLLERREVISION, vm["metadata"]["namespace"], revision_name(vm, generation))
        except NotFound:
            return


def _reason(error: ApiError | None) -> tuple[str, str] | None:
    return ("FailedCreate", error.message) if error else None


def _named(reference: Mapping[str, Any] | None) -> str:
    return f"{(reference or {}).get('kind')} {(reference or {}).get('name')}"
