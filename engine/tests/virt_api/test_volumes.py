# SPDX-License-Identifier: GPL-3.0-or-later
"""Adding volumes to VirtualMachines and their instances, and removing them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from turtles.api.configuration import DEFAULT
from turtles.kube.kubevirt import VM, VMI
from turtles.virt_api import instances
from turtles.virt_api.status import Failure
from turtles.virt_api.subresources import handlers

from .fakes import FakeClient, FakeNodes
from .test_instances import CONFLICT, vmi

ROOT = {"name": "root", "containerDisk": {"image": "demo"}}
DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "claim", "hotpluggable": True}}
FIXED = {"name": "fixed", "persistentVolumeClaim": {"claimName": "permanent"}}
DISKS = [{"name": "root", "disk": {}}, {"name": "data", "disk": {"bus": "scsi"}}, {"name": "fixed", "disk": {}}]
ADD = {"name": "new", "disk": {"disk": {"bus": "scsi"}}, "volumeSource": {"persistentVolumeClaim": {"claimName": "c"}}}
NEW = {"name": "new", "persistentVolumeClaim": {"claimName": "c", "hotpluggable": True}}
NEW_DISK = {"name": "new", "disk": {"bus": "scsi"}}
VM_CONFLICT = 'Operation cannot be fulfilled on virtualmachine.kubevirt.io "vmi": '
EPHEMERAL = "kubevirt.io/ephemeral-hotplug-volumes"


def template(*volumes: dict[str, Any]) -> dict[str, Any]:
    names = {volume["name"] for volume in volumes}
    disks = [disk for disk in [*DISKS, NEW_DISK] if disk["name"] in names]
    return {"volumes": list(volumes), "domain": {"devices": {"disks": disks}}}


def make(*instances: dict[str, Any]) -> FakeClient:
    spec = {"runStrategy": "Halted", "template": {"spec": template(ROOT, DATA, FIXED)}}
    vm = {"metadata": {"namespace": "default", "name": "vmi", "uid": "v"}, "spec": spec}
    for each in instances:
        each["metadata"]["ownerReferences"] = [
            {"kind": "VirtualMachine", "name": "vmi", "uid": "v", "controller": True}
        ]
    return FakeClient((VM, vm), *((VMI, each) for each in instances))


def call(client: FakeClient, handler: str, options: Any, **configuration: Any) -> tuple[str, Any, Any]:
    config = dataclasses.replace(DEFAULT, **configuration)
    handlers(client, FakeNodes(), lambda: config)[handler]("default", "vmi", options)  # type: ignore[arg-type]
    ((path, body, query),) = client.patches
    return path, body, query


@pytest.mark.parametrize("instances", [[], [vmi("Succeeded")], [vmi()]])
def test_a_volume_of_a_machine_that_runs_or_does_not(instances):
    path, body, query = call(make(*instances), "add_volume_vm", ADD)
    assert path == VM.path("default", "vmi")
    assert body["spec"]["template"]["spec"] == template(ROOT, DATA, FIXED, NEW)
    assert query is None
    for name in ("data", "claim"):
        _, body, _ = call(make(*instances), "remove_volume_vm", {"name": name})
        assert body["spec"]["template"]["spec"] == template(ROOT, FIXED)
    assert call(make(), "add_volume_vm", {**ADD, "dryRun": ["All"]})[2] == {"dryRun": "All"}


def test_a_volume_of_an_instance_alone():
    client = make(vmi(spec=template(ROOT, DATA)))
    path, body, query = call(client, "add_volume_vmi", ADD)
    assert path == VMI.path("default", "vmi")
    assert body["spec"] == template(ROOT, DATA, NEW)
    assert body["metadata"]["annotations"] == {EPHEMERAL: '["new"]'}
    assert query is None
    _, body, query = call(
        make(vmi(spec=template(ROOT, DATA, NEW))), "remove_volume_vmi", {"name": "new", "dryRun": ["All"]}
    )
    assert body["spec"] == template(ROOT, DATA)
    assert body["metadata"]["annotations"] == {EPHEMERAL: None}
    assert query == {"dryRun": "All"}


def test_a_volume_of_an_instance_without_a_machine():
    client = FakeClient((VMI, vmi(spec=template(ROOT))))
    _, body, _ = call(client, "add_volume_vmi", ADD)
    assert body["spec"] == template(ROOT, NEW)
    assert "annotations" not in body["metadata"]


def test_a_write_that_somebody_else_was_quicker_with(monkeypatch):
    client = make(vmi(spec=template(ROOT)))
    # Status is written all the while that another volume is plugged in.
    client.conflicts = 9
    call(client, "add_volume_vmi", ADD)
    client = make(vmi(spec=template(ROOT)))
    client.conflicts = 9
    monkeypatch.setattr(instances, "_PATIENCE", 0.0)
    with pytest.raises(Failure, match="keeps changing"):
        call(client, "add_volume_vmi", ADD)


@pytest.mark.parametrize(
    ("handler", "options", "code", "message"),
    [
        ("add_volume_vm", {}, 400, "Request with no body, a new name is expected as the request body"),
        ("add_volume_vm", {**ADD, "name": ""}, 400, "AddVolumeOptions requires name to be set"),
        ("add_volume_vm", {**ADD, "disk": None}, 400, "AddVolumeOptions requires disk to not be nil"),
        ("add_volume_vm", {**ADD, "volumeSource": 7}, 400, "AddVolumeOptions requires VolumeSource to not be nil"),
        (
            "add_volume_vm",
            {**ADD, "volumeSource": {"emptyDisk": {}}},
            400,
            "AddVolumeOptions requires VolumeSource to name a persistentVolumeClaim or a dataVolume",
        ),
        (
            "add_volume_vmi",
            {**ADD, "disk": {"disk": "virtio"}},
            400,
            "AddVolumeOptions requires the disk's disk or lun to be an object",
        ),
        (
            "add_volume_vm",
            {**ADD, "disk": {"disk": {"bus": "sata"}}},
            400,
            "AddVolume request for disk [new] requires bus to be 'scsi' or 'virtio'. [sata] is not permitted.",
        ),
        (
            "add_volume_vmi",
            {**ADD, "disk": {"lun": {"bus": "virtio"}}},
            400,
            "AddVolume request for LUN [new] requires bus to be 'scsi'. [virtio] is not permitted.",
        ),
        (
            "add_volume_vmi",
            {**ADD, "disk": {"cdrom": {"bus": "scsi"}}},
            400,
            "AddVolume request for [new] requires diskDevice of type 'disk' or 'lun' to be used.",
        ),
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
        (
            "remove_volume_vm",
            {"name": "permanent"},
            409,
            VM_CONFLICT + "Unable to remove volume [fixed] because it is not hotpluggable",
        ),
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


@pytest.mark.parametrize("kind", ["vm", "vmi"])
@pytest.mark.parametrize(("handler", "options"), [("add_volume", ADD), ("remove_volume", {"name": "data"})])
def test_the_gate(kind, handler, options):
    running = vmi(spec=template(ROOT, DATA))
    with pytest.raises(Failure, match="DeclarativeHotplugVolumes feature gate is not enabled") as raised:
        call(make(running), f"{handler}_{kind}", options, feature_gates=frozenset())
    assert raised.value.code == 400
    call(make(running), f"{handler}_{kind}", options, feature_gates=frozenset(("HotplugVolumes",)))


def test_an_instance_that_does_not_run():
    with pytest.raises(Failure) as raised:
        handlers(make(vmi("Pending")), FakeNodes())["add_volume_vmi"]("default", "vmi", ADD)  # type: ignore[arg-type]
    assert (raised.value.code, raised.value.message) == (409, CONFLICT + "VMI is not running")
