# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a definition about processors, memory, firmware and features."""

from __future__ import annotations

import dataclasses
import os
from typing import Any
from xml.etree import ElementTree

import pytest

from turtles.domain import definition
from turtles.domain.definition import Host

from .test_definition import GOLDEN, violation, vmi

#: What a Windows guest with secure boot asks for, which can grow while it runs.
WINDOWS = vmi(
    {
        "cpu": {"sockets": 2, "cores": 2, "maxSockets": 4, "model": "host-passthrough"},
        "memory": {"guest": "2Gi", "maxGuest": "8Gi", "hugepages": {"pageSize": "2Mi"}},
        "firmware": {"bootloader": {"efi": {}}, "serial": "w-1"},
        "features": {
            "apic": {"enabled": True, "endOfInterrupt": True},
            "smm": {"enabled": True},
            "kvm": {"hidden": True},
            "pvspinlock": {"enabled": False},
            "hyperv": {
                "relaxed": {"enabled": True},
                "spinlocks": {"enabled": True, "spinlocks": 8191},
                "vpindex": {"enabled": True},
                "synic": {"enabled": True},
                "synictimer": {"enabled": True, "direct": {"enabled": True}},
                "vendorid": {"enabled": True, "vendorid": "turtles"},
                "evmcs": {"enabled": False},
            },
        },
        "clock": {"utc": {}, "timezone": "Europe/Berlin", "timer": {"hyperv": {"present": True}}},
        "chassis": {"manufacturer": "Example", "asset": "A 1"},
        "rebootPolicy": "Terminate",
    },
    architecture="amd64",
)
#: A guest whose processors are its own, spread over two NUMA nodes.
REALTIME = vmi(
    {
        "cpu": {
            "cores": 4,
            "maxSockets": 4,
            "dedicatedCpuPlacement": True,
            "isolateEmulatorThread": True,
            "numa": {"guestMappingPassthrough": {}},
            "realtime": {"mask": "1-3"},
        },
        "memory": {"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}},
    },
    architecture="amd64",
)
KERNEL = vmi(
    {
        "memory": {"guest": "64Mi"},
        "firmware": {
            "bootloader": {"bios": {"useSerial": True}},
            "kernelBoot": {
                "kernelArgs": "console=ttyS0",
                "container": {"image": "x", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"},
            },
            "acpi": {"slicNameRef": "license"},
        },
        "features": {"hypervPassthrough": {"enabled": True}, "apic": {"enabled": False}},
    },
    volumes=[{"name": "license", "secret": {"secretName": "s"}}],
)
KERNEL["metadata"]["annotations"] = {"kubevirt.io/ignitiondata": "{}"}
SEV = vmi(
    {
        "memory": {"guest": "64Mi"},
        "firmware": {"bootloader": {"efi": {"secureBoot": False}}},
        "launchSecurity": {"sev": {"policy": {"encryptedState": True}, "dhCert": "AA==", "session": "AA=="}},
    }
)
NODE = Host(kvm=True, processors=(2, 3, 10, 11, 4), numa={2: 0, 3: 0, 4: 0, 10: 1, 11: 1})
CASES = {
    "windows": (WINDOWS, Host(kvm=True)),
    "windows-emulated": (WINDOWS, Host(kvm=False)),
    "realtime": (REALTIME, NODE),
    "kernel": (KERNEL, Host(kvm=True)),
    "sev": (SEV, Host(kvm=True)),
}


def render(name: str) -> str:
    obj, host = CASES[name]
    return definition.domain_xml(obj, [], host) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    """To accept a change: UPDATE_GOLDEN=1 pytest, then read the difference."""
    path = GOLDEN / f"{name}.xml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(render(name))
    assert render(name) == path.read_text()


@pytest.mark.parametrize("name", CASES)
def test_schema(name: str) -> None:
    assert violation(render(name)) == ""


def parsed(domain: dict[str, Any], host: Host | None = None, **spec: Any) -> ElementTree.Element:
    obj = vmi({"memory": {"guest": "1Gi"}, **domain}, **spec)
    return ElementTree.fromstring(definition.domain_xml(obj, [], host or Host(kvm=False)))


def test_a_machine_that_cannot_grow_has_no_headroom() -> None:
    root = parsed({"cpu": {"cores": 2}})
    vcpu = root.find("vcpu")
    assert vcpu is not None
    assert (vcpu.text, vcpu.get("current")) == ("2", None)
    assert root.find("vcpus") is None
    assert root.find("maxMemory") is None
    assert root.find("devices/memory") is None


@pytest.mark.parametrize(
    ("memory", "architecture", "grows"),
    [
        ({"guest": "1Gi", "maxGuest": "4Gi"}, "amd64", True),
        ({"guest": "1Gi", "maxGuest": "1Gi"}, "amd64", False),
        ({"guest": "512Mi", "maxGuest": "4Gi"}, "amd64", False),
        ({"guest": "1Gi", "maxGuest": "4Gi"}, "s390x", False),
    ],
)
def test_only_memory_that_can_be_used_is_added(memory: dict[str, str], architecture: str, *, grows: bool) -> None:
    root = parsed({"memory": memory}, architecture=architecture)
    assert (root.find("maxMemory") is not None) is grows
    assert (root.find("cpu/numa/cell") is not None) is grows
    assert (root.findtext("devices/memory/target/size") == str(3 * 1024**2)) is grows


@pytest.mark.parametrize(
    ("efi", "code", "secure", "template"),
    [
        ({}, "OVMF_CODE_4M.ms.fd", "yes", "OVMF_VARS_4M.ms.fd"),
        ({"secureBoot": True}, "OVMF_CODE_4M.ms.fd", "yes", "OVMF_VARS_4M.ms.fd"),
        ({"secureBoot": False}, "OVMF_CODE_4M.fd", "no", "OVMF_VARS_4M.fd"),
    ],
)
def test_efi(efi: dict[str, Any], code: str, secure: str, template: str) -> None:
    os_ = parsed({"firmware": {"bootloader": {"efi": efi}}}).find("os")
    assert os_ is not None
    loader, nvram = os_.find("loader"), os_.find("nvram")
    assert loader is not None
    assert nvram is not None
    assert (loader.text, loader.get("secure")) == (f"/usr/share/OVMF/{code}", secure)
    assert nvram.get("template") == f"/usr/share/OVMF/{template}"


def test_too_few_processors_of_its_own() -> None:
    few = dataclasses.replace(NODE, processors=(2, 3, 10, 11))
    with pytest.raises(ValueError, match=r"needs 5 processors of the node, and the Pod has 4; .* policy static"):
        definition.domain_xml(REALTIME, [], few)


def test_a_clock_that_says_utc_and_a_time_zone_has_utc() -> None:
    clock = parsed({"clock": {"utc": {}, "timezone": "Europe/Berlin"}}).find("clock")
    assert clock is not None
    assert clock.get("offset") == "utc"
