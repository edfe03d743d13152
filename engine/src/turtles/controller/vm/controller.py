# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachine → VirtualMachineInstance: reads the caches, asks plan and status, and writes what they say."""

import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from turtles.api import labels
from turtles.api.conditions import get_condition
from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import HOTPLUG_VOLUMES
from turtles.api.kinds.instancetype.expansion import has_matchers
from turtles.api.kinds.instancetype.matchers import instance_annotations, instance_annotations_of
from turtles.api.objects import Object, controller_of, is_deleted
from turtles.api.phases import is_final
from turtles.api.run_strategies import ALWAYS, HALTED, run_strategy
from turtles.api.times import rfc3339
from turtles.controller import remedies
from turtles.controller.caches import BY_OWNER, Caches, users_of_claim, users_of_data_volume
from turtles.controller.changes import merge_diff
from turtles.controller.claims import claim_names
from turtles.controller.finalizers import VM_FINALIZERS, VMI_FINALIZERS, with_finalizer
from turtles.controller.instances import STOPPED, Instances
from turtles.controller.noted_ends import NotedEnds
from turtles.controller.ownership import references_with, references_without
from turtles.controller.vm import interfaces, larger_pod, live_update, memory_dump
from turtles.controller.vm.data_volumes import DataVolumes, Disks
from turtles.controller.vm.instancetypes import InstancetypeError, Instancetypes
from turtles.controller.vm.mac_pool import MacPool, MacPoolError, Range
from turtles.controller.vm.plan import Plan, instance_of, plan
from turtles.controller.vm.revision import Revisions, is_current, template_of, wanted_spec
from turtles.controller.vm.status import FAILED_CREATE, NOT_ADOPTED, Context, status
from turtles.kube.client import AlreadyExists, ApiError, Client, NotFound, Unavailable
from turtles.kube.events import Recorder
from turtles.kube.informer import Key
from turtles.kube.kubevirt import VM, VMI
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.resources import PVC

log = logging.getLogger(__name__)

_ORPHAN = "orphan"
#: Why a VM isn't started whose interfaces get no MAC address, and seconds until that is looked at again.
NO_MAC, _LOOK_AGAIN = "NoFreeMACAddress", 30.0
#: Seconds after which DataVolumes that were refused are tried again.
_RETRY_DISKS = 10.0


