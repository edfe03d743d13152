# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine gets from a preference: a value for what it leaves open, never another one than it has itself.

The exceptions are KubeVirt's: ACPI and disableHotplug, of which a machine can't be told to have said nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from turtles.api.objects import Object, get
from turtles.api.rules import Spec

#: Fields of devices by the preferences that fill them in.
_DEVICES = {
    "preferredUseVirtioTransitional": "useVirtioTransitional",
    "preferredBlockMultiQueue": "blockMultiQueue",
    "preferredNetworkInterfaceMultiQueue": "networkInterfaceMultiqueue",
    "preferredRng": "rng",
    "preferredTPM": "tpm",
    "preferredAutoattachGraphicsDevice": "autoattachGraphicsDevice",
    "preferredAutoattachMemBalloon": "autoattachMemBalloon",
    "preferredAutoattachPodInterface": "autoattachPodInterface",
    "preferredAutoattachSerialConsole": "autoattachSerialConsole",
    "preferredAutoattachInputDevice": "autoattachInputDevice",
}
_DISKS = {"preferredDiskBlockSize": "blockSize", "preferredDiskCache": "cache", "preferredDiskIO": "io"}
_BUSES = {"disk": "preferredDiskBus", "cdrom": "preferredCdromBus", "lun": "preferredLunBus"}
_INPUTS = {"preferredInputBus": "bus", "preferredInputType": "type"}
_FEATURES = {
    "preferredApic": "apic",
    "preferredKvm": "kvm",
    "preferredPvspinlock": "pvspinlock",
    "preferredSmm": "smm",
}
_BINDINGS = ("bridge", "masquerade", "sriov", "slirp", "macvtap", "passt", "passtBinding", "binding")


def apply_preference(preference: Spec, spec: Object, metadata: Object) -> None:
    """Fill in, in place, what a preference has for the spec and the metadata of a machine."""
    domain = spec["domain"]
    _apply_cpu_features(get(preference, "cpu", "preferredCPUFeatures") or (), domain)
    apply_device_preferences(preference, spec)
    _apply_features(preference.get("features"), domain)
    _apply_firmware(preference.get("firmware"), domain)
    if machine_type := get(preference, "machine", "preferredMachineType"):
        _fill(_part(domain, "machine"), "type", machine_type)
    _apply_clock(preference.get("clock"), domain)
    _fill(spec, "subdomain", preference.get("preferredSubdomain"))
    _fill(spec, "terminationGracePeriodSeconds", preference.get("preferredTerminationGracePeriodSeconds"))
    _fill(spec, "architecture", preference.get("preferredArchitecture"))
    _fill(domain, "launchSecurity", preference.get("preferredLaunchSecurity"))
    if annotations := preference.get("annotations"):
        metadata["annotations"] = {**annotations, **(metadata.get("annotations") or {})}


def apply_device_preferences(preference: Spec, spec: Object) -> None:
    """Fill in, in place, what a preference has for a machine's devices."""
    wanted = preference.get("devices")
    if wanted is None:
        return
    devices = _part(spec["domain"], "devices")
    _fill_all(devices, _DEVICES, wanted)
    if wanted.get("preferredDisableHotplug") is not None:
        devices["disableHotplug"] = wanted["preferredDisableHotplug"]
    if devices.get("sound") is not None:
        _fill(devices["sound"], "model", wanted.get("preferredSoundModel"))
    if wanted.get("preferredVideoType") is not None:
        _fill(_part(devices, "video"), "type", wanted["preferredVideoType"])
    for disk in devices.get("disks") or ():
        _apply_to_disk(wanted, disk)
    for interface in devices.get("interfaces") or ():
        _apply_to_interface(wanted, interface, spec.get("networks") or ())
    for device in devices.get("inputs") or ():
        _fill_all(device, _INPUTS, wanted)
    for device in devices.get("panicDevices") or ():
        _fill(device, "model", wanted.get("preferredPanicDeviceModel"))
    for gpu in devices.get("gpus") or ():
        _fill(gpu, "virtualGPUOptions", wanted.get("preferredVirtualGPUOptions"))


