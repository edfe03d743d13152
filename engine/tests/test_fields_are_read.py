# SPDX-License-Identifier: GPL-3.0-or-later
"""Every field of an instance's spec that admission takes is read by what makes the machine.

A machine that has all fields is made: its Pod, domain, network, seeds and DHCP answers. Its spec notes which fields are
read on the way, or handed on as they are. A field that is only read elsewhere is in `ELSEWHERE`, with the place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import turtles
from turtles.api.configuration_reader import from_kubevirt
from turtles.api.kinds.vmi.schema import VMI_SPEC
from turtles.api.kinds.vmi.schema.volumes import VOLUME_SOURCES
from turtles.api.language import ListOf, MapOf, Struct, Type
from turtles.controller.pod.config import LauncherConfig
from turtles.controller.pod.launcher import launcher_pod
from turtles.domain import definition, network
from turtles.domain.definition.host_devices import PCI_PREFIX, variable
from turtles.launcher import cloudinit

ROOT = Path(turtles.__file__).parent
POD_INTERFACES = {"eth0": network.PodInterface("eth0", "0a:58:0a:f4:00:05", (("10.244.0.5", 16),), "10.244.0.1", 1400)}
RESOURCE = "example.org/device"
CLUSTER = from_kubevirt(
    {"spec": {"configuration": {"vmStateStorageClass": "fast", "network": {"binding": {"plug": {}}}}}}
)

#: Values of fields that can't be just anything, by the ends of their paths. The first that fits counts.
VALUES: dict[str, Any] = {
    "cpu.model": "Nehalem",
    "sound.model": "ich9",
    "panicDevices[].model": "isa",
    "model": "virtio",
    "video.type": "virtio",
    "machine.type": "q35",
    "hostDisk.type": "Disk",
    "type": "tablet",
    "snp.policy": "0x30000",
    "features[].policy": "require",
    "i6300esb.action": "reset",
    "binding.name": "plug",
    "bus": "virtio",
    "cores": 1,
    "sockets": 1,
    "threads": 1,
    "maxSockets": 4,
    "guest": "64Mi",
    "maxGuest": "256Mi",
    "capacity": "1Mi",
    "pageSize": "2Mi",
    "addedOverhead": "1Mi",
    "requests.key": "1",
    "limits.key": "1",
    "pciAddress": "0000:81:01.0",
    "macAddress": "02:00:00:00:00:01",
    "firmware.uuid": "6a1a24a1-4061-4607-8bf4-a3963d0c5895",
    "timezone": "Europe/Berlin",
    "vmNetworkCIDR": "10.0.2.0/24",
    "vmIPv6NetworkCIDR": "fd10:0:2::/120",
    "architecture": "amd64",
    "ioThreadsPolicy": "supplementalPool",
    "rebootPolicy": "Terminate",
    "startStrategy": "Paused",
    "deviceName": RESOURCE,
    "networkName": "net",
    "userDataBase64": "aGVsbG8=",
    "networkDataBase64": "aGVsbG8=",
    "blockSize.custom.logical": 512,
    "blockSize.custom.physical": 512,
    "discardGranularity": 512,
    "ntpServers[]": "192.0.2.1",
    "option": 240,
    "mask": "0",
    "interfaces[].state": "up",
    "hostData": "",
}

PROBES, SEEDS = ("livenessProbe", "readinessProbe"), ("cloudInitNoCloud", "cloudInitConfigDrive")
TARGETS, BINDINGS = ("disk", "cdrom", "lun"), ("masquerade", "passtBinding", "bridge", "sriov", "binding")
ON_POD = ("masquerade", "passtBinding")
#: Volumes that are no disks here.
NO_DISKS = ("containerpath", "memorydump")

#: Fields that the functions called here don't look at, by the module that reads them.
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "api/kinds/vmi/defaults/devices.py": ("spec.domain.devices.autoattachInputDevice",),
    "api/kinds/vmi/defaults/network.py": ("spec.domain.devices.autoattachPodInterface",),
    "api/kinds/vmi/hotplug.py": ("spec.volumes[].memoryDump.hotpluggable",),
    "controller/evacuation.py": ("spec.evictionStrategy",),
    "controller/pod/attachment.py": ("spec.volumes[].memoryDump.claimName", "spec.volumes[].memoryDump.readOnly"),
    "domain/attestation.py": ("spec.domain.launchSecurity.sev.attestation",),
    "domain/credentials.py": (
        "spec.accessCredentials[].sshPublicKey.propagationMethod.qemuGuestAgent.users",
        "spec.accessCredentials[].userPassword.propagationMethod.qemuGuestAgent",
    ),
    "domain/definition/compute.py": (
        "spec.domain.cpu.maxSockets",
        "spec.domain.cpu.realtime.mask",
        "spec.domain.memory.reservedOverhead.memLock",
    ),
    "domain/definition/disks.py": (
        "spec.domain.devices.disks[].blockSize.matchVolume.enabled",
        "spec.domain.devices.disks[].lun.bus",
        "spec.domain.devices.disks[].lun.readonly",
    ),
    "domain/definition/host_devices.py": (
        "spec.domain.devices.gpus[].virtualGPUOptions.display.enabled",
        "spec.domain.devices.gpus[].virtualGPUOptions.display.ramFB.enabled",
    ),
    "domain/definition/machine.py": ("spec.domain.features.hypervPassthrough.enabled",),
    "domain/migratability.py": ("spec.volumes[].hostDisk.shared",),
    "domain/network.py": ("spec.networks[].pod.vmIPv6NetworkCIDR",),
    "domain/paths.py": (
        "spec.volumes[].dataVolume.name",
        "spec.volumes[].persistentVolumeClaim.claimName",
        "spec.volumes[].persistentVolumeClaim.readOnly",
    ),
    "handler/start.py": ("spec.startStrategy",),
    "launcher/cloudinit.py": tuple(
        f"spec.volumes[].{kind}.{key}" for kind in SEEDS for key in ("userDataBase64", "networkDataBase64")
    ),
    "launcher/dhcp.py": tuple(
        f"spec.domain.devices.interfaces[].dhcpOptions.{key}"
        for key in (
            "bootFileName",
            "ntpServers",
            "privateOptions[].option",
            "privateOptions[].value",
            "tftpServerName",
        )
    ),
    "launcher/disks.py": (
        "spec.volumes[].containerDisk.path",
        "spec.volumes[].emptyDisk.capacity",
        "spec.volumes[].hostDisk.capacity",
    ),
    "launcher/files.py": (
        *(f"spec.volumes[].{kind}.volumeLabel" for kind in ("configMap", "secret", "downwardAPI")),
        "spec.volumes[].sysprep.secret.name",
    ),
    "launcher/filesystems.py": ("spec.volumes[].containerPath.path",),
}

#: Fields that nothing needs to read, with the reason.
NOTHING: dict[str, str] = {
    "spec.domain.devices.disks[].lun.reservation": "admission refuses it, with its gate and without",
    "spec.domain.devices.filesystems[].virtiofs": "the only way to share one, so it has no other value",
    "spec.domain.devices.gpus[].claimName": "no Pod is made, and a condition says so",
    "spec.domain.devices.gpus[].requestName": "no Pod is made, and a condition says so",
    "spec.domain.devices.hostDevices[].claimName": "no Pod is made, and a condition says so",
    "spec.domain.devices.hostDevices[].requestName": "no Pod is made, and a condition says so",
    "spec.domain.devices.interfaces[].macvtap": "admission refuses it",
    "spec.domain.devices.interfaces[].passt": "admission refuses it",
    "spec.domain.devices.interfaces[].slirp": "admission refuses it",
    "spec.domain.devices.watchdog.diag288.action": "of s390x, whose machines are never scheduled",
    "spec.domain.launchSecurity.snp.attestation": "such a guest asks its processor itself",
    "spec.domain.launchSecurity.tdx": "admission refuses it",
    "spec.networks[].resourceClaim.claimName": "no Pod is made, and a condition says so",
    "spec.networks[].resourceClaim.requestName": "no Pod is made, and a condition says so",
    "spec.resourceClaims[].name": "for devices, of which no Pod is made",
    "spec.resourceClaims[].resourceClaimName": "for devices, of which no Pod is made",
    "spec.resourceClaims[].resourceClaimTemplateName": "for devices, of which no Pod is made",
    "spec.utilityVolumes[].claimName": "admission refuses them",
    "spec.utilityVolumes[].name": "admission refuses them",
    "spec.utilityVolumes[].readOnly": "admission refuses them",
    "spec.utilityVolumes[].type": "admission refuses them",
    "spec.volumes[].containerPath.readOnly": "it always is",
    "spec.volumes[].ephemeral.persistentVolumeClaim.readOnly": "nothing is written to the claim in any case",
}


class Noting(dict[str, Any]):
    """A part of a spec, which notes what of it is read."""

    def __init__(self, content: dict[str, Any], path: str, read: set[str]) -> None:
        super().__init__({key: noting(value, f"{path}.{key}", read) for key, value in content.items()})
        self._path, self._read = path, read

    def _note(self, key: Any) -> None:
        self._read.add(f"{self._path}.{key}")

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self._note(key)
        return super().__contains__(key)

    # Also makes dict(…) and {**…} ask for each key
    def __iter__(self) -> Iterator[str]:
        return iter(list(super().keys()))

    def keys(self) -> Any:
        return list(super().keys())

    def items(self) -> Any:
        return [(key, self[key]) for key in self]

    def values(self) -> Any:
        return [self[key] for key in self]


def noting(value: Any, path: str, read: set[str]) -> Any:
    if isinstance(value, dict):
        return Noting(value, path, read)
    if isinstance(value, list):
        return [noting(item, f"{path}[]", read) for item in value]
    return value


def everything(kind: Type, path: str) -> Any:
    """Return a value that has all fields."""
    found = next((value for end, value in VALUES.items() if path.endswith(f".{end}")), None)
    if found is not None:
        return found
    if isinstance(kind, Struct):
        fields = {name: each for name, each in kind.fields.items() if each.refusal is None}
        return {name: everything(each.type, f"{path}.{name}") for name, each in fields.items()}
    if isinstance(kind, ListOf):
        return [everything(kind.item, f"{path}[]")]
    if isinstance(kind, MapOf):
        return {"key": everything(kind.value, f"{path}.key")}
    shape = kind.openapi()
    return "1" if "x-kubernetes-int-or-string" in shape else {"boolean": True, "integer": 1}.get(shape["type"], "a")


def variants(item: dict[str, Any], choices: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return an object once for each of its fields that exclude each other, and named after it if it has a name."""
    rest = {key: value for key, value in item.items() if key not in choices}
    found = []
    for choice in choices:
        name = {"name": choice.lower()} if "name" in item else {}
        found.append({**rest, **name, choice: item[choice]})
    return found


