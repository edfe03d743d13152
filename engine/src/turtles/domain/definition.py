# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstance → libvirt domain XML. Pure.

Sources: KubeVirt user guide ("Virtual hardware", "Disks and volumes", "Interfaces and networks") for what a field
means, libvirt's "Domain XML format" for how it is said. Names that users and tools rely on are KubeVirt's: the domain
is called ``<namespace>_<name>``, disks and interfaces have the alias ``ua-<name>``, SMBIOS says KubeVirt.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from turtles.api import quantity
from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.domain import paths
from turtles.domain.network import InterfacePlan

#: XML namespace of the element in which KubeVirt keeps the VMI's uid.
METADATA_NAMESPACE = "http://kubevirt.io"
#: Limit of the translated code QEMU keeps under emulation. Its own default grows to 1 GiB a guest.
TCG_CACHE_MIB = 32
#: Prefixes of guest device names, by bus.
_TARGET_PREFIX = {"virtio": "vd", "sata": "sd", "scsi": "sd", "usb": "sd"}
#: Volumes no guest boots from; they get no place in the automatic boot order.
_SEEDS = ("cloudInitNoCloud", "cloudInitConfigDrive")
#: Volumes that live and die with the Pod.
_POD_LOCAL = ("containerDisk", "emptyDisk", "cloudInitNoCloud", "cloudInitConfigDrive")
#: Models that negotiate the MTU with the guest.
_VIRTIO_MODELS = ("virtio", "virtio-transitional", "virtio-non-transitional")
_TIMER_NAMES = {"hpet": "hpet", "kvm": "kvmclock", "pit": "pit", "rtc": "rtc", "hyperv": "hypervclock"}
#: Timers that are KVM's own; an emulated guest has none of them.
_KVM_TIMERS = ("kvm", "hyperv")


@dataclass(frozen=True)
class Host:
    """What the node offers a domain.

    ``kvm``: hardware virtualisation can be used. ``no_direct_io``: volumes on a file system that can't bypass the page
    cache. ``cluster``: what the installation chooses for all of its machines.
    """

    kvm: bool
    emulator: str = "/usr/bin/qemu-system-x86_64"
    no_direct_io: frozenset[str] = field(default_factory=frozenset)
    cluster: ClusterConfiguration = DEFAULT


@dataclass(frozen=True)
class Topology:
    """Virtual CPUs as sockets of cores of threads."""

    sockets: int
    cores: int
    threads: int

    @property
    def vcpus(self) -> int:
        """Number of virtual CPUs."""
        return self.sockets * self.cores * self.threads


def cpu_topology(spec: Mapping[str, Any]) -> Topology:
    """Return the topology of a VMI's *spec*.

    Without any of cores, sockets and threads, limits.cpu (else requests.cpu), rounded up, says how many sockets.
    """
    domain = spec.get("domain") or {}
    cpu = domain.get("cpu") or {}
    if any(cpu.get(key) for key in ("cores", "sockets", "threads")):
        return Topology(int(cpu.get("sockets") or 1), int(cpu.get("cores") or 1), int(cpu.get("threads") or 1))
    resources = domain.get("resources") or {}
    amount = (resources.get("limits") or {}).get("cpu") or (resources.get("requests") or {}).get("cpu")
    return Topology(max(1, quantity.to_int(amount)) if amount else 1, 1, 1)


def guest_memory(spec: Mapping[str, Any]) -> int:
    """Return the guest's memory in bytes: memory.guest, else requests.memory, else limits.memory.

    :raises ValueError: if there is none of them, which admission should have refused.
    """
    domain = spec.get("domain") or {}
    resources = domain.get("resources") or {}
    for value in (
        (domain.get("memory") or {}).get("guest"),
        (resources.get("requests") or {}).get("memory"),
        (resources.get("limits") or {}).get("memory"),
    ):
        if value:
            return quantity.to_int(value)
    raise ValueError("no memory requested; set spec.domain.memory.guest")


def acpi_enabled(spec: Mapping[str, Any]) -> bool:
    """Say whether the guest can be asked to shut down by its power button."""
    acpi = ((spec.get("domain") or {}).get("features") or {}).get("acpi") or {}
    return bool(acpi.get("enabled", True))


def domain_uuid(vmi: Mapping[str, Any]) -> str:
    """Return the domain's UUID: firmware.uuid, else the VMI's own uid."""
    firmware = (vmi["spec"].get("domain") or {}).get("firmware") or {}
    return str(firmware.get("uuid") or vmi["metadata"]["uid"])


