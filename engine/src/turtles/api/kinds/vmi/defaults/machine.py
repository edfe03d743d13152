# SPDX-License-Identifier: GPL-3.0-or-later
"""Firmware and features."""

from __future__ import annotations

import uuid

from turtles.api.guests import firmware_uuid
from turtles.api.kinds.vmi.hyperv import dependencies, needs_vmx
from turtles.api.objects import Object, get

#: How often a spin lock is tried where a machine doesn't say it.
_SPINLOCKS = 4096


def default_firmware(vmi: Object) -> None:
    """Set the UUID that the guest sees, and the boot loader of architectures that have but one."""
    spec = vmi["spec"]
    firmware = spec["domain"]["firmware"] = dict(spec["domain"].get("firmware") or {})
    if not firmware.get("uuid"):
        name = (vmi.get("metadata") or {}).get("name")
        # With generateName there is no name yet from which the UUID could be derived
        firmware["uuid"] = firmware_uuid(name) if name else str(uuid.uuid4())
    if spec["architecture"] != "arm64":
        return
    if firmware.get("bootloader") is None:
        firmware["bootloader"] = {"efi": {}}
    efi = firmware["bootloader"].get("efi")
    if efi is not None and efi.get("secureBoot") is None:
        firmware["bootloader"] = {**firmware["bootloader"], "efi": {**efi, "secureBoot": False}}


def default_features(spec: Object) -> None:
    """Add ACPI, where the architecture has it."""
    features = spec["domain"]["features"] = spec["domain"].get("features") or {}
    acpi = features["acpi"] = features.get("acpi") or {}
    if spec["architecture"] == "s390x" and acpi.get("enabled") is None:
        acpi["enabled"] = False


def default_hyperv(spec: Object) -> None:
    """Complete the enlightenments for Windows with what those that are on need."""
    domain = spec["domain"]
    hyperv = get(domain, "features", "hyperv")
    if hyperv is None:
        return
    spinlocks = hyperv.get("spinlocks")
    if spinlocks is not None and spinlocks.get("enabled") and spinlocks.get("spinlocks") is None:
        spinlocks["spinlocks"] = _SPINLOCKS
    for _, needed in dependencies(hyperv):
        state = hyperv.get(needed)
        if state is None or state.get("enabled") is None:
            hyperv[needed] = {**(state or {}), "enabled": True}
        elif not state["enabled"]:
            return  # validation says what is wrong
    if needs_vmx(hyperv):
        _require_vmx(domain["cpu"])


def _require_vmx(cpu: Object) -> None:
    features = cpu["features"] = list(cpu.get("features") or ())
    for feature in features:
        if feature["name"] == "vmx":
            feature["policy"] = "require"
            return
    features.append({"name": "vmx", "policy": "require"})