class VMController:
    """Reconciles VirtualMachines."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        recorder: Recorder,
        configuration: Callable[[], ClusterConfiguration],
        noted_ends: NotedEnds,
        macs: Range | None = None,
    ) -> None:
        """Make the controller.

        :param macs: interfaces get addresses of this range.
        :param configuration: gives the configuration in force.
        :param noted_ends: told of VMIs whose end is in their VM's status, so that they may go.
        """
        self._client, self._recorder, self._noted_ends = client, recorder, noted_ends
        self._configuration = configuration
        self._vms, self._vmis, self._pods, self._pvcs = caches.vms, caches.vmis, caches.pods, caches.pvcs
        self._macs = MacPool(macs, caches.has_mac) if macs is not None else None
        self._revisions = Revisions(client)
        self._instancetypes = Instancetypes(client, configuration)
        self._instances = Instances(client, caches.vmis, recorder)
        self._data_volumes, self._disks = caches.data_volumes, DataVolumes(client, caches, recorder)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        # A VM's VMI has its name
        triggers = (
            each(self._vms),
            each(self._vmis),
            Trigger(self._pvcs, self._by_claim),
            Trigger(self._data_volumes, lambda old, new: users_of_data_volume(self._vms, old, new)),
        )
        return Controller("vm", self.reconcile, triggers, reads=(self._pods,), workers=2)

    def _by_claim(self, old: Object | None, new: Object | None) -> list[Key]:
        return users_of_claim(self._vms, old, new)

    def reconcile(self, key: Key) -> float | None:
        """Bring one VM closer to its spec; returns seconds after which to look again."""
        vm, vmi = self._vms.get(*key), self._vmis.get(*key)
        if vmi is None:
            self._noted_ends.forget(key)
        if vm is None:
            if vmi is not None and is_deleted(vmi):
                self._release(vmi)
            return None
        controller = controller_of(vmi) if vmi is not None else None
        foreign = controller is not None and controller.get("uid") != vm["metadata"]["uid"]
        if is_deleted(vm):
            self._terminate(vm, None if foreign else vmi)
            return None
        if metadata := _missing_metadata(vm):
            vm = self._patch_vm(vm, {"metadata": metadata})
        if foreign:
            # Its VM may be on its way out under the same name; otherwise somebody has to decide.
            message = f"a VirtualMachineInstance {key[1]} exists that {_named(controller)} controls"
            self._leave_alone(vm, FAILED_CREATE, message)
            return None
        if vmi is not None and controller is None and not is_deleted(vmi):
            if run_strategy(vm) == HALTED:
                message = (
                    f"a VirtualMachineInstance {key[1]} exists that nothing controls; it isn't adopted, because the "
                    f"VirtualMachine is halted and would shut it down. Start the VirtualMachine to adopt it, or "
                    "delete the VirtualMachineInstance"
                )
                self._leave_alone(vm, NOT_ADOPTED, message)
                return None
            vmi = self._adopt(vm, vmi)
            if vmi is None:
                return None
        return self._sync(vm, vmi)

    def _leave_alone(self, vm: Object, reason: str, message: str) -> None:
        """Report that there is a VMI of the VM's name which isn't the VM's."""
        said = get_condition((vm.get("status") or {}).get("conditions"), "Failure") or {}
        if said.get("message") != message:
            self._recorder.event(vm, "Warning", reason, message)
        self._store(vm, None, Plan(), Context(failure=(reason, message)))

    def _sync(self, vm: Object, vmi: Object | None) -> float | None:
        now = datetime.now(UTC)
        configuration = self._configuration()
        vm, vmi = self._dump_memory(vm, vmi, now)
        follows = configuration.live_update and live_update.can_follow(vmi)
        vm = self._remove_unplugged(vm, vmi, follows=follows)
        if self._macs is not None:
            try:
                vm = self._allot_macs(vm, vmi, self._macs)
            except MacPoolError as error:
                self._leave_alone(vm, NO_MAC, str(error))
                return _LOOK_AGAIN
        try:
            expanded = self._instancetypes.expanded
            outdated, why = self._revisions.is_outdated(vm, vmi, configuration, expanded, follows=follows), ""
            if vmi is not None and follows and not outdated and not is_current(vm, vmi):
                vm, vmi, why = self._follow(vm, vmi, configuration)
                outdated = bool(why)
        except InstancetypeError as error:
            outdated, why = True, error.message
        disks = self._disks.sync(vm)
        decided = plan(vm, vmi, now, random.random(), outdated=outdated, held=not disks.are_ready)  # noqa: S311
        if decided.run_always:
            field = {"running": True} if vm["spec"].get("running") is not None else {"runStrategy": ALWAYS}
            return self._sync(self._patch_vm(vm, {"spec": field}), vmi)
        if decided.create is not None:
            vm, vmi, failure = self._start(vm, decided.create)
            if failure:
                # What was asked for still is.
                requests = (vm.get("status") or {}).get("stateChangeRequests") or ()
                decided = Plan(requests=requests, start_failure=decided.start_failure)
            self._store(vm, vmi, decided, self._context(vm, disks, failure=_reason(failure)))
            if failure:
                raise failure
            return None
        around = self._context(vm, disks, outdated=outdated, why=why, failure=disks.failure)
        stored = self._store(vm, vmi, decided, around)
        if vmi is not None and decided.delete:
            # Only now: the status says what has to happen once the VMI is gone.
            self._delete(stored, vmi, decided.why)
        if vmi is not None and is_deleted(vmi) and is_final(vmi):
            self._let_go(vm, vmi)
        return _RETRY_DISKS if disks.missing else decided.wait

    def _follow(self, vm: Object, vmi: Object, configuration: ClusterConfiguration) -> tuple[Object, Object, str]:
        """Change a running VMI to what its VM asks for now.

        :return: the VM, whose status names what is in use; the VMI; and why it can't follow without a restart.
        :raises InstancetypeError: something that the VM names doesn't exist, or conflicts with it.
        """
        sized = has_matchers(vm)
        spec = self._instancetypes.expanded(vm) if sized else None
        volumes = configuration.has_gate(HOTPLUG_VOLUMES)
        update = live_update.update(vmi, wanted_spec(vm, configuration, spec), volumes=volumes)
        if update.restart:
            return vm, vmi, update.restart
        short = larger_pod.shortage(vmi, self._pods.by_index(BY_OWNER, vmi["metadata"]["uid"]), update.patch)
        if short and not larger_pod.can_be_had(vmi, configuration):
            return vm, vmi, f"memory can't be added to the running guest: {short}"
        patch: Object = {"spec": update.patch} if update.patch else {}
        if short:
            patch["status"] = {"conditions": larger_pod.needed(vmi, short, rfc3339(datetime.now(UTC)))}
        annotations = {
            **merge_diff(instance_annotations_of(vmi), instance_annotations(vm)),
            **(update.annotations or {}),
        }
        if annotations:
            patch["metadata"] = {"annotations": annotations}
        # What is in use from now on is stored: the objects may change.
        if sized and (changes := self._instancetypes.complete(vm, instance_of(vm))):
            vm = self._patch_vm(vm, {"status": changes}, subresource="status")
        return vm, self._patch_vmi(vmi, patch) if patch else vmi, ""

    def _allot_macs(self, vm: Object, vmi: Object | None, pool: MacPool) -> Object:
        """Give interfaces addresses of the pool, and return the VM.

        :raises MacPoolError: none is free.
        """
        with pool.lock:
            completed = pool.completed(vm, vmi)
            if completed is None:
                return vm
            patch = {"domain": {"devices": {"interfaces": completed}}}
            return self._patch_vm(vm, {"spec": {"template": {"spec": patch}}})

    def _remove_unplugged(self, vm: Object, vmi: Object | None, *, follows: bool) -> Object:
        """Remove interfaces from the template that were unplugged, and return the VM."""
        if vmi is not None and not follows:
            return vm  # its guest may still have them
        patch = interfaces.without_unplugged(template_of(vm), vmi)
        return vm if patch is None else self._patch_vm(vm, {"spec": {"template": {"spec": patch}}})

    def _dump_memory(self, vm: Object, vmi: Object | None, now: datetime) -> tuple[Object, Object | None]:
        """Bring a memory dump one step further; return the machine and its instance as they are then."""
        step = memory_dump.step(vm, vmi, rfc3339(now))
        if step is None:
            return vm, vmi
        request = vm["status"]["memoryDumpRequest"]
        if step.annotation:
            self._annotate_claim(vm["metadata"]["namespace"], request["claimName"], step.annotation)
        if step.template is not None:
            vm = self._patch_vm(vm, {"spec": {"template": {"spec": {"volumes": step.template}}}})
        if step.instance is not None and vmi is not None:
            vmi = self._patch_vmi(vmi, {"spec": {"volumes": step.instance}})
        if step.request != request:
            change = None if step.request is None else merge_diff(request, step.request)
            vm = self._patch_vm(vm, {"status": {"memoryDumpRequest": change}}, subresource="status")
        return vm, vmi

    def _annotate_claim(self, namespace: str, name: str, text: str) -> None:
        """Say on a claim which of its files is the memory."""
        pvc = self._pvcs.get(namespace, name)
        if pvc is None or (pvc["metadata"].get("annotations") or {}).get(memory_dump.ANNOTATION) == text:
            return
        patch = {"metadata": {"annotations": {memory_dump.ANNOTATION: text}}}
        with contextlib.suppress(NotFound):
            self._pvcs.observe(self._client.patch(PVC, namespace, name, patch))

    def _context(
        self,
        vm: Object,
        disks: Disks,
        *,
        outdated: bool = False,
        why: str = "",
        failure: tuple[str, str] | None = None,
    ) -> Context:
        namespace = vm["metadata"]["namespace"]
        pvcs = {name: self._pvcs.get(namespace, name) for name in claim_names(template_of(vm))}
        return Context(outdated, why, failure, pvcs, disks.data_volumes)

    def _patch_vmi(self, vmi: Object, patch: Object) -> Object:
        """Change a VMI that is still what it was."""
        metadata = vmi["metadata"]
        identity = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
        guarded = {**patch, "metadata": {**patch.get("metadata", {}), **identity}}
        stored = self._client.patch(VMI, metadata["namespace"], metadata["name"], guarded)
        self._vmis.observe(stored)
        log.info("VMI changed", extra={"namespace": metadata["namespace"], "vm": metadata["name"], "change": patch})
        return stored

    # The VMI

    def _start(self, vm: Object, wanted: Object) -> tuple[Object, Object | None, ApiError | None]:
        """Create the VMI, with what the VM has from an instance type and a preference.

        :return: the VM, whose status names what is in use before anything uses it; the VMI, or what prevented it.
        """
        try:
            changes = self._instancetypes.complete(vm, wanted)
        except InstancetypeError as error:
            self._recorder.event(vm, "Warning", error.reason, error.message)
            return vm, None, error
        if changes:
            vm = self._patch_vm(vm, {"status": changes}, subresource="status")
        return vm, *self._create(vm, wanted)

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
        self._recorder.event(
            vm,
            "Normal",
            "SuccessfulCreate",
            f"Started the virtual machine by creating the new virtual machine instance {name}",
        )
        self._revisions.store(vm)
        return vmi, None

    def _delete(self, vm: Object, vmi: Object, why: str) -> None:
        if self._instances.delete(vm, vmi, STOPPED):
            metadata = vmi["metadata"]
            log.info("VMI deleted: %s", why, extra={"namespace": metadata["namespace"], "vm": metadata["name"]})

    def _adopt(self, vm: Object, vmi: Object) -> Object | None:
        """Take a VMI that nothing controls; None if the VM is on its way out, which the cache may not show yet."""
        if not self._instances.may_be_adopted_by(VM, vm):
            return None
        metadata = vm["metadata"]
        self._revisions.hand_over(vm, vmi)
        # The generation is that of another VM.
        annotations = dict(vmi["metadata"].get("annotations") or {})
        annotations.pop(labels.VM_GENERATION, None)
        finalizers = list(vmi["metadata"].get("finalizers") or ())
        if labels.VM_FINALIZER not in finalizers:
            finalizers.append(labels.VM_FINALIZER)
        adopted = self._instances.patch_metadata(
            vmi,
            {
                "ownerReferences": references_with(vmi, vm),
                "finalizers": finalizers,
                "annotations": annotations,
            },
        )
        log.info("VMI adopted", extra={"namespace": metadata["namespace"], "vm": metadata["name"]})
        self._recorder.event(
            vm, "Normal", "SuccessfulAdopt", f"Adopted the virtual machine instance {metadata['name']}, which runs on"
        )
        return adopted

    def _let_go(self, vm: Object, vmi: Object) -> None:
        """The VM has noted the VMI's end: the VMI's controller takes our finalizer with its own, or we do after it."""
        metadata = vmi["metadata"]
        if vmi not in self._noted_ends:
            self._revisions.forget(vm, vmi)
            self._noted_ends.add(vmi)
        if not any(name in VMI_FINALIZERS for name in metadata.get("finalizers") or ()):
            self._release(vmi)

    def _release(self, vmi: Object, *, orphan_of: Object | None = None) -> None:
        """Take our finalizer off a VMI; with ``orphan_of`` also the reference to that VM."""
        finalizers = list(vmi["metadata"].get("finalizers") or ())
        metadata: Object = {"finalizers": [name for name in finalizers if name not in VM_FINALIZERS]}
        if orphan_of is not None:
            metadata["ownerReferences"] = references_without(vmi, orphan_of)
        with contextlib.suppress(NotFound):
            self._instances.patch_metadata(vmi, metadata)

    # The VM

    def _terminate(self, vm: Object, vmi: Object | None) -> None:
        """The VM is being deleted: its VMI goes first, unless it is to be left alone."""
        finalizers = vm["metadata"].get("finalizers") or ()
        if not any(name in VM_FINALIZERS for name in finalizers):
            return
        # The garbage collector may have taken the reference, then the finalizer, before this looks.
        orphaned = _ORPHAN in finalizers or (vmi is not None and controller_of(vmi) is None)
        if vmi is not None and orphaned:
            self._revisions.hand_over(vm, vmi)
            self._release(vmi, orphan_of=vm)
        elif vmi is not None:
            stored = self._store(vm, vmi, Plan(), Context())
            if not is_deleted(vmi):
                self._delete(stored, vmi, "the VM is being deleted")
            elif is_final(vmi):
                self._let_go(vm, vmi)
            return
        self._patch_vm(vm, {"metadata": {"finalizers": [name for name in finalizers if name not in VM_FINALIZERS]}})

    def _store(self, vm: Object, vmi: Object | None, decided: Plan, around: Context) -> Object:
        """Write the VM's status if it changed."""
        before = vm.get("status") or {}
        after = status(vm, vmi, decided, around, datetime.now(UTC))
        patch = merge_diff(before, after)
        return self._patch_vm(vm, {"status": patch}, subresource="status") if patch else vm

    def _patch_vm(self, vm: Object, patch: Object, subresource: str | None = None) -> Object:
        metadata = vm["metadata"]
        guarded = {
            **patch,
            "metadata": {
                **patch.get("metadata", {}),
                "resourceVersion": metadata["resourceVersion"],
                "uid": metadata["uid"],
            },
        }
        stored = self._client.patch(VM, metadata["namespace"], metadata["name"], guarded, subresource=subresource)
        self._vms.observe(stored)
        return stored


def _missing_metadata(vm: Object) -> Object:
    """Return what admission gives new VMs and this one hasn't, from before or from an older engine."""
    missing: Object = {}
    if finalizers := with_finalizer(vm["metadata"], labels.VM_FINALIZER, labels.VM_FINALIZER_OLD):
        missing["finalizers"] = finalizers
    annotations = vm["metadata"].get("annotations") or {}
    if observed := {key: value for key, value in labels.OBSERVED_VERSIONS.items() if annotations.get(key) != value}:
        missing["annotations"] = observed
    return missing


def _reason(error: ApiError | None) -> tuple[str, str] | None:
    if error is None:
        return None
    return error.reason if isinstance(error, InstancetypeError) else FAILED_CREATE, error.message


def _named(reference: Mapping[str, Any] | None) -> str:
    return f"{(reference or {}).get('kind')} {(reference or {}).get('name')}"
