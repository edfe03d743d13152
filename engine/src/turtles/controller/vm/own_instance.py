# SPDX-License-Identifier: GPL-3.0-or-later
"""Creates, adopts, deletes and releases the instances of VirtualMachines."""

import contextlib
import logging

from turtles.api import labels
from turtles.api.objects import Object, annotations_of, controller_of
from turtles.controller import remedies
from turtles.controller.caches import Caches
from turtles.controller.finalizers import VM_FINALIZERS, VMI_FINALIZERS
from turtles.controller.instances import STOPPED, Instances
from turtles.controller.noted_ends import NotedEnds
from turtles.controller.ownership import references_with, references_without
from turtles.controller.vm.instancetypes import InstancetypeError, Instancetypes
from turtles.controller.vm.revision import Revisions
from turtles.kube.client import AlreadyExists, ApiError, Client, NotFound, Unavailable
from turtles.kube.events import Recorder
from turtles.kube.kubevirt import VM, VMI
from turtles.kube.writer import Writer
from turtles.log import about

log = logging.getLogger(__name__)


class OwnInstance:
    """The instance that a VirtualMachine controls."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        recorder: Recorder,
        noted_ends: NotedEnds,
        instancetypes: Instancetypes,
        revisions: Revisions,
    ) -> None:
        self._client, self._writer, self._recorder, self._noted_ends = client, Writer(client), recorder, noted_ends
        self._instancetypes, self._revisions = instancetypes, revisions
        self._vms, self._vmis = caches.vms, caches.vmis
        self._instances = Instances(client, caches.vmis, recorder)

    def start(self, vm: Object, wanted: Object) -> tuple[Object, Object | None, ApiError | None]:
        """Create the VMI, with what the VM has from an instance type and a preference.

        :return: the VM, whose status names what is in use before anything uses it; the VMI, or what prevented it.
        """
        try:
            changes = self._instancetypes.complete(vm, wanted)
        except InstancetypeError as error:
            self._recorder.event(vm, "Warning", error.reason, error.message)
            return vm, None, error
        if changes:
            vm = self._writer.patch(self._vms, vm, {"status": changes}, subresource="status")
        return vm, *self._create(vm, wanted)

    def _create(self, vm: Object, wanted: Object) -> tuple[Object | None, ApiError | None]:
        """Create the VMI; returns it, or what prevented it."""
        name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
        try:
            vmi = self._writer.create(self._vmis, wanted)
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
        log.info("VMI created", extra={"namespace": namespace, "vm": name, "uid": vmi["metadata"]["uid"]})
        self._recorder.event(
            vm,
            "Normal",
            "SuccessfulCreate",
            f"Started the virtual machine by creating the new virtual machine instance {name}",
        )
        self._revisions.store(vm)
        return vmi, None

    def delete(self, vm: Object, vmi: Object, why: str) -> None:
        """Delete the VMI, for a reason that the log gets."""
        if self._instances.delete(vm, vmi, STOPPED):
            log.info("VMI deleted: %s", why, extra=about("vm", vmi))

    def adopt(self, vm: Object, vmi: Object) -> Object | None:
        """Take a VMI that nothing controls; None if the VM is on its way out, which the cache may not show yet."""
        if not self._instances.may_be_adopted_by(VM, vm):
            return None
        metadata = vm["metadata"]
        self._revisions.hand_over(vm, vmi)
        # The generation is that of another VM.
        annotations = dict(annotations_of(vmi))
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
        log.info("VMI adopted", extra=about("vm", vmi))
        self._recorder.event(
            vm, "Normal", "SuccessfulAdopt", f"Adopted the running virtual machine instance {metadata['name']}"
        )
        return adopted

    def let_go(self, vm: Object, vmi: Object) -> None:
        """The VM has noted the VMI's end: the VMI's controller takes our finalizer with its own, or we do after it."""
        metadata = vmi["metadata"]
        if vmi not in self._noted_ends:
            self._revisions.forget(vm, vmi)
            self._noted_ends.add(vmi)
        if not any(name in VMI_FINALIZERS for name in metadata.get("finalizers") or ()):
            self.release(vmi)

    def release(self, vmi: Object, *, orphan_of: Object | None = None) -> None:
        """Take our finalizer off a VMI; with ``orphan_of`` also the reference to that VM."""
        finalizers = list(vmi["metadata"].get("finalizers") or ())
        metadata: Object = {"finalizers": [name for name in finalizers if name not in VM_FINALIZERS]}
        if orphan_of is not None:
            metadata["ownerReferences"] = references_without(vmi, orphan_of)
        with contextlib.suppress(NotFound):
            self._instances.patch_metadata(vmi, metadata)
