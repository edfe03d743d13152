# SPDX-License-Identifier: GPL-3.0-or-later
"""What may change about the volumes of a running machine."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from turtles.api.kind import Context
from turtles.api.kinds.vmi import VMI, hotplug

ROOT = {"name": "root", "containerDisk": {"image": "demo"}}
DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "claim", "hotpluggable": True}}
DUMP = {"name": "dump", "memoryDump": {"claimName": "dump", "hotpluggable": True}}
ROOT_DISK, DATA_DISK = {"name": "root", "disk": {"bus": "virtio"}}, {"name": "data", "disk": {"bus": "scsi"}}
DRIVE = {"name": "data", "cdrom": {"bus": "sata"}}


def spec(*parts: dict[str, Any]) -> dict[str, Any]:
    kinds = ("disk", "lun", "cdrom")
    disks = [part for part in parts if any(kind in part for kind in kinds)]
    volumes = [part for part in parts if part not in disks]
    return {"domain": {"memory": {"guest": "64Mi"}, "devices": {"disks": disks}}, "volumes": volumes}


BASE = (ROOT, ROOT_DISK)
WITH = (*BASE, DATA, DATA_DISK)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (BASE, WITH),
        (WITH, BASE),
        (BASE, (*BASE, {"name": "data", "dataVolume": {"name": "d", "hotpluggable": True}}, DATA_DISK)),
        (BASE, (*BASE, DATA, {"name": "data", "lun": {"bus": "scsi"}})),
        (BASE, (*BASE, DUMP)),
        ((*BASE, DUMP), BASE),
        # A medium comes to a drive, and goes
        ((*BASE, DRIVE), (*BASE, DRIVE, DATA)),
        ((*BASE, DRIVE, DATA), (*BASE, DRIVE)),
    ],
)
def test_allowed(old, new):
    assert not list(hotplug.change_causes(spec(*new), spec(*old)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (BASE, (), "Number of permanent volumes has changed"),
        (BASE, ({**ROOT, "containerDisk": {"image": "x"}}, ROOT_DISK), "permanent volume root, changed"),
        (BASE, (ROOT, {"name": "root", "disk": {"bus": "sata"}}), "permanent disk root, changed"),
        (
            WITH,
            (*BASE, {**DATA, "persistentVolumeClaim": {"claimName": "b"}}, DATA_DISK),
            "hotplug volume data, changed",
        ),
        (WITH, (*BASE, DATA, {"name": "data", "disk": {"bus": "virtio"}}), "hotplug disk data, changed"),
        (BASE, (*BASE, DATA), "mismatch between volumes declared (2) and required (1)"),
        (BASE, (*BASE, DATA_DISK), "mismatch between volumes declared (1) and required (2)"),
        (
            BASE,
            (*BASE, {"name": "data", "emptyDisk": {"capacity": "1Mi"}}, DATA_DISK),
            "volume data is not a PVC or DataVolume",
        ),
        (
            BASE,
            (*BASE, {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}, DATA_DISK),
            "volume data is not hotpluggable",
        ),
        (
            BASE,
            (*BASE, DATA, {"name": "data", "disk": {"bus": "sata"}}),
            "Hotplug configuration for disk [data] requires bus to be 'scsi' or 'virtio'. [sata] is not permitted.",
        ),
        (
            BASE,
            (*BASE, DATA, {"name": "data", "lun": {"bus": "virtio"}}),
            "Hotplug configuration for LUN [data] requires bus to be 'scsi'. [virtio] is not permitted.",
        ),
        (
            BASE,
            (*BASE, DATA, {"name": "data", "cdrom": {"bus": "scsi"}}),
            "Hotplug configuration for [data] requires diskDevice of type 'disk' or 'lun' to be used.",
        ),
        (
            BASE,
            (*BASE, DATA, {**DATA_DISK, "dedicatedIOThread": True}),
            "Hotplug configuration for [data] requires virtio bus for IOThreads.",
        ),
        (
            BASE,
            (*BASE, DATA, {"name": "data", "disk": {"bus": "virtio"}, "dedicatedIOThread": True}),
            "Hotplug configuration for [data]: dedicatedIOThread is not supported by this engine while a machine runs",
        ),
    ],
)
def test_refused(old, new, message):
    assert [cause.message for cause in hotplug.change_causes(spec(*new), spec(*old))] == [message]


def review(old: tuple[dict[str, Any], ...], new: tuple[dict[str, Any], ...]) -> list[str]:
    """Return what admission says when the engine itself changes an instance."""
    metadata = {"name": "web", "namespace": "default"}
    assert VMI.default is not None
    assert VMI.validate_update is not None
    before, wanted = (
        VMI.default({"metadata": metadata, "spec": spec(*each)}, Context())["spec"] for each in (old, new)
    )
    before = {"metadata": metadata, "spec": before}
    after = copy.deepcopy(before)
    after["spec"]["volumes"] = wanted["volumes"]
    after["spec"]["domain"]["devices"]["disks"] = wanted["domain"]["devices"]["disks"]
    return [cause.message for cause in VMI.validate_update(after, before, Context(privileged=True))]


def test_admission_judges_what_the_engine_writes():
    assert review(BASE, WITH) == []
    assert review(WITH, BASE) == []
    assert review(BASE, (*WITH, {**DATA, "name": "No_Label"}, {**DATA_DISK, "name": "No_Label"}))
    assert review(BASE, ({"name": 7}, ROOT_DISK)) == ["spec.volumes[0].name must be of type string, not integer"]
    assert review(WITH, (DATA, DATA_DISK)) == ["Number of permanent volumes has changed"]


@pytest.mark.parametrize(
    ("annotation", "names"), [(None, ()), ('["b", "a"]', ("b", "a")), ("{", ()), ('{"a": 1}', ()), ('["a", 7]', ("a",))]
)
def test_the_volumes_of_an_instance_alone(annotation, names):
    vmi = {"metadata": {"annotations": {"kubevirt.io/ephemeral-hotplug-volumes": annotation}}}
    assert hotplug.only_of_instance(vmi) == names
    assert hotplug.mark(["b", "a"]) == '["a", "b"]'
    assert hotplug.mark([]) is None
