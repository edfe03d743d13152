# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes that come to a running guest, as its domain and its status have them."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

from turtles.domain import definition, report
from turtles.domain.definition import Host
from turtles.domain.device_requests import medium_request
from turtles.domain.live_domain import LiveDisk, read_live
from turtles.domain.volume_status import Dump, Plugged, dump_file, volume_status
from turtles.domain.xml import AnswerError

XML = """
<domain type='kvm'>
  <os><type machine='pc-q35-7.2'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='/a' index='2'/>
      <target dev='vdb' bus='virtio'/><alias name='ua-data'/></disk>
    <disk type='file' device='cdrom'><driver name='qemu'/><source index='1'/>
      <target dev='sda' bus='sata'/><alias name='ua-drive'/></disk>
    <disk type='file' device='disk'><target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>
    <controller type='scsi'/>
  </devices>
</domain>
"""
DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "claim", "hotpluggable": True}}


def vmi(*volumes: dict[str, Any], **devices: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "ns", "uid": "u"},
        "spec": {"domain": {"memory": {"guest": "64Mi"}, "devices": devices}, "volumes": list(volumes)},
        "status": {},
    }


def test_what_a_running_domain_has():
    live = read_live(XML)
    assert live.disks == {"data": LiveDisk("vdb"), "drive": LiveDisk("sda", loaded=False)}
    assert live.targets == {"vda", "vdb", "sda"}
    assert live.buses == {"scsi"}
    with pytest.raises(AnswerError):
        read_live(XML.replace("vdb", "vdb; reboot"))


@pytest.mark.parametrize(
    ("bus", "taken", "name"),
    [("virtio", set(), "vda"), ("virtio", {"vda", "vdc"}, "vdb"), ("scsi", {"sda"}, "sdb"), ("scsi", {"vda"}, "sda")],
)
def test_a_name_that_is_free(bus, taken, name):
    assert definition.free_target({"name": "a", "disk": {"bus": bus}}, taken) == name


def test_the_device():
    disk = {"name": "data", "disk": {"bus": "scsi"}, "serial": "S", "bootOrder": 1, "cache": "none"}
    xml = definition.added_disk(vmi(DATA, disks=[disk]), disk, "sdb", Host(kvm=True))
    device = fromstring(xml)
    assert device.find("target").attrib == {"dev": "sdb", "bus": "scsi"}
    assert device.find("source").get("file") == "/var/run/kubevirt-private/vmi-disks/data/disk.img"
    assert device.find("alias").get("name") == "ua-data"
    assert device.findtext("serial") == "S"
    assert device.find("boot") is None, "its place may be another device's by now"


def test_a_domain_without_what_comes_later():
    disks = [{"name": "data", "disk": {"bus": "virtio"}}, {"name": "drive", "cdrom": {"bus": "sata"}}]
    drive = {"name": "drive", "persistentVolumeClaim": {"claimName": "iso", "hotpluggable": True}}
    absent = frozenset(("data", "drive"))
    root = fromstring(definition.domain_xml(vmi(DATA, drive, disks=disks), [], Host(kvm=True, absent=absent)))
    (only,) = root.findall("devices/disk")
    assert (only.get("device"), only.find("source")) == ("cdrom", None)


@pytest.mark.parametrize(
    ("devices", "memory", "machine", "ports"),
    [
        # Taken by the controllers scsi and virtio-serial and the balloon; eight in all
        ({}, "64Mi", "q35", 8),
        ({}, "4Gi", "pc-q35-7.2", 16),
        ({"disks": [{"name": f"d{index}", "disk": {"bus": "virtio"}} for index in range(9)]}, "64Mi", "q35", 15),
        ({"disableHotplug": True}, "64Mi", "q35", 0),
        ({}, "64Mi", "pc", 0),
    ],
)
def test_ports(devices, memory, machine, ports):
    volumes = [{"name": disk["name"], "emptyDisk": {"capacity": "1Mi"}} for disk in devices.get("disks", ())]
    obj = vmi(*volumes, **devices)
    obj["spec"]["domain"] |= {"memory": {"guest": memory}, "machine": {"type": machine}}
    root = fromstring(definition.domain_xml(obj, [], Host(kvm=True)))
    assert len(root.findall("devices/controller[@model='pcie-root-port']")) == ports
    assert bool(root.findall("devices/controller[@type='scsi']")) is not devices.get("disableHotplug", False)


