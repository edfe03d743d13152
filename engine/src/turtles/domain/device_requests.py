# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices of a running domain as libvirt wants them in order to change them: with all that they have."""

from xml.etree.ElementTree import SubElement, tostring

from turtles.domain.live_domain import ALIAS_PREFIX, MEMORY_DEVICE
from turtles.domain.xml import AnswerError, parse


def medium_request(xml: str, disk: str, path: str | None) -> str:
    """Return the device of a drive with another medium, as XML. All else of it has to stay as it is.

    :param xml: a running domain's. :param disk: the drive's name. :param path: of the medium; None ejects it.
    :raises AnswerError: if there is no such drive.
    """
    device = parse(xml, "the domain's XML").find(f"devices/disk/alias[@name='{ALIAS_PREFIX}{disk}']/..")
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
    device = parse(xml, "the domain's XML").find(MEMORY_DEVICE)
    amount = None if device is None else device.find("target/requested")
    if device is None or amount is None:
        raise AnswerError("the domain's XML has no device for memory")
    amount.set("unit", "KiB")
    amount.text = str(requested // 1024)
    return tostring(device, encoding="unicode")


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