def disk_targets(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the guest device names (vda, sda, …) of a VMI's disks, by the disk's name, in the order of the spec."""
    counts: dict[str, int] = {}
    targets = {}
    for disk in _devices(spec).get("disks") or ():
        prefix = _TARGET_PREFIX[_bus(disk)]
        targets[disk["name"]] = prefix + _letters(counts.get(prefix, 0))
        counts[prefix] = counts.get(prefix, 0) + 1
    return targets


def domain_xml(vmi: Mapping[str, Any], plans: Sequence[InterfacePlan], host: Host) -> str:
    """Return the domain XML of a VMI.

    :param plans: how the VMI's interfaces are connected, one for each that the guest shall have.
    :raises ValueError: if the spec asks for what can't be expressed; the message names the object.
    """
    metadata, spec = vmi["metadata"], vmi["spec"]
    root = Element("domain", type="kvm" if host.kvm else "qemu")
    _text(root, "name", paths.domain_name(metadata["namespace"], metadata["name"]))
    _text(root, "uuid", domain_uuid(vmi))
    kubevirt = SubElement(SubElement(root, "metadata"), "kubevirt:kubevirt")
    kubevirt.set("xmlns:kubevirt", METADATA_NAMESPACE)
    _text(kubevirt, "kubevirt:uid", metadata["uid"])
    _text(root, "memory", str(math.ceil(guest_memory(spec) / 1024)), unit="KiB")
    topology = cpu_topology(spec)
    _text(root, "vcpu", str(topology.vcpus), placement="static")
    _os(root, spec)
    _sysinfo(root, vmi, host.cluster.smbios)
    _features(root, spec, host)
    _cpu(root, spec, topology, host)
    _clock(root, spec, host)
    _text(root, "on_poweroff", "destroy")
    _text(root, "on_reboot", "restart")
    _text(root, "on_crash", "destroy")
    devices = SubElement(root, "devices")
    _text(devices, "emulator", host.emulator)
    _disks(devices, spec, host, paths.block_volumes(vmi))
    _controllers(devices, spec)
    _interfaces(devices, spec, plans)
    _consoles(devices, vmi)
    _other_devices(devices, spec, host.cluster)
    indent(root)
    return tostring(root, encoding="unicode")


def _devices(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return (spec.get("domain") or {}).get("devices") or {}


def _text(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    element = SubElement(parent, tag, attributes)
    element.text = text
    return element


def _letters(index: int) -> str:
    """Return the index-th name of a, b, …, z, aa, ab, …"""
    name = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        name = chr(ord("a") + rest) + name
    return name


def _kind(disk: Mapping[str, Any]) -> str:
    return next((kind for kind in ("cdrom", "lun", "disk") if disk.get(kind) is not None), "disk")


def _bus(disk: Mapping[str, Any]) -> str:
    bus = str((disk.get(_kind(disk)) or {}).get("bus") or "sata")
    if bus not in _TARGET_PREFIX:
        raise ValueError(f"disk {disk['name']!r}: bus {bus!r} is not supported; use one of {', '.join(_TARGET_PREFIX)}")
    return bus


def _os(root: Element, spec: Mapping[str, Any]) -> None:
    os_ = SubElement(root, "os")
    machine = ((spec.get("domain") or {}).get("machine") or {}).get("type") or "q35"
    _text(os_, "type", "hvm", arch="x86_64", machine=machine)
    SubElement(os_, "smbios", mode="sysinfo")


def _sysinfo(root: Element, vmi: Mapping[str, Any], smbios: Mapping[str, str]) -> None:
    firmware = (vmi["spec"].get("domain") or {}).get("firmware") or {}
    system = SubElement(SubElement(root, "sysinfo", type="smbios"), "system")
    entries = {
        "manufacturer": smbios.get("manufacturer"),
        "product": smbios.get("product"),
        "version": smbios.get("version"),
        "serial": firmware.get("serial"),
        "uuid": domain_uuid(vmi),
        "sku": smbios.get("sku"),
        "family": smbios.get("family"),
    }
    for name, value in entries.items():
        if value:
            _text(system, "entry", str(value), name=name)


def _features(root: Element, spec: Mapping[str, Any], host: Host) -> None:
    features = SubElement(root, "features")
    if acpi_enabled(spec):
        SubElement(features, "acpi")
    SubElement(features, "apic")
    if not host.kvm:
        _text(SubElement(features, "tcg"), "tb-cache", str(TCG_CACHE_MIB), unit="MiB")


def _cpu(root: Element, spec: Mapping[str, Any], topology: Topology, host: Host) -> None:
    wanted = (spec.get("domain") or {}).get("cpu") or {}
    model = wanted.get("model") or "host-model"
    if model in ("host-model", "host-passthrough"):
        # The host's own CPU means nothing to an emulator: each has features that the other lacks.
        cpu = SubElement(root, "cpu", mode=model if host.kvm else "maximum")
    else:
        # An emulator leaves out of a named model what it can't do; under KVM a guest gets all of it or doesn't start.
        cpu = SubElement(root, "cpu", mode="custom", match="exact", check="partial" if host.kvm else "none")
        _text(cpu, "model", model, fallback="forbid" if host.kvm else "allow")
    SubElement(
        cpu,
        "topology",
        sockets=str(topology.sockets),
        cores=str(topology.cores),
        threads=str(topology.threads),
    )
    for feature in wanted.get("features") or ():
        SubElement(cpu, "feature", policy=feature.get("policy") or "require", name=feature["name"])


def _clock(root: Element, spec: Mapping[str, Any], host: Host) -> None:
    wanted = (spec.get("domain") or {}).get("clock") or {}
    utc = wanted.get("utc") or {}
    if wanted.get("timezone"):
        clock = SubElement(root, "clock", offset="timezone", timezone=wanted["timezone"])
    elif utc.get("offsetSeconds") is not None:
        clock = SubElement(root, "clock", offset="variable", adjustment=str(utc["offsetSeconds"]), basis="utc")
    else:
        clock = SubElement(root, "clock", offset="utc", adjustment="reset")
    for name, timer in (wanted.get("timer") or {}).items():
        if timer is None or name not in _TIMER_NAMES or (name in _KVM_TIMERS and not host.kvm):
            continue
        element = SubElement(clock, "timer", name=_TIMER_NAMES[name])
        element.set("present", "yes" if timer.get("present", True) else "no")
        for key, attribute in (("tickPolicy", "tickpolicy"), ("track", "track")):
            if timer.get(key):
                element.set(attribute, timer[key])


def _boot_orders(spec: Mapping[str, Any], volumes: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return the boot order of the disks: the spec's, or (if nothing has one) hard disks first, then CD-ROMs."""
    devices = _devices(spec)
    disks: list[Mapping[str, Any]] = list(devices.get("disks") or ())
    if any(device.get("bootOrder") for device in (*disks, *(devices.get("interfaces") or ()))):
        return {disk["name"]: int(disk["bootOrder"]) for disk in disks if disk.get("bootOrder")}
    bootable = [disk for disk in disks if not any(seed in volumes.get(disk["name"], {}) for seed in _SEEDS)]
    bootable.sort(key=lambda disk: _kind(disk) == "cdrom")
    return {disk["name"]: order for order, disk in enumerate(bootable, 1)}


def _disks(devices: Element, spec: Mapping[str, Any], host: Host, block: frozenset[str]) -> None:
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    targets = disk_targets(spec)
    orders = _boot_orders(spec, volumes)
    for disk in _devices(spec).get("disks") or ():
        name, kind = disk["name"], _kind(disk)
        if name not in volumes:
            raise ValueError(f"disk {name!r} has no volume of that name")
        volume, settings = volumes[name], disk.get(kind) or {}
        if name in block:
            source, format_, type_, attribute = paths.claim_device(name), "raw", "block", "dev"
        else:
            source, format_ = paths.disk_source(volume)
            type_, attribute = "file", "file"
        element = SubElement(devices, "disk", {"type": type_, "device": kind})
        driver = SubElement(element, "driver", name="qemu", type=format_)
        driver.set("cache", _cache(disk, volume, host))
        driver.set("error_policy", disk.get("errorPolicy") or "stop")
        if disk.get("io") and disk["io"] != "default":
            driver.set("io", disk["io"])
        driver.set("discard", "unmap")
        SubElement(element, "source", {attribute: str(source)})
        target = SubElement(element, "target", dev=targets[name], bus=_bus(disk))
        if kind == "cdrom" and settings.get("tray"):
            target.set("tray", settings["tray"])
        if disk.get("serial"):
            _text(element, "serial", disk["serial"])
        readonly = (
            settings.get("readonly", kind == "cdrom")
            or (volume.get("persistentVolumeClaim") or {}).get("readOnly")
            or any(seed in volume for seed in _SEEDS)
        )
        # libvirt has no read-only SATA hard disks; a seed there belongs to this guest alone.
        if readonly and not (kind == "disk" and _bus(disk) == "sata"):
            SubElement(element, "readonly")
        if disk.get("shareable"):
            SubElement(element, "shareable")
        if name in orders:
            SubElement(element, "boot", order=str(orders[name]))
        SubElement(element, "alias", name=f"ua-{name}")


def _cache(disk: Mapping[str, Any], volume: Mapping[str, Any], host: Host) -> str:
    if disk.get("cache"):
        return str(disk["cache"])
    if disk.get("io") == "native":
        return "none"  # the only mode in which QEMU has native I/O
    if any(source in volume for source in _POD_LOCAL) or volume["name"] in host.no_direct_io:
        # The guests of one image share its pages; a guest's flush still reaches the disk.
        return "writeback"
    return "none"


def _controllers(devices: Element, spec: Mapping[str, Any]) -> None:
    wanted = _devices(spec)
    buses = {_bus(disk) for disk in wanted.get("disks") or ()}
    inputs: Iterable[Mapping[str, Any]] = wanted.get("inputs") or ()
    usb = "usb" in buses or any((item.get("bus") or "usb") == "usb" for item in inputs)
    SubElement(devices, "controller", type="usb", index="0", model="qemu-xhci" if usb else "none")
    if "scsi" in buses:
        SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    SubElement(devices, "controller", type="virtio-serial", index="0")


def _interfaces(devices: Element, spec: Mapping[str, Any], plans: Sequence[InterfacePlan]) -> None:
    by_name = {plan.name: plan for plan in plans}
    for interface in _devices(spec).get("interfaces") or ():
        plan = by_name.get(interface["name"])
        if plan is None:
            continue
        model = interface.get("model") or "virtio"
        element = SubElement(devices, "interface", type="ethernet")
        SubElement(element, "mac", address=plan.guest_mac)
        SubElement(element, "target", dev=plan.tap, managed="no")
        SubElement(element, "model", type=model)
        if interface.get("bootOrder"):
            SubElement(element, "boot", order=str(interface["bootOrder"]))
        else:
            SubElement(element, "rom", enabled="no")
        if model in _VIRTIO_MODELS:
            SubElement(element, "mtu", size=str(plan.mtu))
        SubElement(element, "alias", name=f"ua-{plan.name}")


def _consoles(devices: Element, vmi: Mapping[str, Any]) -> None:
    wanted, uid = _devices(vmi["spec"]), vmi["metadata"]["uid"]
    if wanted.get("autoattachSerialConsole", True):
        serial = SubElement(devices, "serial", type="unix")
        SubElement(serial, "source", mode="bind", path=str(paths.serial_socket(uid)))
        SubElement(serial, "target", type="isa-serial", port="0")
        SubElement(serial, "alias", name="ua-serial0")
    channel = SubElement(devices, "channel", type="unix")
    SubElement(channel, "source", mode="bind", path=str(paths.guest_agent_socket(uid)))
    SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    video = Element("video")
    if wanted.get("autoattachGraphicsDevice", True):
        graphics = SubElement(devices, "graphics", type="vnc")
        SubElement(graphics, "listen", type="socket", socket=str(paths.vnc_socket(uid)))
        SubElement(video, "model", type="vga", vram="16384", heads="1")
    else:
        SubElement(video, "model", type="none")
    devices.append(video)


def _other_devices(devices: Element, spec: Mapping[str, Any], cluster: ClusterConfiguration) -> None:
    wanted = _devices(spec)
    for item in wanted.get("inputs") or ():
        element = SubElement(devices, "input", type=item.get("type") or "tablet", bus=item.get("bus") or "usb")
        SubElement(element, "alias", name=f"ua-{item['name']}")
    if wanted.get("rng") is not None:
        rng = SubElement(devices, "rng", model="virtio")
        _text(rng, "backend", "/dev/urandom", model="random")
    watchdog = wanted.get("watchdog")
    if watchdog:
        action = (watchdog.get("i6300esb") or {}).get("action") or "reset"
        element = SubElement(devices, "watchdog", model="i6300esb", action=action)
        SubElement(element, "alias", name=f"ua-{watchdog['name']}")
    if wanted.get("autoattachMemBalloon", True):
        reporting = "on" if cluster.free_page_reporting else "off"
        balloon = SubElement(devices, "memballoon", model="virtio", freePageReporting=reporting)
        if cluster.balloon_stats_period:
            SubElement(balloon, "stats", period=str(cluster.balloon_stats_period))
    else:
        SubElement(devices, "memballoon", model="none")
