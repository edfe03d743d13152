# SPDX-License-Identifier: GPL-3.0-or-later
"""expand-spec and expand-vm-spec."""

from __future__ import annotations

from typing import Any

import pytest
from api.test_instancetypes import instancetype, machine, preference

from turtles.kube.kubevirt import RESOURCES, VM
from turtles.virt_api.status import Failure
from turtles.virt_api.subresources import handlers

from .fakes import FakeClient, FakeNodes


def call(handler: str, name: str = "", body: Any = None, vm: dict[str, Any] | None = None) -> dict[str, Any]:
    client = FakeClient(
        (VM, vm or machine(preference={"name": "linux"})),
        (RESOURCES["VirtualMachineClusterInstancetype"], instancetype()),
        (RESOURCES["VirtualMachineClusterPreference"], preference(devices={"preferredDiskBus": "virtio"})),
    )
    answer = handlers(client, FakeNodes())[handler]("ns", name, body or {})  # type: ignore[arg-type]
    assert answer is not None
    return answer


def failure(*arguments: Any, **more: Any) -> dict[str, Any]:
    with pytest.raises(Failure) as failed:
        call(*arguments, **more)
    return failed.value.as_status()


def test_both_say_what_the_machine_has() -> None:
    given = call("expand_vm_spec", body=machine(preference={"name": "linux"}))
    for vm in (call("expand_vm", "vm"), given):
        assert not {"instancetype", "preference"} & vm["spec"].keys()
        spec = vm["spec"]["template"]["spec"]
        assert spec["domain"]["memory"] == {"guest": "256Mi"}
        assert {key: spec["domain"]["cpu"][key] for key in ("sockets", "cores", "threads")} == {
            "sockets": 4,
            "cores": 1,
            "threads": 1,
        }
        assert spec["domain"]["devices"]["disks"][0]["disk"]["bus"] == "virtio"
        assert spec["domain"]["machine"] == {"type": "q35"}
    assert call("expand_vm_spec", body={**machine(), "metadata": {"name": "vm"}})["metadata"]["namespace"] == "ns"


def test_a_machine_that_names_nothing_stays_as_it_is() -> None:
    vm = machine()
    del vm["spec"]["instancetype"]
    assert call("expand_vm_spec", body=vm) == vm


def test_failures_of_a_stored_machine() -> None:
    found = failure("expand_vm", "lost")
    assert (found["code"], found["message"]) == (404, 'virtualmachine.kubevirt.io "lost" not found')
    found = failure("expand_vm", "vm", vm=machine(instancetype={"name": "huge"}))
    message = "virtualmachineclusterinstancetypes huge not found"
    assert (found["code"], found["reason"]) == (500, "InternalError")
    assert found["message"] == f"Internal error occurred: {message}"
    assert found["details"] == {"causes": [{"message": message}]}
    found = failure("expand_vm", "vm", vm=machine({"domain": {"cpu": {"cores": 1, "threads": 1}}}))
    fields = "spec.template.spec.domain.cpu.cores, spec.template.spec.domain.cpu.threads"
    assert found["message"] == (f"Internal error occurred: VM field(s) {fields} conflicts with selected instance type")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "empty request body"),
        ({"spec": {}}, "Object is not a valid VirtualMachine"),
        ({**machine(), "spec": {"template": {"spec": {"domain": 1}}}}, "Object is not a valid VirtualMachine"),
        ({**machine(), "metadata": 1}, "Object is not a valid VirtualMachine"),
        ({**machine(), "metadata": {"namespace": "other"}}, "VM namespace must be empty or ns"),
        (machine(instancetype={"name": "huge"}), "virtualmachineclusterinstancetypes huge not found"),
        (
            machine({"domain": {"memory": {"guest": "1Gi"}}}),
            "VM field(s) spec.template.spec.domain.memory.guest conflicts with selected instance type",
        ),
    ],
)
def test_failures_of_a_machine_that_is_sent(body: Any, message: str) -> None:
    found = failure("expand_vm_spec", body=body)
    assert (found["code"], found["reason"], found["message"]) == (400, "BadRequest", message)
    if "valid" in message:
        assert found["details"]["causes"][0]["message"]
