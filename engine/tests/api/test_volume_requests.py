# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests for volumes in the status of a VirtualMachine."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from turtles.api.kind import Context, Missing
from turtles.api.kinds import vm as vms
from turtles.api.language import Cause

from .objects import put, talk_vm, talk_vmi

FIELD = "Status.volumeRequests"
SOURCE = {"persistentVolumeClaim": {"claimName": "more"}}


def add(name: str = "more", disk: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    disk = {"disk": {"bus": "scsi"}} if disk is None else disk
    return {"addVolumeOptions": {"name": name, "disk": disk, "volumeSource": SOURCE, **options}}


def remove(name: str = "containerdisk") -> dict[str, Any]:
    return {"removeVolumeOptions": {"name": name}}


def judged(*requests: Any, vmi: dict[str, Any] | None = None, **status: Any) -> list[Cause]:
    def find(kind: str, namespace: str, name: str) -> dict[str, Any]:
        if kind != "VirtualMachineInstance" or vmi is None:
            raise Missing("not found")
        return vmi

    vm = put(talk_vm(), "metadata.namespace", "ns") | {"status": {"volumeRequests": [*requests], **status}}
    before = copy.deepcopy(vm)
    causes = vms.validate_status(vm, vm, Context(find=find))
    assert vm == before
    assert vms.validate_update(vm, vm, Context(find=find)) == causes, "an update of the machine is judged likewise"
    return causes


def invalid(message: str) -> list[Cause]:
    return [Cause("FieldValueInvalid", message, FIELD)]


def test_what_can_be_done() -> None:
    assert judged(add(), remove()) == []
    assert judged(add("data", volumeSource={"dataVolume": {"name": "data"}})) == []
    assert judged(add(), ready=True, vmi=talk_vmi()) == []


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([{}], "VolumeRequests require one of either addVolumeOptions or removeVolumeOptions to be set"),
        (["more"], "VolumeRequests require one of either addVolumeOptions or removeVolumeOptions to be set"),
        (
            [{**add(), **remove()}],
            "VolumeRequests require either addVolumeOptions or removeVolumeOptions to be set, not both",
        ),
        ([add(), add()], "AddVolume request for [more] aleady exists"),
        ([remove(), remove()], "RemoveVolume request for [containerdisk] aleady exists"),
        (
            [add(disk={"cdrom": {"bus": "sata"}})],
            "AddVolume request for [more] requires diskDevice of type 'disk' or 'lun' to be used.",
        ),
        (
            [add(disk={"disk": {"bus": "sata"}})],
            "AddVolume request for disk [more] requires bus to be 'scsi' or 'virtio'. [sata] is not permitted.",
        ),
        (
            [add("containerdisk")],
            "AddVolume request for [containerdisk] conflicts with an existing volume of the same name on the vmi "
            "template.",
        ),
    ],
)
def test_what_can_not(requests: list[Any], message: str) -> None:
    assert judged(*requests) == invalid(message)


def test_the_machine_is_judged_with_its_new_volumes() -> None:
    first = {"disk": {"bus": "scsi"}, "bootOrder": 1}
    (cause,) = judged(add(disk=first), add("other", first))
    field = "spec.template.spec.domain.devices.disks[3].bootOrder"
    assert cause == Cause("FieldValueInvalid", f"Boot order for {field} already set for a different device.", field)


def test_the_instance_has_the_templates_path() -> None:
    running = talk_vmi()
    running["spec"]["domain"]["devices"]["disks"][0]["bootOrder"] = 1
    (cause,) = judged(add(disk={"disk": {"bus": "scsi"}, "bootOrder": 1}), ready=True, vmi=running)
    assert cause.field == "spec.template.spec.domain.devices.disks[2].bootOrder"


def test_a_running_machine() -> None:
    running = talk_vmi()
    running["spec"]["volumes"].append({"name": "more", "persistentVolumeClaim": {"claimName": "another"}})
    running["spec"]["domain"]["devices"]["disks"].append({"name": "more", "disk": {"bus": "scsi"}})
    message = "AddVolume request for [more] conflicts with an existing volume of the same name on currently running vmi"
    assert judged(add(), ready=True, vmi=running) == invalid(message)
    assert judged(add(), vmi=running) == [], "its instance isn't looked at before it is ready"
    going = {**running, "metadata": {**running["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert judged(add(), ready=True, vmi=going) == []
    moving = {**talk_vmi(), "status": {"migrationState": {"startTimestamp": "2026-01-01T00:00:00Z"}}}
    message = "Cannot handle volume requests while VMI migration is in progress"
    assert judged(add(), ready=True, vmi=moving) == [Cause("FieldValueNotSupported", message, "spec")]
    moving["status"]["migrationState"]["endTimestamp"] = "2026-01-01T00:01:00Z"
    assert judged(add(), ready=True, vmi=moving) == []


def test_statuses_without_requests() -> None:
    for status in ({}, {"volumeRequests": []}, {"volumeRequests": "none"}, {"ready": True}):
        vm = talk_vm() | {"status": status}
        assert vms.validate_status(vm, vm) == []
    assert vms.validate_status(None, None) == []
    locked = talk_vm() | {"status": {"snapshotInProgress": "s"}}
    assert vms.validate_status(locked, locked) == []
