# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings changes of a VirtualMachine to its running instance, and what happened there back into its template."""

import contextlib
import logging
from datetime import UTC, datetime

from turtles.api import labels
from turtles.api.changes import merge_diff
from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import HOTPLUG_VOLUMES
from turtles.api.kinds.instancetype.expansion import has_matchers
from turtles.api.kinds.instancetype.matchers import instance_annotations, instance_annotations_of
from turtles.api.objects import Object, annotations_of
from turtles.api.times import rfc3339
from turtles.controller.caches import BY_OWNER, Caches
from turtles.controller.vm import interfaces, larger_pod, live_update, memory_dump
from turtles.controller.vm.instancetypes import Instancetypes
from turtles.controller.vm.mac_pool import MacPool
from turtles.controller.vm.plan import instance_of
from turtles.controller.vm.revision import template_of, wanted_spec
from turtles.kube.client import Client, NotFound
from turtles.kube.writer import Writer

log = logging.getLogger(__name__)


class LiveChanges:
    """Changes to VirtualMachines that may run."""

    def __init__(self, client: Client, caches: Caches, instancetypes: Instancetypes) -> None:
        self._instancetypes, self._writer = instancetypes, Writer(client)
        self._vms, self._vmis, self._pods, self._pvcs = caches.vms, caches.vmis, caches.pods, caches.pvcs

    def follow(self, vm: Object, vmi: Object, configuration: ClusterConfiguration) -> tuple[Object, Object, str]:
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
            vm = self._writer.patch(self._vms, vm, {"status": changes}, subresource="status")
        return vm, self._change(vmi, patch) if patch else vmi, ""

    def allot_macs(self, vm: Object, vmi: Object | None, pool: MacPool) -> Object:
        """Give interfaces addresses of the pool, and return the VM.

        :raises MacPoolError: none is free.
        """
        with pool.lock:
            completed = pool.completed(vm, vmi)
            if completed is None:
                return vm
            patch = {"domain": {"devices": {"interfaces": completed}}}
            return self._writer.patch(self._vms, vm, {"spec": {"template": {"spec": patch}}})

    def remove_unplugged(self, vm: Object, vmi: Object | None, *, follows: bool) -> Object:
        """Remove interfaces from the template that were unplugged, and return the VM."""
        if vmi is not None and not follows:
            return vm  # its guest may still have them
        patch = interfaces.without_unplugged(template_of(vm), vmi)
        return vm if patch is None else self._writer.patch(self._vms, vm, {"spec": {"template": {"spec": patch}}})

    def dump_memory(self, vm: Object, vmi: Object | None, now: datetime) -> tuple[Object, Object | None]:
        """Bring a memory dump one step further; return the machine and its instance as they are then."""
        step = memory_dump.step(vm, vmi, rfc3339(now))
        if step is None:
            return vm, vmi
        request = vm["status"]["memoryDumpRequest"]
        if step.annotation:
            self._annotate_claim(vm["metadata"]["namespace"], request["claimName"], step.annotation)
        if step.template is not None:
            vm = self._writer.patch(self._vms, vm, {"spec": {"template": {"spec": {"volumes": step.template}}}})
        if step.instance is not None and vmi is not None:
            vmi = self._change(vmi, {"spec": {"volumes": step.instance}})
        if step.request != request:
            change = None if step.request is None else merge_diff(request, step.request)
            vm = self._writer.patch(self._vms, vm, {"status": {"memoryDumpRequest": change}}, subresource="status")
        return vm, vmi

    def _annotate_claim(self, namespace: str, name: str, text: str) -> None:
        """Say on a claim which of its files is the memory."""
        pvc = self._pvcs.get(namespace, name)
        if pvc is None or annotations_of(pvc).get(labels.MEMORY_DUMP) == text:
            return
        patch = {"metadata": {"annotations": {labels.MEMORY_DUMP: text}}}
        with contextlib.suppress(NotFound):
            self._writer.patch(self._pvcs, pvc, patch, unchanged=False)

    def _change(self, vmi: Object, patch: Object) -> Object:
        stored = self._writer.patch(self._vmis, vmi, patch)
        log.info("VMI changed", extra={**{key: vmi["metadata"][key] for key in ("namespace", "name")}, "change": patch})
        return stored