def machines() -> Iterator[dict[str, Any]]:
    """Give specs that together have all fields: each has one of those that exclude each other."""
    spec = everything(VMI_SPEC, "spec")
    domain = spec["domain"]
    devices = domain["devices"]
    (disk,), (interface,), (volume,) = devices["disks"], devices["interfaces"], spec["volumes"]
    targets = {name: target for target in variants(disk, TARGETS) for name in TARGETS if name in target}
    spec["volumes"] = variants(volume, VOLUME_SOURCES)
    devices["disks"] = [
        {**targets["cdrom" if each["name"] == "sysprep" else "disk"], "name": each["name"]}
        for each in spec["volumes"]
        if each["name"] not in NO_DISKS
    ]
    devices["filesystems"] = [{"name": "containerpath", "virtiofs": {}}]
    for binding in ("slirp", "passt", "macvtap"):
        del interface[binding]
    devices["interfaces"] = variants(interface, BINDINGS)
    pod, multus = variants(spec["networks"][0], ("pod", "multus"))
    spec["networks"] = [{**(pod if name in ON_POD else multus), "name": name.lower()} for name in BINDINGS]
    securities = variants(domain["launchSecurity"], ("sev", "snp"))
    loaders = variants(domain["firmware"]["bootloader"], ("bios", "efi"))
    probes = variants(spec["livenessProbe"], ("httpGet", "tcpSocket", "exec", "guestAgentPing"))
    for (security, loader), probe in zip(product(securities, loaders), probes, strict=True):
        firmware = {**domain["firmware"], "bootloader": loader}
        yield {
            **spec,
            **dict.fromkeys(PROBES, probe),
            "domain": {**domain, "launchSecurity": security, "firmware": firmware},
        }


