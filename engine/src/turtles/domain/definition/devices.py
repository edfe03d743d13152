# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything in the machine but its disks and the node's own devices."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from turtles.api.configuration import ClusterConfiguration
from turtles.domain import paths
from turtles.domain.definition.compute import guest_memory
from turtles.domain.definition.disks import bus_of
from turtles.domain.definition.elements import (
    add_alias,
    add_pci_address,
    add_text,
    devices_of,
    share_memory,
    virtio,
)
from turtles.domain.network import PASST, InterfacePlan

#: Models that negotiate the MTU with the guest.
_VIRTIO_MODELS = ("virtio", "virtio-transitional", "virtio-non-transitional")
#: Graphics cards with memory of their own.
_VIDEO_MEMORY = ("vga", "cirrus", "bochs")
#: PCI Express ports of a machine in all, and of those at least free ones; for small and large machines.
_PORTS, _LARGE_PORTS, _LARGE_MEMORY = (8, 3), (16, 6), 2 * 1024**3
#: Name of the port on which guests ask for metrics of their host (vhostmd).
DOWNWARD_METRICS_PORT = "org.github.vhostmd.1"


def add_controllers(devices: Element, spec: Mapping[str, Any]) -> None:
    """Add the controllers of the buses that the machine uses."""
    wanted = devices_of(spec)
    transitional = {"model": virtio(spec)} if wanted.get("useVirtioTransitional") else {}
    buses = {bus_of(disk) for disk in wanted.get("disks") or ()}
    SubElement(devices, "controller", type="usb", index="0", model="qemu-xhci" if _has_usb(wanted, buses) else "none")
    # Without it no disk could be added on this bus while the guest runs.
    if "scsi" in buses or not wanted.get("disableHotplug"):
        SubElement(devices, "controller", type="scsi", index="0", model=transitional.get("model", "virtio-scsi"))
    SubElement(devices, "controller", {"type": "virtio-serial", "index": "0", **transitional})


def add_free_ports(devices: Element, spec: Mapping[str, Any]) -> None:
    """Add ports for devices that are added while the guest runs: PCI Express has none to spare by itself.

    How many of them KubeVirt gives (topology "v3"), and large machines more than small ones.

    :param devices: with all devices that the machine starts with, each of which takes a port.
    """
    machine = ((spec.get("domain") or {}).get("machine") or {}).get("type") or "q35"
    if "q35" not in machine or devices_of(spec).get("disableHotplug"):
        return
    taken = sum(_takes_port(device) for device in devices)
    total, free = _LARGE_PORTS if guest_memory(spec) > _LARGE_MEMORY else _PORTS
    SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    # Those that are taken would be added by libvirt, but not beside these.
    for index in range(1, 1 + taken + max(total - taken, free)):
        SubElement(devices, "controller", type="pci", index=str(index), model="pcie-root-port")


def _takes_port(device: Element) -> bool:
    if device.tag == "disk":
        target = device.find("target")
        return target is not None and target.get("bus") == "virtio"
    if device.tag == "controller":
        return device.get("type") in ("scsi", "virtio-serial") or device.get("model") == "qemu-xhci"
    if device.tag == "memballoon":
        return device.get("model") != "none"
    return device.tag in ("interface", "rng", "filesystem", "vsock", "hostdev") or (
        device.tag == "memory" and device.get("model") == "virtio-mem"
    )


def _has_usb(wanted: Mapping[str, Any], buses: Iterable[str]) -> bool:
    inputs: Iterable[Mapping[str, Any]] = wanted.get("inputs") or ()
    return (
        "usb" in buses
        or wanted.get("clientPassthrough") is not None
        or bool(wanted.get("hostDevices"))
        or any((item.get("bus") or "usb") == "usb" for item in inputs)
    )


