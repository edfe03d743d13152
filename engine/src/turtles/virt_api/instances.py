# SPDX-License-Identifier: GPL-3.0-or-later
"""Handlers of the subresources of VirtualMachineInstances that are one request and one answer.

They check whether the VMI allows the operation, with KubeVirt's conditions and messages, and pass it on to the
virt-handler of its node.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from turtles.api import durations, labels, node_server
from turtles.api.conditions import get_condition, is_true
from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.kind import Kind
from turtles.api.kinds.vm import VM as VM_KIND
from turtles.api.kinds.vmi import VMI as VMI_KIND
from turtles.api.objects import Object, controller_of, get, is_controlled_by
from turtles.api.phases import RUNNING, phase_of
from turtles.kube.client import MERGE, ApiError, Client, Conflict
from turtles.kube.kubevirt import VM, VMI
from turtles.virt_api import volumes
from turtles.virt_api.nodes import Nodes
from turtles.virt_api.status import Failure, conflict, not_found

T = TypeVar("T")

#: For how many seconds an operation is retried after concurrent writes, and the first and the longest pause between
#: two tries. Status of a machine that changes is written several times a second.
_PATIENCE, _PAUSES = 10.0, (0.01, 0.5)
VM_NOT_RUNNING, VMI_NOT_RUNNING = "VM is not running", "VMI is not running"
NO_AGENT = "VMI does not have guest agent connected"
#: After how many seconds file systems are thawed again if a request to freeze them doesn't say.
_FREEZE_SECONDS = 300.0


def retried(kind: Kind, name: str, attempt: Callable[[], T]) -> T:
    """Return what an attempt to change an object returns, which is made again after a concurrent write.

    :raises Failure: the object is written all the time, or the API server refuses the change.
    """
    end, pause = time.monotonic() + _PATIENCE, _PAUSES[0]
    while True:
        try:
            return attempt()
        except Conflict as error:
            if time.monotonic() > end:
                raise conflict(kind, name, "the object keeps changing; try again") from error
        except ApiError as error:
            raise Failure(error.status or 503, error.message, kind, name) from error
        time.sleep(pause)
        pause = min(2 * pause, _PAUSES[1])


def fetch(client: Client, namespace: str, name: str) -> Object:
    """Return a VMI.

    :raises Failure: there is none.
    """
    vmi = client.find(VMI, namespace, name)
    if vmi is None:
        raise not_found(VMI_KIND, name)
    return vmi


def fetch_machine(client: Client, namespace: str, name: str) -> Object:
    """Return a VirtualMachine.

    :raises Failure: there is none.
    """
    vm = client.find(VM, namespace, name)
    if vm is None:
        raise not_found(VM_KIND, name)
    return vm


def instance_of(client: Client, namespace: str, name: str) -> Object:
    """Return the instance of a VirtualMachine.

    :raises Failure: there is no such VirtualMachine, or it has no instance.
    """
    vm = fetch_machine(client, namespace, name)
    vmi = fetch(client, namespace, name)
    if not is_controlled_by(vmi, vm):
        raise not_found(VMI_KIND, name)
    return vmi


def checked(check: Callable[[T], None], value: T) -> None:
    """Check the options of a request to add or remove a volume, or whether that is possible at all.

    :raises Failure: something is missing.
    """
    try:
        check(value)
    except volumes.WrongOptions as error:
        raise Failure(400, str(error)) from None


class Instances:
    """The VirtualMachineInstances that the client reaches."""

    def __init__(
        self, client: Client, nodes: Nodes, configuration: Callable[[], ClusterConfiguration] = lambda: DEFAULT
    ) -> None:
        self._client, self._nodes, self._configuration = client, nodes, configuration

    def pause(self, namespace: str, name: str, options: Object) -> None:
        """Stop the guest's processors."""
        vmi = self._running(namespace, name, VM_NOT_RUNNING)
        probe = vmi["spec"].get("livenessProbe")
        if probe and probe.get("guestAgentPing") is None:
            message = "Pausing VMIs with a non-GuestAgentPing LivenessProbe is not supported"
            raise _forbidden(name, message)
        if _has(vmi, "Paused"):
            raise conflict(VMI_KIND, name, "VMI is already paused")
        if not _is_dry_run(options):
            self._nodes.call(vmi, node_server.PAUSE)

    def unpause(self, namespace: str, name: str, options: Object) -> None:
        """Let the guest's processors go on."""
        vmi = self._running(namespace, name, VMI_NOT_RUNNING)
        if not _has(vmi, "Paused"):
            raise conflict(VMI_KIND, name, "VMI is not paused")
        if not _is_dry_run(options):
            self._nodes.call(vmi, node_server.UNPAUSE)

    def soft_reboot(self, namespace: str, name: str, options: Object) -> None:
        """Have the guest reboot itself: by its agent, else by its power button."""
        vmi = self._running(namespace, name, VM_NOT_RUNNING)
        if _is(vmi, "Paused"):
            raise conflict(VMI_KIND, name, "VMI is paused")
        by_agent = _has(vmi, "AgentConnected")
        if not by_agent and get(vmi, "spec", "domain", "features", "acpi", "enabled") is False:
            raise conflict(VMI_KIND, name, "VMI neither have the agent connected nor the ACPI feature enabled")
        self._nodes.call(vmi, node_server.SOFT_REBOOT, {"byAgent": by_agent})

    def reset(self, namespace: str, name: str, options: Object) -> None:
        """Press the guest's reset button."""
        self._nodes.call(fetch(self._client, namespace, name), node_server.RESET)

    def freeze(self, namespace: str, name: str, options: Object) -> None:
        """Freeze the guest's file systems, for a while."""
        vmi = self._running(namespace, name, VM_NOT_RUNNING)
        seconds = _unfreeze_timeout(options)
        if not _has(vmi, "AgentConnected"):
            raise conflict(VMI_KIND, name, NO_AGENT)
        self._nodes.call(vmi, node_server.FREEZE, {"unfreezeTimeout": seconds})

    def unfreeze(self, namespace: str, name: str, options: Object) -> None:
        """Thaw the guest's file systems."""
        vmi = self._running(namespace, name, VMI_NOT_RUNNING)
        if not _has(vmi, "AgentConnected"):
            raise conflict(VMI_KIND, name, NO_AGENT)
        self._nodes.call(vmi, node_server.UNFREEZE)

    def guest_info(self, namespace: str, name: str, options: Object) -> Object:
        """Return what the guest agent knows about the guest."""
        return self._ask(namespace, name, node_server.GUEST_INFO)

    def users(self, namespace: str, name: str, options: Object) -> Object:
        """Return who is logged in to the guest."""
        return self._ask(namespace, name, node_server.USERS)

    def filesystems(self, namespace: str, name: str, options: Object) -> Object:
        """Return the guest's mounted file systems."""
        return self._ask(namespace, name, node_server.FILESYSTEMS)

    def add_volume(self, namespace: str, name: str, options: Object) -> None:
        """Plug a volume into the guest; its VirtualMachine, if it has one, doesn't get it."""
        checked(partial(volumes.check_enabled, "Add"), self._configuration())
        checked(volumes.check_add, options)
        self._change_volumes(volumes.added, namespace, name, options)

    def remove_volume(self, namespace: str, name: str, options: Object) -> None:
        """Unplug a volume from the guest."""
        checked(partial(volumes.check_enabled, "Remove"), self._configuration())
        checked(volumes.check_remove, options)
        self._change_volumes(volumes.removed, namespace, name, options)

    def _change_volumes(
        self, change: Callable[[Object, Object], Object], namespace: str, name: str, options: Object
    ) -> None:
        def attempt() -> None:
            vmi = self._running(namespace, name, VMI_NOT_RUNNING)
            try:
                spec = change(vmi["spec"], options)
            except volumes.NotPossible as error:
                raise conflict(VMI_KIND, name, str(error)) from None
            metadata: Object = {"resourceVersion": vmi["metadata"]["resourceVersion"]}
            if (machine := self._machine_of(vmi)) is not None:
                template = get(machine, "spec", "template", "spec") or {}
                mark = volumes.only_of_instance(template, spec)
                metadata["annotations"] = {labels.EPHEMERAL_HOTPLUG: mark}
            self._client.request(
                "PATCH",
                VMI.path(namespace, name),
                query={"dryRun": "All"} if _is_dry_run(options) else None,
                body={"metadata": metadata, "spec": spec},
                content_type=MERGE,
            )

        retried(VMI_KIND, name, attempt)

    def _machine_of(self, vmi: Object) -> Object | None:
        """Return the VirtualMachine that a VMI is an instance of, if there is one."""
        owner = controller_of(vmi)
        if owner is None or owner.get("kind") != VM.kind:
            return None
        return self._client.find(VM, vmi["metadata"]["namespace"], owner["name"])

    def cancel_evacuation(self, namespace: str, name: str, options: Object) -> None:
        """Let a VMI stay on a node that it was to leave."""
        self._cancel_evacuation(fetch(self._client, namespace, name), options)

    def cancel_evacuation_of_vm(self, namespace: str, name: str, options: Object) -> None:
        """Let the instance of a VirtualMachine stay on a node that it was to leave."""
        self._cancel_evacuation(instance_of(self._client, namespace, name), options)

    def _cancel_evacuation(self, vmi: Object, options: Object) -> None:
        namespace, name = vmi["metadata"]["namespace"], vmi["metadata"]["name"]
        node = (vmi.get("status") or {}).get("evacuationNodeName")
        if not node:
            return
        wanted = options.get("evacuationNodeName") or ""
        if wanted != node:
            message = f'testing path /status/evacuationNodeName value failed: it is "{node}", not "{wanted}"'
            raise Failure(500, f"Internal error occurred: {message}", VMI_KIND, name)
        body = {
            "metadata": {"resourceVersion": vmi["metadata"]["resourceVersion"]},
            "status": {"evacuationNodeName": None},
        }
        if not _is_dry_run(options):
            self._client.patch(VMI, namespace, name, body)

    def _ask(self, namespace: str, name: str, operation: str) -> Object:
        vmi = self._running(namespace, name, VMI_NOT_RUNNING)
        if not _has(vmi, "AgentConnected"):
            raise conflict(VMI_KIND, name, NO_AGENT)
        answer: Object = self._nodes.call(vmi, operation)
        return answer

    def _running(self, namespace: str, name: str, message: str) -> Object:
        vmi = fetch(self._client, namespace, name)
        if phase_of(vmi) != RUNNING:
            raise conflict(VMI_KIND, name, message)
        return vmi


def _conditions(vmi: Object) -> Any:
    return (vmi.get("status") or {}).get("conditions")


def _has(vmi: Object, condition: str) -> bool:
    return get_condition(_conditions(vmi), condition) is not None


def _is(vmi: Object, condition: str) -> bool:
    return is_true(_conditions(vmi), condition)


def _is_dry_run(options: Object) -> bool:
    return "All" in (options.get("dryRun") or ())


def _forbidden(name: str, message: str) -> Failure:
    text = f'{VMI_KIND.singular}.{VMI_KIND.group} "{name}" is forbidden: {message}'
    return Failure(403, text, VMI_KIND, name)


def _unfreeze_timeout(options: Object) -> float:
    value = options.get("unfreezeTimeout")
    if value is None:
        return _FREEZE_SECONDS
    try:
        seconds = durations.parse(value).total_seconds()
    except durations.DurationError as error:
        raise Failure(400, f"Can not unmarshal Request body to struct, error: unfreezeTimeout: {error}") from None
    if seconds < 0:
        message = f"unfreezeTimeout must not be negative, but is {value}; 0s means no time limit"
        raise Failure(400, message)
    return seconds