def apply_storage_class(preference: Spec, templates: Iterable[Object]) -> None:
    """Set, in place, the storage class that a preference has in templates of DataVolumes without one."""
    wanted = get(preference, "volumes", "preferredStorageClassName")
    for template in templates:
        for part in ("pvc", "storage"):
            if (found := get(template, "spec", part)) is not None:
                _fill(found, "storageClassName", wanted)


def _apply_to_disk(wanted: Spec, disk: Object) -> None:
    target = next((name for name in ("disk", "cdrom", "lun") if disk.get(name) is not None), "disk")
    _fill(_part(disk, target), "bus", wanted.get(_BUSES[target]))
    if target != "disk":
        return
    _fill_all(disk, _DISKS, wanted)
    if disk["disk"].get("bus") == "virtio":
        _fill(disk, "dedicatedIOThread", wanted.get("preferredDiskDedicatedIoThread"))


def _apply_to_interface(wanted: Spec, interface: Object, networks: Iterable[Spec]) -> None:
    _fill(interface, "model", wanted.get("preferredInterfaceModel"))
    on_pod = any(network.get("pod") is not None for network in networks if network.get("name") == interface.get("name"))
    if on_pod and all(interface.get(binding) is None for binding in _BINDINGS):
        _fill(interface, "masquerade", wanted.get("preferredInterfaceMasquerade"))


def _apply_cpu_features(preferred: Iterable[Spec], domain: Object) -> None:
    cpu = domain.get("cpu") or {}
    own = cpu.get("features") or []
    names = {feature.get("name") for feature in own}
    if added := [copy.deepcopy(dict(feature)) for feature in preferred if feature["name"] not in names]:
        domain["cpu"] = {**cpu, "features": [*own, *added]}


def _apply_features(wanted: Spec | None, domain: Object) -> None:
    if wanted is None:
        return
    features = _part(domain, "features")
    if wanted.get("preferredAcpi") is not None:
        features["acpi"] = copy.deepcopy(wanted["preferredAcpi"])
    _fill_all(features, _FEATURES, wanted)
    hyperv = wanted.get("preferredHyperv")
    if hyperv is not None and not get(features, "hypervPassthrough", "enabled"):
        own = _part(features, "hyperv")
        for name, value in hyperv.items():
            _fill(own, name, value)


def _apply_firmware(wanted: Spec | None, domain: Object) -> None:
    if wanted is None:
        return
    bootloader = _part(_part(domain, "firmware"), "bootloader")

    def undecided() -> bool:
        return bootloader.get("bios") is None and bootloader.get("efi") is None

    if wanted.get("preferredUseBios") and undecided():
        bootloader["bios"] = {}
    if bootloader.get("bios") is not None:
        _fill(bootloader["bios"], "useSerial", wanted.get("preferredUseBiosSerial"))
    if wanted.get("preferredEfi") is not None and undecided():
        bootloader["efi"] = copy.deepcopy(wanted["preferredEfi"])
        return
    if wanted.get("preferredUseEfi") and undecided():
        bootloader["efi"] = {}
    if bootloader.get("efi") is not None:
        _fill(bootloader["efi"], "secureBoot", wanted.get("preferredUseSecureBoot"))


def _apply_clock(wanted: Spec | None, domain: Object) -> None:
    if wanted is None:
        return
    clock = _part(domain, "clock")
    offset = wanted.get("preferredClockOffset")
    if offset is not None and clock.get("utc") is None and clock.get("timezone") is None:
        clock.update(copy.deepcopy(offset))
    _fill(clock, "timer", wanted.get("preferredTimer"))


def _part(holder: Object, key: str) -> Object:
    """Return the object that is a member of another; it is made if there is none."""
    if holder.get(key) is None:
        holder[key] = {}
    part: Object = holder[key]
    return part


def _fill(holder: Object, key: str, value: Any) -> None:
    if value not in (None, "") and holder.get(key) in (None, ""):
        holder[key] = copy.deepcopy(value)


def _fill_all(holder: Object, keys: Spec, wanted: Spec) -> None:
    for preferred, key in keys.items():
        _fill(holder, key, wanted.get(preferred))
