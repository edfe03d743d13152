# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of a VMI's status that follow from its domain and from its guest agent. Pure."""

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from turtles.api import quantity
from turtles.api.kinds.vmi import hotplug
from turtles.domain import definition
from turtles.domain.xml import AnswerError, parse

#: How long a name may be that a guest or its Pod has made up, and how many interfaces of a guest are looked at.
_NAME_LENGTH, _INTERFACES = 256, 256
#: How many addresses of each are looked at.
_ADDRESSES = 64
#: The guest's own, which nobody reaches.
_LOOPBACK = "lo"
#: Of what a Pod says about its domain. An int64 is what quantities may be (KiB here).
_MACHINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
_KIBIBYTES = re.compile(r"[0-9]{1,15}", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,6}", re.ASCII)
_MEMORY_DEVICE = f"devices/memory[@model='virtio-mem']/alias[@name='{definition.MEMORY_ALIAS}']/.."
_TARGETS = "devices/disk/target"
_DEVICE = re.compile(r"[a-z]{2,16}")
_ALIAS_PREFIX = "ua-"
#: Phases of a volume that the guest's memory is written to.
_DUMPS = (hotplug.DUMPING, hotplug.DUMPED, hotplug.DUMP_FAILED)
#: How many of a domain's disks are looked at; a VMI may have 256 volumes.
_DISKS = 512
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")

#: Commands of the guest agent without which parts of the status and of the subresources don't work.
_AGENT_COMMANDS = (
    "guest-ping",
    "guest-info",
    "guest-shutdown",
    "guest-get-osinfo",
    "guest-network-get-interfaces",
    "guest-get-fsinfo",
    "guest-get-host-name",
    "guest-get-users",
    "guest-get-timezone",
)
_OS_KEYS = {
    "name": "os.name",
    "id": "os.id",
    "prettyName": "os.pretty-name",
    "version": "os.version",
    "versionId": "os.version-id",
    "kernelRelease": "os.kernel-release",
    "kernelVersion": "os.kernel-version",
    "machine": "os.machine",
}


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
class Plugged:
    """How far a volume is that comes or goes while the guest runs.

    :param mounted: the launcher sees its claim. :param failure: why it can't be plugged in or unplugged.
    """

    mounted: bool
    failure: str = ""


@dataclass(frozen=True)
class Dump:
    """A dump of a guest's memory: the file, when it began and ended (RFC 3339), and why it failed."""

    file: str
    started: str
    ended: str = ""
    failure: str = ""


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


@dataclass(frozen=True)
class AgentInterface:
    """A network interface as the guest sees it: its name, and addresses without those of the link alone."""

    name: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class GuestInfo:
    """What the guest agent said: status.guestOSInfo, the guest's interfaces by MAC, which commands it lacks.

    ``frozen``: the guest's file systems are. Then it says nothing else, and what it said before holds.
    """

    missing: tuple[str, ...] = ()
    os_info: dict[str, str] = field(default_factory=dict)
    interfaces: Mapping[str, AgentInterface] = field(default_factory=dict)
    frozen: bool = False


def live(xml: str) -> Live:
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
    found = {}
    for disk in itertools.islice(root.iterfind("devices/disk"), _DISKS):
        alias, target, source = disk.find("alias"), disk.find("target"), disk.find("source")
        name = alias.get("name", "") if alias is not None else ""
        if target is None or not name.startswith(_ALIAS_PREFIX):
            continue
        device = _checked(target.get("dev", ""), _DEVICE, "disk/target/@dev")
        loaded = source is not None and bool(source.get("file") or source.get("dev"))
        found[name.removeprefix(_ALIAS_PREFIX)] = LiveDisk(device, loaded)
    return found


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
    device = root.find(_MEMORY_DEVICE)
    if device is None:
        return None
    amounts = {}
    for name in ("size", "requested", "current"):
        text = (device.findtext(f"target/{name}") or "0").strip()
        amounts[name] = int(_checked(text, _KIBIBYTES, f"devices/memory/target/{name}")) * 1024
    return MemoryDevice(**amounts)


def medium_request(xml: str, disk: str, path: str | None) -> str:
    """Return the device of a drive with another medium, as XML. All else of it has to stay as it is.

    :param xml: a running domain's. :param disk: the drive's name. :param path: of the medium; None ejects it.
    :raises AnswerError: if there is no such drive.
    """
    device = parse(xml, "the domain's XML").find(f"devices/disk/alias[@name='{_ALIAS_PREFIX}{disk}']/..")
    if device is None:
        raise AnswerError(f"the domain's XML has no drive {disk}")
    for name in ("source", "backingStore"):
        for element in device.findall(name):
            device.remove(element)
    if path is not None:
        device.set("type", "file")
        driver = device.find("driver")
        if driver is None:
            driver = SubElement(device, "driver", name="qemu")
        driver.set("type", "raw")
        SubElement(device, "source", file=path)
    return tostring(device, encoding="unicode")


