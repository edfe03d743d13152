# SPDX-License-Identifier: GPL-3.0-or-later
"""Type, firmware, features and clock of the machine."""

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from turtles.api import labels
from turtles.api.objects import annotations_of
from turtles.domain import paths
from turtles.domain.definition.compute import cpu_topology, most_sockets
from turtles.domain.definition.elements import Host, add_text

#: Limit of the translated code QEMU keeps under emulation. Its own default grows to 1 GiB a guest.
_TCG_CACHE_MIB = 32
_TIMER_NAMES = {"hpet": "hpet", "kvm": "kvmclock", "pit": "pit", "rtc": "rtc", "hyperv": "hypervclock"}
#: Timers that are KVM's own; an emulated guest has none of them.
_KVM_TIMERS = ("kvm", "hyperv")
#: Enlightenments for Windows as KubeVirt and libvirt call them.
_HYPERV_NAMES = {
    "relaxed": "relaxed",
    "vapic": "vapic",
    "spinlocks": "spinlocks",
    "vpindex": "vpindex",
    "runtime": "runtime",
    "synic": "synic",
    "synictimer": "stimer",
    "reset": "reset",
    "vendorid": "vendor_id",
    "frequencies": "frequencies",
    "reenlightenment": "reenlightenment",
    "tlbflush": "tlbflush",
    "ipi": "ipi",
    "evmcs": "evmcs",
}
#: Bits of an SEV policy (AMD, SEV API Specification), and the SEV-SNP policy of guests that don't say theirs.
_SEV_NO_DEBUG, _SEV_ENCRYPTED_STATE = 0x1, 0x4
_SNP_POLICY = "0x30000"


def acpi_enabled(spec: Mapping[str, Any]) -> bool:
    """Say whether the guest can be asked to shut down by its power button."""
    acpi = ((spec.get("domain") or {}).get("features") or {}).get("acpi") or {}
    return bool(acpi.get("enabled", True))


def domain_uuid(vmi: Mapping[str, Any]) -> str:
    """Return the domain's UUID: firmware.uuid, else the VMI's own uid."""
    firmware = (vmi["spec"].get("domain") or {}).get("firmware") or {}
    return str(firmware.get("uuid") or vmi["metadata"]["uid"])


def ends_on_reboot(spec: Mapping[str, Any]) -> bool:
    """Say whether a reboot by the guest ends the instance."""
    return (spec.get("domain") or {}).get("rebootPolicy") == "Terminate"


def keeps_efi_variables(spec: Mapping[str, Any]) -> bool:
    """Say whether the variables of the guest's firmware outlive the instance."""
    domain = spec.get("domain") or {}
    efi = ((domain.get("firmware") or {}).get("bootloader") or {}).get("efi") or {}
    return bool(efi.get("persistent")) and (domain.get("launchSecurity") or {}).get("snp") is None


def add_os(root: Element, vmi: Mapping[str, Any]) -> None:
    """Add the machine's type and what it boots with."""
    spec = vmi["spec"]
    domain = spec.get("domain") or {}
    firmware = domain.get("firmware") or {}
    os_ = SubElement(root, "os")
    machine = (domain.get("machine") or {}).get("type") or "q35"
    add_text(os_, "type", "hvm", arch="x86_64", machine=machine)
    loader = firmware.get("bootloader") or {}
    if (efi := loader.get("efi")) is not None:
        _add_efi(os_, vmi, secure=efi.get("secureBoot") is not False)
    _add_kernel(os_, firmware.get("kernelBoot") or {})
    if (tables := firmware.get("acpi")) is not None:
        acpi = SubElement(os_, "acpi")
        for kind in ("slic", "msdm"):
            if volume := tables.get(f"{kind}NameRef"):
                add_text(acpi, "table", str(paths.secret_dir(volume) / f"{kind}.bin"), type=kind)
    if (loader.get("bios") or {}).get("useSerial"):
        SubElement(os_, "bios", useserial="yes")
    SubElement(os_, "smbios", mode="sysinfo")


def _add_efi(os_: Element, vmi: Mapping[str, Any], *, secure: bool) -> None:
    """Add EFI as Debian's package ovmf has it; with secure boot, the variables hold Microsoft's keys."""
    launch_security = (vmi["spec"].get("domain") or {}).get("launchSecurity") or {}
    variant = ".ms" if secure else ""
    code = str(paths.OVMF_DIR / f"OVMF_CODE_4M{variant}.fd")
    if launch_security.get("snp") is not None:  # what is measured has no variables
        add_text(os_, "loader", code, readonly="yes", type="rom")
        return
    add_text(os_, "loader", code, readonly="yes", secure="yes" if secure else "no", type="pflash")
    kept = keeps_efi_variables(vmi["spec"])
    variables = str(paths.efi_variables(vmi["metadata"]["uid"], kept=kept))
    add_text(os_, "nvram", variables, template=str(paths.OVMF_DIR / f"OVMF_VARS_4M{variant}.fd"))


def _add_kernel(os_: Element, kernel: Mapping[str, Any]) -> None:
    container = kernel.get("container") or {}
    if container.get("kernelPath"):
        add_text(os_, "kernel", str(paths.KERNEL))
    if container.get("initrdPath"):
        add_text(os_, "initrd", str(paths.INITRD))
    if kernel.get("kernelArgs"):
        add_text(os_, "cmdline", kernel["kernelArgs"])


