# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachine → VirtualMachineInstance: reads the caches, asks plan and status, and writes what they say."""

import logging
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from turtles.api import labels
from turtles.api.conditions import condition_of
from turtles.api.objects import Object, annotations_of, controller_of, get, is_deleted
from turtles.api.phases import is_final
from turtles.api.run_strategies import ALWAYS, HALTED, run_strategy
from turtles.controller.caches import users_of_claim, users_of_data_volume
from turtles.controller.claims import claim_names
from turtles.controller.finalizers import VM_FINALIZERS, with_finalizer
from turtles.controller.noted_ends import NotedEnds
from turtles.controller.shared import Shared
from turtles.controller.vm import live_update
from turtles.controller.vm.data_volumes import DataVolumes, Disks
from turtles.controller.vm.instancetypes import InstancetypeError, Instancetypes
from turtles.controller.vm.live_changes import LiveChanges
from turtles.controller.vm.mac_pool import MacPool, MacPoolError, Range
from turtles.controller.vm.own_instance import OwnInstance
from turtles.controller.vm.plan import Plan, plan
from turtles.controller.vm.revision import Revisions, is_current, template_of
from turtles.controller.vm.status import FAILED_CREATE, NOT_ADOPTED, Context, status
from turtles.kube.client import ApiError
from turtles.kube.informer import Key
from turtles.kube.manager import Controller, Trigger, each
from turtles.log import about

log = logging.getLogger(__name__)

_ORPHAN = "orphan"
#: Why a VM isn't started whose interfaces get no MAC address, and seconds until that is looked at again.
NO_MAC, _LOOK_AGAIN = "NoFreeMACAddress", 30.0
#: Seconds after which DataVolumes that were refused are tried again.
_RETRY_DISKS = 10.0