def add_interfaces(root: Element, devices: Element, spec: Mapping[str, Any], plans: Sequence[InterfacePlan]) -> None:
    """Add the network interfaces that have a plan. passt sees the guest's memory, which therefore is shared."""
    by_name = {plan.name: plan for plan in plans}
    for interface in devices_of(spec).get("interfaces") or ():
        plan = by_name.get(interface["name"])
        if plan is None:
            continue
        devices.append(_interface(spec, interface, plan))
    if any(plan.binding == PASST for plan in plans):
        share_memory(root)


def added_interface(spec: Mapping[str, Any], interface: Mapping[str, Any], plan: InterfacePlan) -> str:
    """Return the device of an interface that a running guest gets, as XML.

    :param interface: of the VMI's *spec*.
    """
    return tostring(_interface(spec, interface, plan), encoding="unicode")


def _interface(spec: Mapping[str, Any], interface: Mapping[str, Any], plan: InterfacePlan) -> Element:
    model = interface.get("model") or "virtio"
    if model == "virtio":
        model = virtio(spec)
    element = _passt(plan) if plan.binding == PASST else _with_tap(plan)
    SubElement(element, "model", type=model)
    if plan.queues > 1:
        SubElement(element, "driver", queues=str(plan.queues))
    if not plan.link_up:
        SubElement(element, "link", state="down")
    if interface.get("bootOrder"):
        SubElement(element, "boot", order=str(interface["bootOrder"]))
    else:
        SubElement(element, "rom", enabled="no")
    # passt tells the guest its own; libvirt would look for a device of the node.
    if model in _VIRTIO_MODELS and plan.binding != PASST:
        SubElement(element, "mtu", size=str(plan.mtu))
    add_alias(element, plan.name)
    if interface.get("acpiIndex"):
        SubElement(element, "acpi", index=str(interface["acpiIndex"]))
    if interface.get("pciAddress"):
        add_pci_address(element, interface["pciAddress"])
    return element


def _with_tap(plan: InterfacePlan) -> Element:
    element = Element("interface", type="ethernet")
    SubElement(element, "mac", address=plan.guest_mac)
    SubElement(element, "target", dev=plan.tap, managed="no")
    return element


def _passt(plan: InterfacePlan) -> Element:
    """Return an interface whose other end is passt, which libvirt starts beside QEMU ("vhost-user ... with passt")."""
    element = Element("interface", type="vhostuser")
    SubElement(element, "mac", address=plan.guest_mac)
    SubElement(element, "source", dev=plan.pod_interface)
    SubElement(element, "backend", type="passt")
    for protocol in ("tcp", "udp"):
        ports = [port for port in plan.ports if port.protocol == protocol]
        if plan.ports and not ports:
            continue
        forward = SubElement(element, "portForward", proto=protocol)  # without ranges, all ports
        for port in ports:
            last = {} if port.last is None else {"end": str(port.last)}
            SubElement(forward, "range", {"start": str(port.number), **last})
    return element


def add_consoles(devices: Element, vmi: Mapping[str, Any], *, logged: bool) -> None:
    """Add the serial console, the channels to the guest and the display.

    :param logged: the output of the serial console is logged.
    """
    wanted, uid = devices_of(vmi["spec"]), vmi["metadata"]["uid"]
    if wanted.get("autoattachSerialConsole", True):
        serial = SubElement(devices, "serial", type="unix")
        SubElement(serial, "source", mode="bind", path=str(paths.serial_socket(uid)))
        if logged:
            # The launcher shortens it, see launcher/console_log.py
            SubElement(serial, "log", file=str(paths.serial_log(uid)), append="on")
        SubElement(serial, "target", type="isa-serial", port="0")
        SubElement(serial, "alias", name="ua-serial0")
    _add_channel(devices, "org.qemu.guest_agent.0", str(paths.guest_agent_socket(uid)))
    if wanted.get("downwardMetrics") is not None:
        _add_channel(devices, DOWNWARD_METRICS_PORT, str(paths.downward_metrics_socket(uid)))
    video = Element("video")
    if wanted.get("autoattachGraphicsDevice", True):
        graphics = SubElement(devices, "graphics", type="vnc")
        SubElement(graphics, "listen", type="socket", socket=str(paths.vnc_socket(uid)))
        kind = (wanted.get("video") or {}).get("type") or "vga"
        memory = {"vram": "16384"} if kind in _VIDEO_MEMORY else {}
        SubElement(video, "model", {"type": kind, **memory, "heads": "1"})
    else:
        SubElement(video, "model", type="none")
    devices.append(video)


