# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything in the machine but its disks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from turtles.api.configuration import ClusterConfiguration
from turtles.domain import paths
from turtles.domain.definition.disks import bus_of
from turtles.domain.definition.elements import add_text, devices_of
from turtles.domain.network import InterfacePlan

#: Models that negotiate the MTU with the guest.
_VIRTIO_MODELS = ("virtio", "virtio-transitional", "virtio-non-transitional")


def add_controllers(devices: Element, spec: Mapping[str, Any]) -> None:
    """Add the controllers of the buses that the machine uses."""
    wanted = devices_of(spec)
    buses = {bus_of(disk) for disk in wanted.get("disks") or ()}
    inputs: Iterable[Mapping[str, Any]] = wanted.get("inputs") or ()
    usb = "usb" in buses or any((item.get("bus") or "usb") == "usb" for item in inputs)
    SubElement(devices, "controller", type="usb", index="0", model="qemu-xhci" if usb else "none")
    if "scsi" in buses:
        SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    SubElement(devices, "controller", type="virtio-serial", index="0")


def add_interfaces(devices: Element, spec: Mapping[str, Any], plans: Sequence[InterfacePlan]) -> None:
    """Add the network interfaces that have a plan."""
    by_name = {plan.name: plan for plan in plans}
    for interface in devices_of(spec).get("interfaces") or ():
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


def add_consoles(devices: Element, vmi: Mapping[str, Any]) -> None:
    """Add the serial console, the guest agent's channel and the display."""
    wanted, uid = devices_of(vmi["spec"]), vmi["metadata"]["uid"]
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


def add_other_devices(devices: Element, spec: Mapping[str, Any], cluster: ClusterConfiguration) -> None:
    """Add input devices, the source of randomness, the watchdog and the memory balloon."""
    wanted = devices_of(spec)
    for item in wanted.get("inputs") or ():
        element = SubElement(devices, "input", type=item.get("type") or "tablet", bus=item.get("bus") or "usb")
        SubElement(element, "alias", name=f"ua-{item['name']}")
    if wanted.get("rng") is not None:
        rng = SubElement(devices, "rng", model="virtio")
        add_text(rng, "backend", "/dev/urandom", model="random")
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