def memory_request(xml: str, requested: int) -> str:
    """Return the device of a running domain that gives it memory, told to give as many bytes. libvirt wants all of it.

    :raises AnswerError: if there is none, or it can't be read.
    """
    device = parse(xml, "the domain's XML").find(_MEMORY_DEVICE)
    amount = None if device is None else device.find("target/requested")
    if device is None or amount is None:
        raise AnswerError("the domain's XML has no device for memory")
    amount.set("unit", "KiB")
    amount.text = str(requested // 1024)
    return tostring(device, encoding="unicode")


def _macs(root: Element) -> dict[str, str]:
    macs = {}
    for interface in itertools.islice(root.iterfind("devices/interface"), _INTERFACES):
        alias, mac = interface.find("alias"), interface.find("mac")
        if alias is not None and mac is not None:
            name = alias.get("name", "").removeprefix("ua-")
            macs[name] = _checked(mac.get("address", ""), _MAC, "devices/interface/mac/@address")
    return macs


def _links(root: Element) -> dict[str, bool]:
    links = {}
    for interface in itertools.islice(root.iterfind("devices/interface"), _INTERFACES):
        mac, link = interface.find("mac"), interface.find("link")
        if mac is not None:
            links[mac.get("address", "").lower()] = link is None or link.get("state") != "down"
    return links


def link_request(xml: str, mac: str, *, up: bool) -> str:
    """Return the interface of a running domain that has this MAC, with its link up or down. libvirt wants all of it.

    :raises AnswerError: if there is none, or it can't be read.
    """
    for interface in parse(xml, "the domain's XML").iterfind("devices/interface"):
        address = interface.find("mac")
        if address is not None and address.get("address", "").lower() == mac:
            link = interface.find("link")
            link = SubElement(interface, "link") if link is None else link
            link.set("state", "up" if up else "down")
            return tostring(interface, encoding="unicode")
    raise AnswerError(f"the domain's XML has no interface with the MAC {mac}")


def _checked(value: str, pattern: re.Pattern[str], where: str) -> str:
    if value and not pattern.fullmatch(value):
        raise AnswerError(f"the domain's XML has {_name(value)[:80]!r} for {where}")
    return value


def _name(value: object) -> str:
    """Return a text from a guest for a status: one line that isn't too long."""
    return _UNPRINTABLE.sub(" ", str(value)[:_NAME_LENGTH])


def missing_agent_commands(guest_info: object) -> list[str]:
    """Return the commands that a guest agent lacks or has switched off, from its answer to ``guest-info``.

    What counts is what an agent can do: its version number is QEMU's and says little.

    :raises AnswerError: if it isn't that command's answer.
    """
    commands = guest_info.get("supported_commands", []) if isinstance(guest_info, Mapping) else None
    if not isinstance(commands, list):
        raise AnswerError("guest-info returned an unexpected result")
    enabled = {str(item.get("name")) for item in commands if isinstance(item, Mapping) and item.get("enabled", True)}
    return [command for command in _AGENT_COMMANDS if command not in enabled]


def guest_os_info(info: Mapping[str, Any]) -> dict[str, str]:
    """Return status.guestOSInfo from the dictionary of libvirt's ``virDomainGetGuestInfo`` (OS part)."""
    return {key: _name(info[source]) for key, source in _OS_KEYS.items() if info.get(source)}


def agent_interfaces(info: Mapping[str, Any]) -> dict[str, AgentInterface]:
    """Return the guest's interfaces by MAC, from ``virDomainGetGuestInfo`` (interface part)."""
    return dict(_agent_interfaces(info))


def _agent_interfaces(info: Mapping[str, Any]) -> Iterator[tuple[str, AgentInterface]]:
    for index in range(min(int(info.get("if.count", 0)), _INTERFACES)):
        mac, name = info.get(f"if.{index}.hwaddr"), info.get(f"if.{index}.name")
        if mac and name and name != _LOOPBACK and _MAC.fullmatch(str(mac)):
            yield str(mac).lower(), AgentInterface(_name(name), tuple(_agent_addresses(info, f"if.{index}.addr")))


def _agent_addresses(info: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for index in range(min(int(info.get(f"{prefix}.count", 0)), _ADDRESSES)):
        with contextlib.suppress(ValueError):
            address = ip_address(str(info.get(f"{prefix}.{index}.addr")))
            if not address.is_link_local:
                yield str(address)


def cpu_topology(spec: Mapping[str, Any], vcpus: int = 0) -> dict[str, int]:
    """Return status.currentCPUTopology.

    :param vcpus: that the guest has; 0 if not known.
    """
    topology = definition.cpu_topology(spec)
    sockets = vcpus // (topology.cores * topology.threads) or topology.sockets
    return {"cores": topology.cores, "sockets": sockets, "threads": topology.threads}


def memory(spec: Mapping[str, Any], current: int, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return status.memory.

    :param current: what the balloon leaves the guest, in bytes; 0 if not known, as while libvirtd starts again.
    :param before: the status.memory there is: what the guest booted with stays, and so does what isn't known now.
    """
    wanted = quantity.format_binary(definition.guest_memory(spec))
    before = before or {}
    return {
        **before,
        "guestAtBoot": before.get("guestAtBoot") or wanted,
        "guestCurrent": quantity.format_binary(current) if current else before.get("guestCurrent") or wanted,
        "guestRequested": wanted,
    }


def volume_status(
    spec: Mapping[str, Any],
    before: Sequence[Mapping[str, Any]] | None,
    checksums: Mapping[str, int],
    disks: Mapping[str, LiveDisk] | None = None,
    plugged: Mapping[str, Plugged] | None = None,
    dumps: Mapping[str, Dump] | None = None,
) -> list[dict[str, Any]]:
    """Return status.volumeStatus with the guest's device names and sizes added, other keys and entries kept.

    :param checksums: those of container disks that are known, by the volumes' names.
    :param disks: the guest's disks; None if they aren't known.
    :param plugged: how far the volumes are that come or go while the guest runs.
    :param dumps: of its memory, by the volumes' names.
    """
    entries = {entry["name"]: dict(entry) for entry in before or ()}
    coming = hotplug.hotpluggable_volumes(spec)
    sizes = {volume["name"]: size for volume in spec.get("volumes") or () if (size := _asked_size(volume))}
    for name, target in definition.disk_targets(spec).items():
        if name in coming:
            continue
        entry = entries.setdefault(name, {"name": name})
        entry["target"] = disks[name].target if disks and name in disks else target
        if name in sizes:
            entry["size"] = sizes[name]
        if name in checksums:
            entry["containerDiskVolume"] = {"checksum": checksums[name]}
    for name, state in (plugged or {}).items():
        if name in entries and disks is not None:
            entries[name].update(_progress(name, name in coming, entries[name], disks.get(name), state))
    for name, dump in (dumps or {}).items():
        if name in entries and name in coming:
            entries[name].update(_dumped(name, entries[name], dump))
    return sorted(entries.values(), key=lambda entry: str(entry["name"]))


def _dumped(name: str, before: Mapping[str, Any], dump: Dump) -> dict[str, Any]:
    """Return what is new about a volume to which memory is dumped."""
    info = {**(before.get("memoryDumpVolume") or {}), "startTimestamp": dump.started, "targetFileName": dump.file}
    if not dump.ended:
        words = f"Memory dump Volume {name} is attached, getting memory dump"
        phase, reason = hotplug.DUMPING, "VolumeMountedToPod"
    elif dump.failure:
        words, phase, reason = (
            f"Memory dump to pvc {name} failed: {dump.failure}",
            hotplug.DUMP_FAILED,
            "MemoryDumpError",
        )
    else:
        words, phase, reason = f"Memory dump Volume {name} has been completed", hotplug.DUMPED, "MemoryDumpCompleted"
    if dump.ended:
        info["endTimestamp"] = dump.ended
    return {"phase": phase, "reason": reason, "message": words, "memoryDumpVolume": info}


def dump_file(vmi: str, volume: str, now: str) -> str:
    """Return the name of a file for a VMI's memory.

    :param now: the current time (RFC 3339).
    """
    stamp = now[:19].replace("-", "").replace(":", "").replace("T", "-")
    return f"{vmi}-{volume}-{stamp}.memory.dump"


def _progress(
    name: str, wanted: bool, before: Mapping[str, Any], disk: LiveDisk | None, state: Plugged
) -> dict[str, Any]:
    """Return what is new about a volume that comes or goes.

    :param wanted: the VMI has it. :param before: its entry.
    """
    loaded = disk is not None and disk.loaded
    if wanted and loaded and disk is not None:
        words = f"Successfully attach hotplugged volume {name} to VM"
        return {"target": disk.target, "phase": hotplug.READY, "reason": "VolumeReady", "message": words}
    if wanted and state.failure:
        return {"reason": "FailedAttachVolume", "message": state.failure} | (
            {"phase": hotplug.MOUNTED} if state.mounted else {}
        )
    if wanted and state.mounted and before.get("phase") not in _DUMPS:
        words = f"Volume {name} has been mounted in virt-launcher pod"
        return {"phase": hotplug.MOUNTED, "reason": "VolumeMountedToPod", "message": words}
    if wanted:
        return {}
    if loaded:
        words = state.failure or f"The guest has been asked to release volume {name}"
        reason = "FailedDetachVolume" if state.failure else "VolumeDetaching"
        return {"phase": hotplug.DETACHING, "reason": reason, "message": words}
    if state.mounted:
        return {"target": "", "phase": hotplug.DETACHING, "message": state.failure, "reason": "VolumeUnplugged"}
    words = f"Volume {name} has been unmounted from virt-launcher pod"
    return {"target": "", "phase": hotplug.UNMOUNTED, "reason": "VolumeUnMountedFromPod", "message": words}


def _asked_size(volume: Mapping[str, Any]) -> int | None:
    """Return the bytes that a volume is to have; None if it doesn't say."""
    source = volume.get("emptyDisk") or volume.get("hostDisk") or {}
    return quantity.to_int(source["capacity"]) if source.get("capacity") else None
