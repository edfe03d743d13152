# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks and filesystems of every kind, in the domain's XML."""

from __future__ import annotations

import os
from typing import Any
from xml.etree import ElementTree

import pytest

from turtles.domain import definition
from turtles.domain.definition import Host, iothreads

from .test_definition import GOLDEN, violation, vmi

VOLUMES: list[dict[str, Any]] = [
    {"name": "root", "ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}},
    {"name": "imported", "dataVolume": {"name": "imported"}},
    {"name": "device", "persistentVolumeClaim": {"claimName": "device"}},
    {"name": "host", "hostDisk": {"path": "/srv/disks/a.img", "type": "Disk", "shared": True}},
    {"name": "settings", "configMap": {"name": "settings", "volumeLabel": "cfg"}},
    {"name": "keys", "secret": {"secretName": "keys"}},
    {"name": "account", "serviceAccount": {"serviceAccountName": "default"}},
    {"name": "labels", "downwardAPI": {"fields": []}},
    {"name": "answers", "sysprep": {"configMap": {"name": "answers"}}},
    {"name": "metrics", "downwardMetrics": {}},
    {"name": "dump", "memoryDump": {"claimName": "dump"}},
    {"name": "shared", "configMap": {"name": "shared"}},
    {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
]
STORAGE = vmi(
    {
        "memory": {"guest": "256Mi"},
        "cpu": {"cores": 2},
        "ioThreadsPolicy": "auto",
        "devices": {
            "blockMultiQueue": True,
            "disks": [
                {"name": "root", "disk": {"bus": "virtio", "pciAddress": "0000:00:1f.4"}, "errorPolicy": "report"},
                {"name": "imported", "disk": {"bus": "virtio"}, "dedicatedIOThread": True},
                {"name": "device", "lun": {"bus": "scsi"}},
                {
                    "name": "host",
                    "disk": {"bus": "virtio"},
                    "blockSize": {"custom": {"logical": 4096, "physical": 4096, "discardGranularity": 8192}},
                },
                {"name": "settings", "disk": {"bus": "sata"}},
                {"name": "keys", "disk": {"bus": "virtio"}},
                {"name": "account", "cdrom": {"bus": "sata", "readonly": True, "tray": "closed"}},
                {"name": "labels", "disk": {"bus": "usb"}},
                {"name": "answers", "cdrom": {"bus": "sata"}},
                {"name": "metrics", "disk": {"bus": "virtio"}},
                {"name": "dump", "disk": {"bus": "sata"}},
                {"name": "empty", "cdrom": {"bus": "sata", "tray": "open"}},
            ],
            "filesystems": [{"name": "shared", "virtiofs": {}}, {"name": "data", "virtiofs": {}}],
        },
    },
    volumes=VOLUMES,
)
STORAGE["status"] = {
    "volumeStatus": [
        {"name": name, "persistentVolumeClaimInfo": {"volumeMode": "Block"}} for name in ("device", "root")
    ]
}


def rendered(obj: dict[str, Any], **host: Any) -> ElementTree.Element:
    return ElementTree.fromstring(definition.domain_xml(obj, [], Host(kvm=True, **host)))


def with_disk(disk: dict[str, Any], volume: dict[str, Any] | None, **domain: Any) -> dict[str, Any]:
    devices = {"disks": [{"name": "a", **disk}], **domain.pop("devices", {})}
    volumes = [{"name": "a", **volume}] if volume is not None else []
    return vmi({"memory": {"guest": "64Mi"}, "devices": devices, **domain}, volumes=volumes)


def test_golden() -> None:
    """To accept a change: UPDATE_GOLDEN=1 pytest, then read the difference."""
    path, xml = GOLDEN / "storage.xml", definition.domain_xml(STORAGE, [], Host(kvm=True)) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(xml)
    assert xml == path.read_text()
    assert violation(xml) == ""


def test_device_names_leave_out_what_the_guest_does_not_see() -> None:
    targets = definition.disk_targets(STORAGE["spec"])
    assert "dump" not in targets
    assert [targets[name] for name in ("root", "device", "empty")] == ["vda", "sda", "sdf"]


@pytest.mark.parametrize(
    ("volume", "status", "message"),
    [
        ({"persistentVolumeClaim": {"claimName": "x"}}, {}, "disk 'a' is a LUN, so its claim must be a block device"),
        (
            {"persistentVolumeClaim": {"claimName": "x"}},
            {"volumeMode": "Block"},
            "disk 'a' is a LUN, which bus 'sata' doesn't support; use scsi",
        ),
    ],
)
def test_lun_that_cannot_be(volume: dict[str, Any], status: dict[str, Any], message: str) -> None:
    obj = with_disk({"lun": {"bus": "sata"}}, volume)
    obj["status"] = {"volumeStatus": [{"name": "a", "persistentVolumeClaimInfo": status}]}
    with pytest.raises(ValueError, match=message):
        rendered(obj)


@pytest.mark.parametrize(
    ("bus", "sizes", "expected"),
    [
        ("virtio", {"a": (4096, 4096)}, {"logical_block_size": "4096", "physical_block_size": "4096"}),
        ("sata", {"a": (4096, 4096)}, {"logical_block_size": "512", "physical_block_size": "4096"}),
        ("virtio", {}, None),
    ],
)
def test_blocks_of_the_volumes_size(
    bus: str, sizes: dict[str, tuple[int, int]], expected: dict[str, str] | None
) -> None:
    disk = {"disk": {"bus": bus}, "blockSize": {"matchVolume": {"enabled": True}}}
    found = rendered(with_disk(disk, {"persistentVolumeClaim": {"claimName": "x"}}), block_sizes=sizes)
    blocks = found.find("devices/disk/blockio")
    assert (None if blocks is None else blocks.attrib) == expected


def test_transitional_disks() -> None:
    obj = with_disk({"disk": {"bus": "virtio"}}, {"emptyDisk": {}}, devices={"useVirtioTransitional": True})
    disk = rendered(obj).find("devices/disk")
    assert disk is not None
    assert disk.get("model") == "virtio-transitional"


@pytest.mark.parametrize(
    ("domain", "own", "expected", "count"),
    [
        ({}, (), {}, None),
        ({}, ("b",), {"a": 1, "c": 1, "b": 2}, "2"),
        ({"ioThreadsPolicy": "shared"}, (), {"a": 1, "b": 1, "c": 1}, "1"),
        ({"ioThreadsPolicy": "auto"}, (), {"a": 1, "b": 2, "c": 1}, "2"),
        ({"ioThreadsPolicy": "auto", "cpu": {"cores": 4}}, ("c",), {"a": 1, "b": 2, "c": 3}, "3"),
        (
            {"ioThreadsPolicy": "supplementalPool", "ioThreads": {"supplementalPoolThreadCount": 4}},
            (),
            {"a": 1, "b": 2, "c": 3},
            "4",
        ),
    ],
)
def test_threads(domain: dict[str, Any], own: tuple[str, ...], expected: dict[str, int], count: str | None) -> None:
    disks: list[dict[str, Any]] = [
        {"name": name, "disk": {"bus": "virtio"}, "dedicatedIOThread": name in own} for name in "abc"
    ]
    disks.append({"name": "d", "disk": {"bus": "sata"}})
    volumes = [{"name": name, "emptyDisk": {}} for name in "abcd"]
    obj = vmi({"memory": {"guest": "64Mi"}, "devices": {"disks": disks}, **domain}, volumes=volumes)
    assert iothreads.of_disks(obj["spec"]) == expected
    root = rendered(obj)
    assert root.findtext("iothreads") == count
    given = [driver.get("iothread") for driver in root.iterfind("devices/disk/driver")]
    assert given == [str(expected[name]) if name in expected else None for name in "abcd"]
