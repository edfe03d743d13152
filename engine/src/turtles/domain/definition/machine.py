# SPDX-License-Identifier: GPL-3.0-or-later
"""Type, firmware, features and clock of the machine."""

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from turtles.domain.definition.elements import Host, add_text

#: Limit of the translated code QEMU keeps under emulation. Its own default grows to 1 GiB a guest.
TCG_CACHE_MIB = 32
_TIMER_NAMES = {"hpet": "hpet", "kvm": "kvmclock", "pit": "pit", "rtc": "rtc", "hyperv": "hypervclock"}
#: Timers that are KVM's own; an emulated guest has none of them.
_KVM_TIMERS = ("kvm", "hyperv")


def acpi_enabled(spec: Mapping[str, Any]) -> bool:
    """Say whether the guest can be asked to shut down by its power button."""
    acpi = ((spec.get("domain") or {}).get("features") or {}).get("acpi") or {}
    return bool(acpi.get("enabled", True))


def domain_uuid(vmi: Mapping[str, Any]) -> str:
    """Return the domain's UUID: firmware.uuid, else the VMI's own uid."""
    firmware = (vmi["spec"].get("domain") or {}).get("firmware") or {}
    return str(firmware.get("uuid") or vmi["metadata"]["uid"])


def add_os(root: Element, spec: Mapping[str, Any]) -> None:
    """Add the machine's type."""
    os_ = SubElement(root, "os")
    machine = ((spec.get("domain") or {}).get("machine") or {}).get("type") or "q35"
    add_text(os_, "type", "hvm", arch="x86_64", machine=machine)
    SubElement(os_, "smbios", mode="sysinfo")


def add_sysinfo(root: Element, vmi: Mapping[str, Any], smbios: Mapping[str, str]) -> None:
    """Add what the guest reads in SMBIOS."""
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
            add_text(system, "entry", str(value), name=name)


def add_features(root: Element, spec: Mapping[str, Any], host: Host) -> None:
    """Add the machine's features."""
    features = SubElement(root, "features")
    if acpi_enabled(spec):
        SubElement(features, "acpi")
    SubElement(features, "apic")
    if not host.kvm:
        add_text(SubElement(features, "tcg"), "tb-cache", str(TCG_CACHE_MIB), unit="MiB")


def add_clock(root: Element, spec: Mapping[str, Any], host: Host) -> None:
    """Add the clock and its timers."""
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