class VMController:
    """Reconciles VirtualMachines."""

    def __init__(self, shared: Shared, noted_ends: NotedEnds, macs: Range | None = None) -> None:
        """Make the controller.

        :param macs: interfaces get addresses of this range.
        :param noted_ends: told of VMIs whose end is in their VM's status, so that they may go.
        """
        caches = shared.caches
        self._recorder, self._noted_ends = shared.recorder, noted_ends
        self._configuration = shared.configuration
        self._vms, self._vmis, self._pods, self._pvcs = caches.vms, caches.vmis, caches.pods, caches.pvcs
        self._macs = MacPool(macs, caches.has_mac) if macs is not None else None
        self._revisions = Revisions(shared.client)
        self._instancetypes = Instancetypes(shared.client, shared.configuration)
        self._writer = shared.writer
        self._changes = LiveChanges(shared.client, caches, self._instancetypes)
        self._own = OwnInstance(
            shared.client, caches, shared.recorder, noted_ends, self._instancetypes, self._revisions
        )
        self._data_volumes, self._disks = caches.data_volumes, DataVolumes(shared.client, caches, shared.recorder)

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
                self._own.release(vmi)
            return None
        controller = controller_of(vmi) if vmi is not None else None
        foreign = controller is not None and controller.get("uid") != vm["metadata"]["uid"]
        if is_deleted(vm):
            self._terminate(vm, None if foreign else vmi)
            return None
        if metadata := _missing_metadata(vm):
            vm = self._writer.patch(self._vms, vm, {"metadata": metadata})
        if foreign:
            # Its VM may be on its way out under the same name; otherwise somebody has to decide.
            message = f"VirtualMachineInstance {key[1]} already exists and is controlled by {_named(controller)}"
            self._leave_alone(vm, FAILED_CREATE, message)
            return None
        if vmi is not None and controller is None and not is_deleted(vmi):
            if run_strategy(vm) == HALTED:
                message = (
                    f"VirtualMachineInstance {key[1]} already exists without a controller; it isn't adopted, as the "
                    f"VirtualMachine is halted and would shut it down. Start the VirtualMachine to adopt it, or "
                    "delete the VirtualMachineInstance"
                )
                self._leave_alone(vm, NOT_ADOPTED, message)
                return None
            vmi = self._own.adopt(vm, vmi)
            if vmi is None:
                return None
        return self._sync(vm, vmi)

    def _leave_alone(self, vm: Object, reason: str, message: str) -> None:
        """Report that there is a VMI of the VM's name which isn't the VM's."""
        said = condition_of(vm, "Failure") or {}
        if said.get("message") != message:
            self._recorder.event(vm, "Warning", reason, message)
        self._store(vm, None, Plan(), Context(failure=(reason, message)))

    def _sync(self, vm: Object, vmi: Object | None) -> float | None:
        now = datetime.now(UTC)
        configuration = self._configuration()
        vm, vmi = self._changes.dump_memory(vm, vmi, now)
        follows = configuration.live_update and live_update.can_follow(vmi)
        vm = self._changes.remove_unplugged(vm, vmi, follows=follows)
        if self._macs is not None:
            try:
                vm = self._changes.allot_macs(vm, vmi, self._macs)
            except MacPoolError as error:
                self._leave_alone(vm, NO_MAC, str(error))
                return _LOOK_AGAIN
        try:
            expanded = self._instancetypes.expanded
            outdated, why = self._revisions.is_outdated(vm, vmi, configuration, expanded, follows=follows), ""
            if vmi is not None and follows and not outdated and not is_current(vm, vmi):
                vm, vmi, why = self._changes.follow(vm, vmi, configuration)
                outdated = bool(why)
        except InstancetypeError as error:
            outdated, why = True, error.message
        disks = self._disks.sync(vm)
        decided = plan(vm, vmi, now, random.random(), outdated=outdated, held=not disks.are_ready)  # noqa: S311
        if decided.run_always:
            field = {"running": True} if vm["spec"].get("running") is not None else {"runStrategy": ALWAYS}
            return self._sync(self._writer.patch(self._vms, vm, {"spec": field}), vmi)
        if decided.create is not None:
            vm, vmi, failure = self._own.start(vm, decided.create)
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
            self._own.delete(stored, vmi, decided.why)
        if vmi is not None and is_deleted(vmi) and is_final(vmi):
            self._own.let_go(vm, vmi)
        return _RETRY_DISKS if disks.missing else decided.wait

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
            self._own.release(vmi, orphan_of=vm)
        elif vmi is not None:
            stored = self._store(vm, vmi, Plan(), Context())
            if not is_deleted(vmi):
                self._own.delete(stored, vmi, "the VM is being deleted")
            elif is_final(vmi):
                self._own.let_go(vm, vmi)
            return
        left = [name for name in finalizers if name not in VM_FINALIZERS]
        self._writer.patch(self._vms, vm, {"metadata": {"finalizers": left}})

    def _store(self, vm: Object, vmi: Object | None, decided: Plan, around: Context) -> Object:
        """Write the VM's status if it changed."""
        stored = self._writer.store_status(self._vms, vm, status(vm, vmi, decided, around, datetime.now(UTC)))
        before, now = (get(obj, "status", "printableStatus") for obj in (vm, stored))
        if now != before:
            log.info("status changed", extra=about("vm", vm, status=now))
        return stored


def _missing_metadata(vm: Object) -> Object:
    """Return what admission gives new VMs and this one hasn't, from before or from an older engine."""
    missing: Object = {}
    if finalizers := with_finalizer(vm["metadata"], labels.VM_FINALIZER, labels.VM_FINALIZER_OLD):
        missing["finalizers"] = finalizers
    annotations = annotations_of(vm)
    if observed := {key: value for key, value in labels.OBSERVED_VERSIONS.items() if annotations.get(key) != value}:
        missing["annotations"] = observed
    return missing


def _reason(error: ApiError | None) -> tuple[str, str] | None:
    if error is None:
        return None
    return error.reason if isinstance(error, InstancetypeError) else FAILED_CREATE, error.message


def _named(reference: Mapping[str, Any] | None) -> str:
    return f"{(reference or {}).get('kind')} {(reference or {}).get('name')}"
