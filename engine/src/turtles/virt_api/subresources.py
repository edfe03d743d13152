# SPDX-License-Identifier: GPL-3.0-or-later
"""Handlers of subresources, by the names under which kinds refer to them.

Rules: KubeVirt user guide, "Run strategies", and the KubeVirt API. They read what is stored and write patches that
only apply to what they have read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from turtles.api import times
from turtles.api.conditions import TERMINATING, is_true, set_condition
from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.kinds.vm import VM as VM_KIND
from turtles.api.kinds.vmi import VMI as VMI_KIND
from turtles.api.objects import Object, get, own
from turtles.api.phases import FAILED, FINAL_PHASES, RUNNING, is_final, phase_of
from turtles.api.run_strategies import ALWAYS, HALTED, MANUAL, ONCE, RERUN_ON_FAILURE, START, STOP, run_strategy
from turtles.kube.client import MERGE, ApiError, Client, NotFound
from turtles.kube.kubevirt import MIGRATION, VM, VMI
from turtles.kube.lookup import Lookup
from turtles.kube.resources import PVC, Resource
from turtles.virt_api import memory_dump, volumes
from turtles.virt_api.attestation import Attestation
from turtles.virt_api.expansion import Expansion
from turtles.virt_api.instances import VM_NOT_RUNNING, VMI_NOT_RUNNING, Instances, checked, fetch_machine, retried
from turtles.virt_api.nodes import Nodes
from turtles.virt_api.object_graph import ObjectGraphs
from turtles.virt_api.status import Failure, conflict, not_found

#: Takes namespace and name of the object and the request's options; returns the answer's body, if it has one.
Handler = Callable[[str, str, Object], Object | None]


def handlers(
    client: Client, nodes: Nodes, configuration: Callable[[], ClusterConfiguration] = lambda: DEFAULT
) -> dict[str, Handler]:
    """Return all handlers, by name.

    :param configuration: returns the configuration in force.
    """
    machines, instances = VirtualMachines(client, configuration), Instances(client, nodes, configuration)
    graphs, attestation = ObjectGraphs(client, configuration), Attestation(client, nodes, configuration)
    expansion = Expansion(client, Lookup(client), configuration)
    return {
        "start_vm": machines.start,
        "stop_vm": machines.stop,
        "restart_vm": machines.restart,
        "migrate_vm": machines.migrate,
        "add_volume_vm": machines.add_volume,
        "remove_volume_vm": machines.remove_volume,
        "memory_dump_vm": machines.dump_memory,
        "remove_memory_dump_vm": machines.forget_memory,
        "object_graph_vm": graphs.of_vm,
        "pause_vmi": instances.pause,
        "unpause_vmi": instances.unpause,
        "soft_reboot_vmi": instances.soft_reboot,
        "reset_vmi": instances.reset,
        "freeze_vmi": instances.freeze,
        "unfreeze_vmi": instances.unfreeze,
        "guest_info_vmi": instances.guest_info,
        "users_vmi": instances.users,
        "filesystems_vmi": instances.filesystems,
        "add_volume_vmi": instances.add_volume,
        "remove_volume_vmi": instances.remove_volume,
        "object_graph_vmi": graphs.of_vmi,
        "sev_certificates_vmi": attestation.certificates,
        "sev_measurement_vmi": attestation.measurement,
        "sev_session_vmi": attestation.set_up_session,
        "sev_secret_vmi": attestation.inject_secret,
        "cancel_evacuation_vmi": instances.cancel_evacuation,
        "cancel_evacuation_vm": instances.cancel_evacuation_of_vm,
        "expand_vm": expansion.stored,
        "expand_vm_spec": expansion.given,
    }


class VirtualMachines:
    """Start, stop and restart, of the VirtualMachines that the client reaches."""

    def __init__(self, client: Client, configuration: Callable[[], ClusterConfiguration]) -> None:
        self._client, self._configuration = client, configuration

    def start(self, namespace: str, name: str, options: Object) -> None:
        """Start a VirtualMachine."""
        self._retry(self._start, namespace, name, options)

    def stop(self, namespace: str, name: str, options: Object) -> None:
        """Stop a VirtualMachine."""
        self._retry(self._stop, namespace, name, options)

    def restart(self, namespace: str, name: str, options: Object) -> None:
        """Stop a VirtualMachine and start it again."""
        self._retry(self._restart, namespace, name, options)

    def add_volume(self, namespace: str, name: str, options: Object) -> None:
        """Add a volume and its disk to the template of a VirtualMachine, which its running instance follows."""
        checked(partial(volumes.check_enabled, "Add"), self._configuration())
        checked(volumes.check_add, options)
        self._retry(self._add_volume, namespace, name, options)

    def remove_volume(self, namespace: str, name: str, options: Object) -> None:
        """Remove a volume and its disk from the template of a VirtualMachine, which its running instance follows."""
        checked(partial(volumes.check_enabled, "Remove"), self._configuration())
        checked(volumes.check_remove, options)
        self._retry(self._remove_volume, namespace, name, options)

    def dump_memory(self, namespace: str, name: str, options: Object) -> None:
        """Have a guest's memory written to a claim."""
        checked(partial(volumes.check_enabled, "Dump Memory to"), self._configuration())
        self._retry(self._dump_memory, namespace, name, options)

    def forget_memory(self, namespace: str, name: str, options: Object) -> None:
        """Have a machine no longer associated with the claim that its memory was written to."""
        self._retry(self._forget_memory, namespace, name, options)

    def migrate(self, namespace: str, name: str, options: Object) -> None:
        """Create a migration of the instance of a VirtualMachine."""
        self._get(namespace, name)
        if phase_of(self._client.find(VMI, namespace, name) or {}) != RUNNING:
            raise conflict(VM_KIND, name, VM_NOT_RUNNING)
        if "All" in (options.get("dryRun") or ()):
            return
        selector = options.get("addedNodeSelector")
        migration: Object = {
            "apiVersion": MIGRATION.api_version,
            "kind": MIGRATION.kind,
            "metadata": {"generateName": "kubevirt-migrate-vm-", "namespace": namespace},
            "spec": {"vmiName": name, **({"addedNodeSelector": selector} if selector else {})},
        }
        try:
            self._client.create(MIGRATION, migration)
        except ApiError as error:
            code = 503 if error.status is None else 500
            raise Failure(code, f"Internal error occurred: {error.message}", VM_KIND, name) from error

    def _retry(
        self, operation: Callable[[Object, Object | None, Object], None], namespace: str, name: str, options: Object
    ) -> None:
        def attempt() -> None:
            vm = self._get(namespace, name)
            operation(vm, self._vmi(vm), options)

        retried(VM_KIND, name, attempt)

    def _get(self, namespace: str, name: str) -> Object:
        return fetch_machine(self._client, namespace, name)

    def _vmi(self, vm: Object) -> Object | None:
        """Return the instance of a VirtualMachine. One of its name that it doesn't control isn't its instance."""
        metadata = vm["metadata"]
        return own(vm, self._client.find(VMI, metadata["namespace"], metadata["name"]))

    def _start(self, vm: Object, vmi: Object | None, options: Object) -> None:
        name, strategy = vm["metadata"]["name"], run_strategy(vm)
        paused = _option(options, "paused", bool, False)
        if vmi is not None and phase_of(vmi) not in (*FINAL_PHASES, "Unknown", ""):
            raise conflict(VM_KIND, name, "VM is already running")
        start: Object = {"action": START}
        if paused:
            start["data"] = {"paused": "true"}
        if strategy == HALTED:
            if paused:
                self._request(vm, [start], options)
            else:
                self._set_running(vm, True, options)
        elif strategy in (MANUAL, RERUN_ON_FAILURE):
            if vmi is None or not is_final(vmi):
                self._request(vm, [start], options)
            elif strategy == RERUN_ON_FAILURE and phase_of(vmi) == FAILED:
                raise conflict(VM_KIND, name, f"{strategy} does not support starting VM from failed state")
            else:
                self._request(vm, [_stop_request(vmi), start], options)
        else:
            raise conflict(VM_KIND, name, f"{strategy} does not support manual start requests")

    def _stop(self, vm: Object, vmi: Object | None, options: Object) -> None:
        name, strategy = vm["metadata"]["name"], run_strategy(vm)
        grace = _option(options, "gracePeriod", int, None)
        if grace is not None and grace < 0:
            raise Failure(400, "gracePeriod has to be greater or equal to 0", VM_KIND, name)
        running = vmi if vmi is not None and not is_final(vmi) else None
        if running is None and strategy not in (ALWAYS, ONCE):
            raise conflict(VM_KIND, name, VM_NOT_RUNNING)
        if strategy == HALTED and running is not None:
            before = running["spec"].get("terminationGracePeriodSeconds")
            if grace is None or (before is not None and grace >= before):
                message = f"{strategy} only supports manual stop requests with a shorter graceperiod"
                raise conflict(VM_KIND, name, message)
        if running is not None and grace is not None:
            self._shorten(running, grace, options)
        if strategy in (ALWAYS, ONCE):
            self._set_running(vm, False, options)
        elif strategy in (MANUAL, RERUN_ON_FAILURE) and running is not None:
            self._request(vm, [_stop_request(running)], options)

    def _restart(self, vm: Object, vmi: Object | None, options: Object) -> None:
        name, strategy = vm["metadata"]["name"], run_strategy(vm)
        grace = _option(options, "gracePeriodSeconds", int, None)
        if grace is not None and grace > 0:
            message = "For force restart, only gracePeriod=0 is supported for now"
            raise Failure(400, message, VM_KIND, name)
        if grace is not None and grace < 0:
            raise Failure(400, "gracePeriod has to be greater or equal to 0", VM_KIND, name)
        if strategy in (HALTED, ONCE):
            raise conflict(VM_KIND, name, f"RunStategy {strategy} does not support manual restart requests")
        if vmi is None:
            raise conflict(VM_KIND, name, "VM is not running: Halted")
        if (vm.get("status") or {}).get("stateChangeRequests"):
            raise conflict(VM_KIND, name, "unable to complete request: stop/start already underway")
        if grace == 0 and not is_final(vmi):
            self._shorten(vmi, 1, options)
        self._request(vm, [_stop_request(vmi), {"action": START}], options)

    def _add_volume(self, vm: Object, vmi: Object | None, options: Object) -> None:
        self._change_volumes(volumes.added, vm, options)

    def _remove_volume(self, vm: Object, vmi: Object | None, options: Object) -> None:
        self._change_volumes(volumes.removed, vm, options)

    def _change_volumes(self, change: Callable[[Object, Object], Object], vm: Object, options: Object) -> None:
        try:
            spec = change(get(vm, "spec", "template", "spec") or {}, options)
        except volumes.NotPossible as error:
            raise conflict(VM_KIND, vm["metadata"]["name"], str(error)) from None
        self._patch(VM, vm, {"spec": {"template": {"spec": spec}}}, options)

    def _dump_memory(self, vm: Object, vmi: Object | None, options: Object) -> None:
        metadata = vm["metadata"]
        try:
            claim = memory_dump.claim_of(vm, options)
            if vmi is None:
                raise not_found(VMI_KIND, metadata["name"])
            if phase_of(vmi) != RUNNING:
                raise conflict(VMI_KIND, metadata["name"], VMI_NOT_RUNNING)
            memory_dump.check_claim(self._claim(metadata["namespace"], claim), vmi)
            request = memory_dump.requested(vm, claim)
        except ValueError as error:
            raise Failure(400, str(error), VM_KIND, metadata["name"]) from None
        except memory_dump.NotPossible as error:
            raise conflict(VM_KIND, metadata["name"], str(error)) from None
        # Whole: a merge would keep what the last one left.
        before = dict.fromkeys(get(vm, "status", "memoryDumpRequest") or {})
        self._patch(VM, vm, {"status": {"memoryDumpRequest": {**before, **request}}}, options, "status")

    def _forget_memory(self, vm: Object, vmi: Object | None, options: Object) -> None:
        try:
            request = memory_dump.removed(vm)
        except memory_dump.NotPossible as error:
            raise conflict(VM_KIND, vm["metadata"]["name"], str(error)) from None
        self._patch(VM, vm, {"status": {"memoryDumpRequest": request}}, options, "status")

    def _claim(self, namespace: str, name: str) -> Object:
        try:
            return self._client.get(PVC, namespace, name)
        except NotFound:
            raise Failure(404, f'persistentvolumeclaims "{name}" not found') from None

    # Writes

    def _set_running(self, vm: Object, running: bool, options: Object) -> None:
        """Switch the run strategy, in the field the object's owner uses for it."""
        if vm["spec"].get("running") is not None:
            spec: Object = {"running": running}
        else:
            spec = {"runStrategy": ALWAYS if running else HALTED}
        self._patch(VM, vm, {"spec": spec}, options)

    def _request(self, vm: Object, requests: list[Object], options: Object) -> None:
        """Ask the controller for a start or stop. A stop replaces whatever is pending."""
        pending = (vm.get("status") or {}).get("stateChangeRequests")
        only_stop = [request["action"] for request in requests] == [STOP]
        if pending and not only_stop:
            message = "unable to complete request: stop/start already underway"
            raise conflict(VM_KIND, vm["metadata"]["name"], message)
        status: Object = {"stateChangeRequests": requests}
        conditions = [dict(condition) for condition in (vm.get("status") or {}).get("conditions") or ()]
        if requests[0]["action"] == STOP and is_true(conditions, "Ready"):
            # In the same write: who waits for Ready after a restart means the next instance.
            set_condition(conditions, "Ready", "False", *TERMINATING, times.now())
            status.update(conditions=conditions, ready=None)
        self._patch(VM, vm, {"status": status}, options, "status")

    def _shorten(self, vmi: Object, seconds: int, options: Object) -> None:
        if vmi["spec"].get("terminationGracePeriodSeconds") != seconds:
            self._patch(VMI, vmi, {"spec": {"terminationGracePeriodSeconds": seconds}}, options)

    def _patch(
        self, resource: Resource, obj: Object, body: Object, options: Object, subresource: str | None = None
    ) -> None:
        metadata = obj["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, **body}
        dry_run = options.get("dryRun")
        self._client.request(
            "PATCH",
            resource.path(metadata["namespace"], metadata["name"], subresource),
            query={"dryRun": "All"} if dry_run else None,
            body=body,
            content_type=MERGE,
        )


def _stop_request(vmi: Object) -> Object:
    return {"action": STOP, "uid": vmi["metadata"]["uid"]}


def _option(options: Object, name: str, type_: type, default: Any) -> Any:
    value = options.get(name)
    if value is None:
        return default
    if not isinstance(value, type_) or (isinstance(value, bool) and type_ is not bool):
        raise Failure(400, f"Can not unmarshal Request body to struct, error: {name} must be of type {type_.__name__}")
    return value