def _add_channel(devices: Element, name: str, socket: str) -> None:
    channel = SubElement(devices, "channel", type="unix")
    SubElement(channel, "source", mode="bind", path=socket)
    SubElement(channel, "target", type="virtio", name=name)


def add_other_devices(devices: Element, vmi: Mapping[str, Any], cluster: ClusterConfiguration) -> None:
    """Add what is left: from input devices to the memory balloon."""
    spec = vmi["spec"]
    wanted = devices_of(spec)
    for item in wanted.get("inputs") or ():
        element = SubElement(devices, "input", type=item.get("type") or "tablet", bus=item.get("bus") or "usb")
        add_alias(element, item["name"])
    if (sound := wanted.get("sound")) is not None:
        element = SubElement(devices, "sound", model=sound.get("model") or "ich9")
        add_alias(element, sound["name"])
    if wanted.get("clientPassthrough") is not None:
        for port in range(paths.USB_REDIRECTIONS):
            element = SubElement(devices, "redirdev", bus="usb", type="unix")
            SubElement(element, "source", mode="bind", path=str(paths.usb_redirection_socket(_uid(vmi), port)))
    if wanted.get("rng") is not None:
        rng = SubElement(devices, "rng", model=virtio(spec))
        add_text(rng, "backend", "/dev/urandom", model="random")
    if (tpm := wanted.get("tpm")) is not None and tpm.get("enabled") is not False:
        _add_tpm(devices, persistent=bool(tpm.get("persistent")))
    watchdog = wanted.get("watchdog")
    if watchdog:
        action = (watchdog.get("i6300esb") or {}).get("action") or "reset"
        element = SubElement(devices, "watchdog", model="i6300esb", action=action)
        add_alias(element, watchdog["name"])
    for panic in wanted.get("panicDevices") or ():
        SubElement(devices, "panic", {"model": panic["model"]} if panic.get("model") else {})
    if wanted.get("autoattachVSOCK"):
        _add_vsock(devices, vmi)
    if wanted.get("autoattachMemBalloon", True):
        reporting = "on" if cluster.free_page_reporting else "off"
        balloon = SubElement(devices, "memballoon", model=virtio(spec), freePageReporting=reporting)
        if cluster.balloon_stats_period:
            SubElement(balloon, "stats", period=str(cluster.balloon_stats_period))
    else:
        SubElement(devices, "memballoon", model="none")


def _uid(vmi: Mapping[str, Any]) -> str:
    return str(vmi["metadata"]["uid"])


def _add_tpm(devices: Element, *, persistent: bool) -> None:
    """Add a trusted platform module. KubeVirt's persistent ones have the newer interface, which guests rely on."""
    tpm = SubElement(devices, "tpm", model="tpm-crb" if persistent else "tpm-tis")
    backend = SubElement(tpm, "backend", type="emulator", version="2.0")
    if persistent:
        backend.set("persistent_state", "yes")


def _add_vsock(devices: Element, vmi: Mapping[str, Any]) -> None:
    """Add the VSOCK device.

    :raises ValueError: if the machine has no address yet, which virt-controller gives it before its Pod.
    """
    cid = (vmi.get("status") or {}).get("VSOCKCID")
    if not cid:
        raise ValueError("the machine has no VSOCK address (status.VSOCKCID); virt-controller allocates it")
    element = SubElement(devices, "vsock", model=virtio(vmi["spec"]))
    SubElement(element, "cid", auto="no", address=str(cid))
