# SPDX-License-Identifier: GPL-3.0-or-later
"""Adding volumes to VirtualMachines and removing them."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.kube.kubevirt import VM, VMI
from turtles.virt_api.status import Failure
from turtles.virt_api.subresources import handlers
from turtles.virt_api.volumes import NO_HOTPLUG

from .fakes import FakeClient, FakeNodes
from .test_instances import CONFLICT, vmi

ROOT = {"name": "root", "containerDisk": {"image": "demo"}}
DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "claim"}}
DISKS = [{"name": "root", "disk": {}}, {"name": "data", "disk": {"bus": "scsi"}}]
ADD = {"name": "new", "disk": {"disk": {"bus": "scsi"}}, "volumeSource": {"persistentVolumeClaim": {"claimName": "c"}}}
VM_CONFLICT = 'Operation cannot be fulfilled on virtualmachine.kubevirt.io "vmi": '


def make(*instances: dict[str, Any]) -> FakeClient:
    spec = {"runStrategy": "Halted", "template": {"spec": {"volumes": [ROOT, DATA]}}}
    spec["template"]["spec"]["domain"] = {"devices": {"disks": DISKS}}  # type: ignore[index]
    vm = {"metadata": {"namespace": "default", "name": "vmi", "uid": "v"}, "spec": spec}
    for each in instances:
        each["metadata"]["ownerReferences"] = [
            {"kind": "VirtualMachine", "name": "vmi", "uid": "v", "controller": True}
        ]
    return FakeClient((VM, vm), *((VMI, each) for each in instances))


def call(client: FakeClient, handler: str, options: Any) -> list[Any]:
    handlers(client, FakeNodes())[handler]("default", "vmi", options)  # type: ignore[arg-type]
    ((_, body, query),) = client.patches
    template = body["spec"]["template"]["spec"]
    return [template["volumes"], template["domain"]["devices"]["disks"], query]


@pytest.mark.parametrize("instances", [[], [vmi("Succeeded")]])
def test_a_volume_of_a_machine_that_does_not_run(instances):
    volume = {"name": "new", "persistentVolumeClaim": {"claimName": "c"}}
    disk = {"name": "new", "disk": {"bus": "scsi"}}
    assert call(make(*instances), "add_volume_vm", ADD) == [[ROOT, DATA, volume], [*DISKS, disk], None]
    assert call(make(*instances), "remove_volume_vm", {"name": "data"}) == [[ROOT], DISKS[:1], None]
    assert call(make(*instances), "remove_volume_vm", {"name": "claim"}) == [[ROOT], DISKS[:1], None]
    assert call(make(), "add_volume_vm", {**ADD, "dryRun": ["All"]})[2] == {"dryRun": "All"}


@pytest.mark.parametrize(
    ("handler", "options", "code", "message"),
    [
        ("add_volume_vm", {}, 400, "Request with no body, a new name is expected as the request body"),
        ("add_volume_vm", {**ADD, "name": ""}, 400, "AddVolumeOptions requires name to be set"),
        ("add_volume_vm", {**ADD, "disk": None}, 400, "AddVolumeOptions requires disk to not be nil"),
        ("add_volume_vm", {**ADD, "volumeSource": 7}, 400, "AddVolumeOptions requires VolumeSource to not be nil"),
        (
            "add_volume_vm",
            {**ADD, "name": "root"},
            409,
            VM_CONFLICT + "Unable to add volume [root] because volume with that name already exists",
        ),
        (
            "add_volume_vm",
            {**ADD, "volumeSource": {"dataVolume": {"name": "claim"}}},
            409,
            VM_CONFLICT + "Unable to add volume source [claim] because it already exists",
        ),
        ("remove_volume_vm", {"name": 7}, 400, "RemoveVolumeOptions requires name to be set"),
        (
            "remove_volume_vm",
            {"name": "none"},
            409,
            VM_CONFLICT + "Unable to remove volume [none] because it does not exist",
        ),
        (
            "remove_volume_vm",
            {"name": "root"},
            409,
            VM_CONFLICT + "Unable to remove volume [root] because it is not hotpluggable",
        ),
        ("memory_dump_vm", {"claimName": "c"}, 400, "Unable to memory dump because this engine does not support it."),
        (
            "object_graph_vm",
            {},
            400,
            "ObjectGraph feature gate not enabled: Unable to return object graph.",
        ),
        ("remove_volume_vmi", {}, 400, "Request with no body, a new name is expected as the request body"),
    ],
)
def test_refused(handler, options, code, message):
    client = make()
    with pytest.raises(Failure) as raised:
        handlers(client, FakeNodes())[handler]("default", "vmi", options)  # type: ignore[arg-type]
    assert (raised.value.code, raised.value.message) == (code, message)
    assert client.patches == []


@pytest.mark.parametrize(("what", "options"), [("add", ADD), ("remove", {"name": "data"})])
@pytest.mark.parametrize("kind", ["vm", "vmi"])
def test_a_guest_that_runs(what, options, kind):
    client = make(vmi())
    with pytest.raises(Failure) as raised:
        handlers(client, FakeNodes())[f"{what}_volume_{kind}"]("default", "vmi", options)  # type: ignore[arg-type]
    assert (raised.value.code, raised.value.message) == (
        400,
        f"Unable to {what.capitalize()} Volume because {NO_HOTPLUG}.",
    )


def test_an_instance_that_does_not_run():
    with pytest.raises(Failure) as raised:
        handlers(make(vmi("Pending")), FakeNodes())["add_volume_vmi"]("default", "vmi", ADD)  # type: ignore[arg-type]
    assert (raised.value.code, raised.value.message) == (409, CONFLICT + "VMI is not running")