def add_sysinfo(root: Element, vmi: Mapping[str, Any], smbios: Mapping[str, str]) -> None:
    """Add what the guest reads in SMBIOS."""
    firmware = (vmi["spec"].get("domain") or {}).get("firmware") or {}
    sysinfo = SubElement(root, "sysinfo", type="smbios")
    system = SubElement(sysinfo, "system")
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
    if annotations_of(vmi).get(labels.IGNITION):
        configuration = SubElement(root, "sysinfo", type="fwcfg")
        SubElement(configuration, "entry", name="opt/com.coreos/config", file=str(paths.IGNITION))
    entries = (vmi["spec"].get("domain") or {}).get("chassis") or {}
    if any(entries.values()):
        chassis = SubElement(sysinfo, "chassis")
        for name in ("manufacturer", "version", "serial", "asset", "sku"):
            if entries.get(name):
                add_text(chassis, "entry", entries[name], name=name)


def add_features(root: Element, spec: Mapping[str, Any], host: Host) -> None:
    """Add the machine's features. What is KVM's own, an emulated guest has none of."""
    domain = spec.get("domain") or {}
    wanted = domain.get("features") or {}
    features = SubElement(root, "features")
    if acpi_enabled(spec):
        SubElement(features, "acpi")
    apic = wanted.get("apic") or {}
    if apic.get("enabled") is not False:
        element = SubElement(features, "apic")
        if apic.get("endOfInterrupt") is not None and host.kvm:
            element.set("eoi", _switch(apic["endOfInterrupt"]))
    if wanted.get("smm") is not None and wanted["smm"].get("enabled") is not False:
        SubElement(features, "smm", state="on")
    if host.kvm:
        _add_hyperv(features, wanted)
        if wanted.get("kvm") is not None:
            SubElement(SubElement(features, "kvm"), "hidden", state=_switch(wanted["kvm"].get("hidden")))
        if wanted.get("pvspinlock") is not None:
            SubElement(features, "pvspinlock", state=_switch(wanted["pvspinlock"].get("enabled") is not False))
    if (domain.get("cpu") or {}).get("realtime") is not None:
        SubElement(features, "pmu", state="off")
    if not host.kvm:
        add_text(SubElement(features, "tcg"), "tb-cache", str(emulation_cache(spec)), unit="MiB")


def emulation_cache(spec: Mapping[str, Any]) -> int:
    """Return the MiB of translated code that QEMU keeps for a VMI under emulation.

    A processor that is added while the guest runs needs a part of the cache that none has filled yet. QEMU ends
    (tcg_region_initial_alloc, seen with 7.2) where there is none, so there are twice as many for such guests.
    """
    return _TCG_CACHE_MIB * (2 if most_sockets(spec) > cpu_topology(spec).sockets else 1)


def _switch(on: Any) -> str:
    return "on" if on else "off"


def _add_hyperv(features: Element, wanted: Mapping[str, Any]) -> None:
    """Add the enlightenments for Windows: those that are named, or all that the node has."""
    hyperv = wanted.get("hyperv")
    if hyperv is None:
        if (wanted.get("hypervPassthrough") or {}).get("enabled"):
            SubElement(features, "hyperv", mode="passthrough")
        return
    parent = SubElement(features, "hyperv")
    for name, element_name in _HYPERV_NAMES.items():
        if (state := hyperv.get(name)) is None:
            continue
        element = SubElement(parent, element_name, state=_switch(state.get("enabled") is not False))
        if name == "spinlocks" and state.get("spinlocks"):
            element.set("retries", str(state["spinlocks"]))
        if name == "vendorid":
            element.set("value", state.get("vendorid") or "")
        if name == "synictimer" and (direct := state.get("direct")) is not None:
            SubElement(element, "direct", state=_switch(direct.get("enabled") is not False))


def add_launch_security(root: Element, spec: Mapping[str, Any]) -> None:
    """Add what encrypts the guest's memory. Where the processor's bits are, libvirt knows itself."""
    wanted = (spec.get("domain") or {}).get("launchSecurity") or {}
    if (sev := wanted.get("sev")) is not None:
        element = SubElement(root, "launchSecurity", type="sev")
        encrypted_state = (sev.get("policy") or {}).get("encryptedState")
        add_text(element, "policy", f"0x{_SEV_NO_DEBUG | (_SEV_ENCRYPTED_STATE if encrypted_state else 0):04x}")
        for name in ("dhCert", "session"):
            if sev.get(name):
                add_text(element, name, sev[name])
    elif (snp := wanted.get("snp")) is not None:
        element = SubElement(root, "launchSecurity", type="sev-snp")
        for name in ("authorKey", "vcek", "kernelHashes"):
            if snp.get(name) is not None:
                element.set(name, "yes" if snp[name] else "no")
        add_text(element, "policy", snp.get("policy") or _SNP_POLICY)
        for name in ("idBlock", "idAuth", "hostData"):
            if snp.get(name):
                add_text(element, name, snp[name])


def add_clock(root: Element, spec: Mapping[str, Any], host: Host) -> None:
    """Add the clock and its timers."""
    wanted = (spec.get("domain") or {}).get("clock") or {}
    utc = wanted.get("utc") or {}
    if wanted.get("timezone") and wanted.get("utc") is None:
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
