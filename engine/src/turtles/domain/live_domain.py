# SPDX-License-Identifier: GPL-3.0-or-later
"""What the XML of a running domain says, which its Pod may have made up."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from turtles.domain import definition
from turtles.domain.untrusted import INTERFACES, MAC, printable
from turtles.domain.xml import AnswerError, parse

#: Of what a Pod says about its domain. An int64 is what quantities may be (KiB here).
_MACHINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_KIBIBYTES = re.compile(r"[0-9]{1,15}", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,6}", re.ASCII)
MEMORY_DEVICE = f"devices/memory[@model='virtio-mem']/alias[@name='{definition.MEMORY_ALIAS}']/.."
_TARGETS = "devices/disk/target"
_DEVICE = re.compile(r"[a-z]{2,16}")
ALIAS_PREFIX = "ua-"
#: How many of a domain's disks are looked at; a VMI may have 256 volumes.
_DISKS = 512


@dataclass(frozen=True)
class MemoryDevice:
    """What gives a guest more memory, in bytes: how much it can give, is to give, and gives."""

    size: int
    requested: int
    current: int


@dataclass(frozen=True)
class LiveDisk:
    """A disk of a running domain: its device name in the guest, and whether there is a medium in it."""

    target: str
    loaded: bool = True


@dataclass(frozen=True)
class Live:
    """What the XML of a running domain adds to what was defined; ``macs`` are by the interface's name, ``disks`` by the
    disk's.

    ``links``: whether interfaces have a link, by their MACs in lower case. ``buses``: those that have a controller.
    """

    machine: str
    emulated: bool
    agent_connected: bool
    memory: int
    macs: dict[str, str]
    vcpus: int = 0
    most_vcpus: int = 0
    memory_device: MemoryDevice | None = None
    links: Mapping[str, bool] = field(default_factory=dict)
    disks: Mapping[str, LiveDisk] = field(default_factory=dict)
    targets: frozenset[str] = frozenset()
    buses: frozenset[str] = frozenset()

    def has_interface(self, name: str, mac: str) -> bool:
        """Say whether the guest has an interface, by its name or, since a sidecar may have changed that, its MAC."""
        return name in self.macs or mac in self.links


def read_live(xml: str) -> Live:
    """Read a running domain's XML, which its Pod may have made up. ``memory`` is in bytes.

    :raises AnswerError: if it can't be read, or has values that no domain has.
    """
    root = parse(xml, "the domain's XML")
    type_ = root.find("os/type")
    channel = root.find("devices/channel/target[@name='org.qemu.guest_agent.0']")
    device = _memory_device(root)
    return Live(
        machine=_checked(type_.get("machine", ""), _MACHINE, "os/type/@machine") if type_ is not None else "",
        emulated=root.get("type") == "qemu",
        agent_connected=channel is not None and channel.get("state") == "connected",
        memory=_memory(root, device),
        macs=_macs(root),
        **_vcpus(root),
        memory_device=device,
        links=_links(root),
        disks=_disks(root),
        targets=frozenset(each.get("dev", "") for each in itertools.islice(root.iterfind(_TARGETS), _DISKS)),
        buses=frozenset(each.get("type", "") for each in root.iterfind("devices/controller")),
    )


def _disks(root: Element) -> dict[str, LiveDisk]:
    """Return the disks whose aliases the engine has given, by their names."""
    disks = {}
    for disk in itertools.islice(root.iterfind("devices/disk"), _DISKS):
        alias, target, source = disk.find("alias"), disk.find("target"), disk.find("source")
        name = alias.get("name", "") if alias is not None else ""
        if target is None or not name.startswith(ALIAS_PREFIX):
            continue
        device = _checked(target.get("dev", ""), _DEVICE, "disk/target/@dev")
        loaded = source is not None and bool(source.get("file") or source.get("dev"))
        disks[name.removeprefix(ALIAS_PREFIX)] = LiveDisk(device, loaded)
    return disks


def _memory(root: Element, device: MemoryDevice | None) -> int:
    # currentMemory counts all that the device could give, until the balloon tells it.
    name = "currentMemory" if device is None else "memory"
    total = int(_checked((root.findtext(name) or "0").strip(), _KIBIBYTES, name)) * 1024
    return total if device is None else max(0, total - device.size + device.current)


def _vcpus(root: Element) -> dict[str, int]:
    vcpu = root.find("vcpu")
    if vcpu is None:
        return {}
    most = int(_checked((vcpu.text or "0").strip(), _COUNT, "vcpu") or 0)
    return {"vcpus": int(_checked(vcpu.get("current", ""), _COUNT, "vcpu/@current") or most), "most_vcpus": most}


def _memory_device(root: Element) -> MemoryDevice | None:
    device = root.find(MEMORY_DEVICE)
    if device is None:
        return None
    amounts = {}
    for name in ("size", "requested", "current"):
        text = (device.findtext(f"target/{name}") or "0").strip()
        amounts[name] = int(_checked(text, _KIBIBYTES, f"devices/memory/target/{name}")) * 1024
    return MemoryDevice(**amounts)


def _macs(root: Element) -> dict[str, str]:
    macs = {}
    for interface in itertools.islice(root.iterfind("devices/interface"), INTERFACES):
        alias, mac = interface.find("alias"), interface.find("mac")
        if alias is not None and mac is not None:
            name = alias.get("name", "").removeprefix("ua-")
            macs[name] = _checked(mac.get("address", ""), MAC, "devices/interface/mac/@address")
    return macs


def _links(root: Element) -> dict[str, bool]:
    links = {}
    for interface in itertools.islice(root.iterfind("devices/interface"), INTERFACES):
        mac, link = interface.find("mac"), interface.find("link")
        if mac is not None:
            links[mac.get("address", "").lower()] = link is None or link.get("state") != "down"
    return links


def _checked(value: str, pattern: re.Pattern[str], where: str) -> str:
    if value and not pattern.fullmatch(value):
        raise AnswerError(f"the domain's XML has {printable(value)[:80]!r} for {where}")
    return value