def make(spec: dict[str, Any], tmp_path: Path) -> None:
    """Make what a machine consists of."""
    metadata = {"name": "testvm", "namespace": "default", "uid": "6f1c2f0e-5b86-4c3a-9a06-0f2f3b6c1d11"}
    vmi: Any = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": metadata, "spec": spec}
    vmi["status"] = {"VSOCKCID": 7}
    config = LauncherConfig("launcher", kvm=True, vhost_net=True, image_volumes=False, cluster=CLUSTER)
    json.dumps(launcher_pod(vmi, config))
    plans = network.plans(vmi, POD_INTERFACES)
    assigned = {variable(PCI_PREFIX, RESOURCE): "0000:01:00.0,0000:02:00.0"}
    for kvm in (True, False):
        host = definition.Host(
            kvm, assigned=assigned, processors=tuple(range(64)), cluster=CLUSTER, network_info={"sriov": "0000:03:00.0"}
        )
        definition.domain_xml(vmi, plans, host)
    for volume in spec["volumes"]:
        if any(kind in volume for kind in ("cloudInitNoCloud", "cloudInitConfigDrive")):
            cloudinit.seed_files(volume, vmi, tmp_path)


def test_all_fields_are_read(tmp_path: Path) -> None:
    read: set[str] = set()
    for spec in machines():
        make(noting(spec, "spec", read), tmp_path)
    fields = {f"spec.{path}" for path, field in VMI_SPEC.leaves("") if field.refusal is None and not field.idle}
    elsewhere = [path for paths in ELSEWHERE.values() for path in paths]
    assert sorted(fields - read) == sorted([*elsewhere, *NOTHING]), "a field that nothing reads, or an entry too many"


@pytest.mark.parametrize("module", ELSEWHERE)
def test_fields_are_read_elsewhere(module: str) -> None:
    text = (ROOT / module).read_text()
    for path in ELSEWHERE[module]:
        name = path.rpartition(".")[2]
        assert re.search(rf"[\"']{name}[\"']", text), f"{module} doesn't read {path}"
