# SPDX-License-Identifier: GPL-3.0-or-later
"""Real guests: firmware, a kernel from an image, processors and memory that are added while they run."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from turtles.api import labels
from turtles.domain import definition, growth, paths
from turtles.domain.device_requests import memory_request
from turtles.domain.live_domain import MemoryDevice, read_live

from . import kernel
from .conftest import VMI_UID, Pod, make_vmi, wait_for

pytestmark = pytest.mark.root
CACHE = Path("~/.cache/turtles-kubevirt/kernel").expanduser()
GIB = 1 << 30


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> kernel.Kernel:
    unpacked = kernel.fetch(CACHE)
    if unpacked is None:
        pytest.skip("the distribution's kernel can't be had")
    return kernel.make(unpacked, tmp_path_factory.mktemp("kernel"))


def machine(**domain: Any) -> dict[str, Any]:
    return make_vmi(
        architecture="amd64",
        domain={
            "devices": {"interfaces": [], "autoattachMemBalloon": False},
            "machine": {"type": "q35"},
            "resources": {},
            **domain,
        },
    )


def with_kernel(firmware: dict[str, Any]) -> dict[str, Any]:
    container = {"image": "example.org/kernel", "kernelPath": "/boot/vmlinuz", "initrdPath": "boot/initrd.img"}
    return {**firmware, "kernelBoot": {"kernelArgs": "console=ttyS0 quiet turtles=1", "container": container}}


class Console:
    """What a guest says on its serial console."""

    def __init__(self, pod: Pod) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(pod.inside(paths.serial_socket(VMI_UID))))
        self._socket.settimeout(1)
        self.text = ""

    def wait(self, pattern: str, timeout: float = 180) -> re.Match[str]:
        """Return the next match."""
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self.text)):
            assert time.monotonic() < deadline, f"no {pattern}; the guest says {self.text[-2000:]!r}"
            try:
                self.text += self._socket.recv(65536).decode(errors="replace")
            except TimeoutError:
                continue
        self.text = self.text[match.end() :]
        return match

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def consoles() -> Iterator[list[Console]]:
    opened: list[Console] = []
    yield opened
    for console in opened:
        console.close()


def start(
    pod: Pod,
    vmi: dict[str, Any],
    guest: kernel.Kernel | None = None,
    host: definition.Host | None = None,
    **around: Any,
) -> libvirt.virDomain:
    """Start the domain as the node agent does."""
    if guest is not None:
        pod.image(paths.KERNEL_IMAGE, {"boot/vmlinuz": guest.kernel, "boot/initrd.img": guest.initrd})
    pod.start(vmi, **around)
    connection = pod.connect()
    if guest is not None:
        wait_for(lambda: pod.inside(paths.KERNEL).is_symlink(), f"the kernel; log: {pod.log}")
    domain = connection.defineXML(definition.domain_xml(vmi, [], host or definition.Host(kvm=False)))
    domain.create()
    domain.connection = connection
    return domain


@pytest.mark.parametrize(
    ("firmware", "features", "efi"),
    [
        ({}, {}, "no"),
        ({"bootloader": {"efi": {"secureBoot": False}}}, {"smm": {"enabled": True}}, "yes"),
    ],
)
def test_a_kernel_from_an_image(pod, guest, consoles, firmware, features, efi):
    vmi = machine(memory={"guest": "256Mi"}, firmware=with_kernel(firmware), features=features)
    vmi["metadata"]["annotations"] = {labels.IGNITION: '{"ignition": {"version": "3.2.0"}}', "other": "x"}
    start(pod, vmi, guest)
    consoles.append(Console(pod))
    said = consoles[0].wait(r"guest: efi=(\w+) processors=1 mebibytes=\d+ arguments=(.*)\r")
    assert said[1] == efi
    assert "turtles=1" in said[2]
    command = Path(f"/proc/{pod.children()['qemu-system-x86']}/cmdline").read_text()
    assert f"name=opt/com.coreos/config,file={paths.IGNITION}" in command


def test_secure_boot(pod, consoles):
    """The firmware refuses what nobody signed; without a disk, it just has to come up."""
    vmi = machine(
        memory={"guest": "256Mi"},
        firmware={"bootloader": {"efi": {}}},
        features={"acpi": {}, "smm": {"enabled": True}},
    )
    domain = start(pod, vmi)
    assert domain.isActive()
    consoles.append(Console(pod))
    assert consoles[0].wait(r"UEFI|BdsDxe|Shell")


def test_processors_and_memory_are_added(pod, guest, consoles):
    vmi = machine(
        cpu={"sockets": 1, "cores": 1, "threads": 1, "maxSockets": 4},
        memory={"guest": "1Gi", "maxGuest": "4Gi"},
        firmware=with_kernel({}),
    )
    domain = start(pod, vmi, guest)
    consoles.append(Console(pod))
    before = int(consoles[0].wait(r"guest: efi=no processors=1 mebibytes=(\d+)\s")[1])
    live = read_live(domain.XMLDesc())
    assert (live.vcpus, live.most_vcpus, live.memory) == (1, 4, GIB)
    assert live.memory_device == MemoryDevice(3 * GIB, 0, 0)
    vmi["status"] = {"memory": {"guestAtBoot": "1Gi"}}
    assert growth.changes(vmi, live) == []

    vmi["spec"]["domain"]["cpu"]["sockets"] = 3
    vmi["spec"]["domain"]["memory"]["guest"] = "2Gi"
    processors, memory = growth.changes(vmi, live)
    domain.setVcpusFlags(processors.amount, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    xml = memory_request(domain.XMLDesc(), memory.amount)
    domain.updateDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    after = int(consoles[0].wait(r"guest: efi=no processors=3 mebibytes=(\d{4})\s")[1])
    assert after >= before
    wait_for(lambda: growth.changes(vmi, read_live(domain.XMLDesc())) == [], "the guest to take the memory", 120)
    consoles[0].text = ""
    assert int(consoles[0].wait(r"guest: efi=no processors=3 mebibytes=(\d+)\s")[1]) >= before + 1000
    live = read_live(domain.XMLDesc())
    assert (live.vcpus, live.memory) == (3, 2 * GIB)
    assert live.memory_device == MemoryDevice(3 * GIB, GIB, GIB)


def test_features_clock_and_processors_of_its_own(pod, consoles):
    processors = tuple(sorted(os.sched_getaffinity(0)))
    if len(processors) < 2:
        pytest.skip("needs two processors")
    vmi = machine(
        cpu={"cores": 1, "dedicatedCpuPlacement": True, "isolateEmulatorThread": True, "model": "Westmere"},
        memory={"guest": "64Mi"},
        firmware={"bootloader": {"bios": {"useSerial": True}}, "serial": "s-1"},
        features={
            "acpi": {},
            "apic": {"endOfInterrupt": True},
            "kvm": {"hidden": True},
            "pvspinlock": {"enabled": False},
            "smm": {},
            "hyperv": {"relaxed": {}, "vapic": {}, "spinlocks": {"spinlocks": 8191}, "vpindex": {}, "synic": {}},
        },
        clock={
            "timezone": "Europe/Berlin",
            "timer": {
                "hpet": {"present": False},
                "pit": {"tickPolicy": "delay"},
                "rtc": {"tickPolicy": "catchup", "track": "guest"},
                "kvm": {},
                "hyperv": {},
            },
        },
        chassis={"manufacturer": "Example", "version": "1", "serial": "2", "asset": "3", "sku": "4"},
        rebootPolicy="Terminate",
    )
    host = definition.Host(kvm=False, processors=processors, numa=dict.fromkeys(processors, 0))
    domain = start(pod, vmi, host=host)
    (pinned,) = domain.vcpuPinInfo(libvirt.VIR_DOMAIN_AFFECT_LIVE)
    emulator = domain.emulatorPinInfo(libvirt.VIR_DOMAIN_AFFECT_LIVE)
    assert [pinned.index(True), pinned.count(True)] == [processors[0], 1]
    assert [emulator.index(True), emulator.count(True)] == [processors[1], 1]
    consoles.append(Console(pod))
    assert consoles[0].wait("SeaBIOS")


def free_huge_pages() -> int:
    return int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())


@pytest.mark.skipif(free_huge_pages() < 80, reason="this machine has no huge pages")
def test_huge_pages(pod):
    folder = pod.base / "volumes/hugepages"
    folder.mkdir()
    subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M,mode=777", "hugetlbfs", folder], check=True)
    try:
        before = free_huge_pages()
        start(pod, machine(memory={"guest": "128Mi", "hugepages": {"pageSize": "2Mi"}}), hugePages="volumes/hugepages")
        assert free_huge_pages() <= before - 64
        pod.end()
    finally:
        subprocess.run(["umount", folder], check=True)