def test_a_medium():
    device = fromstring(medium_request(XML, "drive", "/b"))
    assert device.find("source").attrib == {"file": "/b"}
    assert device.find("driver").attrib == {"name": "qemu", "type": "raw"}
    assert fromstring(medium_request(XML, "data", None)).find("source") is None
    with pytest.raises(AnswerError):
        medium_request(XML, "none", None)


BEFORE = {"name": "data", "target": "", "phase": "AttachedToNode", "reason": "SuccessfulCreate", "hotplugVolume": {}}


@pytest.mark.parametrize(
    ("wanted", "plugged", "disk", "expected"),
    [
        (True, Plugged(False), None, {}),
        (True, Plugged(False, "no"), None, {"reason": "FailedAttachVolume", "message": "no"}),
        (True, Plugged(True), None, {"phase": "MountedToPod", "reason": "VolumeMountedToPod"}),
        (True, Plugged(True, "no"), None, {"phase": "MountedToPod", "reason": "FailedAttachVolume", "message": "no"}),
        (True, Plugged(True), LiveDisk("sda", loaded=False), {"phase": "MountedToPod"}),
        (True, Plugged(True), LiveDisk("sda"), {"phase": "Ready", "reason": "VolumeReady", "target": "sda"}),
        (False, Plugged(True), LiveDisk("sda"), {"phase": "Detaching", "reason": "VolumeDetaching"}),
        (False, Plugged(True, "no"), LiveDisk("sda"), {"phase": "Detaching", "reason": "FailedDetachVolume"}),
        (False, Plugged(True), None, {"phase": "Detaching", "reason": "VolumeUnplugged"}),
        (False, Plugged(False), None, {"phase": "UnMountedFromPod", "reason": "VolumeUnMountedFromPod"}),
        (False, Plugged(False), LiveDisk("sda", loaded=False), {"phase": "UnMountedFromPod"}),
    ],
)
def test_progress(wanted, plugged, disk, expected):
    spec = vmi(*([DATA] if wanted else []), disks=[{"name": "data", "disk": {"bus": "scsi"}}] if wanted else [])["spec"]
    disks = {"data": disk} if disk else {}
    (entry,) = volume_status(spec, [BEFORE], {}, disks, {"data": plugged})
    assert {key: entry[key] for key in expected} == expected
    if not expected:
        assert entry == BEFORE


def test_nothing_is_said_while_the_domain_is_not_known():
    assert volume_status(vmi()["spec"], [BEFORE], {}, None, {"data": Plugged(False)}) == [BEFORE]
    # What comes later has no entry before the controller makes one
    disks = [{"name": "data", "disk": {"bus": "virtio"}}]
    assert volume_status(vmi(DATA, disks=disks)["spec"], [], {}, {}) == []


@pytest.mark.parametrize(
    ("dump", "phase", "reason"),
    [
        (Dump("f", "a"), "MemoryDumpInProgress", "VolumeMountedToPod"),
        (Dump("f", "a", "b"), "MemoryDumpCompleted", "MemoryDumpCompleted"),
        (Dump("f", "a", "b", "no room"), "MemoryDumpFailed", "MemoryDumpError"),
    ],
)
def test_a_memory_dump(dump, phase, reason):
    spec = vmi({"name": "data", "memoryDump": {"claimName": "claim", "hotpluggable": True}})["spec"]
    before = {**BEFORE, "memoryDumpVolume": {"claimName": "claim"}}
    (entry,) = volume_status(spec, [before], {}, {}, {"data": Plugged(True)}, {"data": dump})
    assert (entry["phase"], entry["reason"]) == (phase, reason)
    ended = {"endTimestamp": "b"} if dump.ended else {}
    info = {"claimName": "claim", "startTimestamp": "a", "targetFileName": "f", **ended}
    assert entry["memoryDumpVolume"] == info
    # It stays when the agent that made it is gone
    (later,) = volume_status(spec, [entry], {}, {}, {"data": Plugged(True)}, {})
    assert later == entry


def test_the_file_of_a_dump():
    assert dump_file("web", "data", "2026-01-02T03:04:05Z") == "web-data-20260102-030405.memory.dump"


def test_events():
    old = {"phase": "Running", "conditions": [], "volumeStatus": [BEFORE]}
    failed = {**BEFORE, "reason": "FailedAttachVolume", "message": "no"}
    new = {**old, "volumeStatus": [failed]}
    assert list(report.events(old, new)) == [report.Event("Warning", "FailedAttachVolume", "no")]
    assert list(report.events(new, {**new, "volumeStatus": [{**failed, "message": "still no"}]})) == []
