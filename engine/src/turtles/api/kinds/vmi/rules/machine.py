# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about the machine as a whole: names, type, firmware, features, clock, strategies."""

from __future__ import annotations

import fnmatch
import posixpath
import re
import uuid

from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import REBOOT_POLICY
from turtles.api.kinds.vmi.hyperv import dependencies, is_on, needs_vmx
from turtles.api.kinds.vmi.rules.common import MAX_STRING, SERIAL, Rule
from turtles.api.language import INVALID, NOT_SUPPORTED, REQUIRED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec, label_problems, one_of, subdomain_problems

#: QEMU takes zones that its system does not know for UTC.
_TIMEZONE = re.compile(r"[ -~]+")
_EVICTION_STRATEGIES = ("None", "LiveMigrate", "LiveMigrateIfPossible", "External")
#: Longest vendor of a hypervisor, as Hyper-V has it; fewest tries of a spin lock.
_VENDOR, _SPINLOCKS = 12, 4096


def names(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Check the guest's names."""
    hostname, subdomain = spec.get("hostname"), spec.get("subdomain")
    if hostname and (problems := label_problems(hostname)):
        message = f"{path}.hostname does not conform to the kubernetes DNS_LABEL rules : {', '.join(problems)}"
        yield Cause(INVALID, message, f"{path}.hostname")
    if subdomain and (problems := subdomain_problems(subdomain)):
        message = f"{path}.subdomain does not conform to the kubernetes DNS_SUBDOMAIN rules : {', '.join(problems)}"
        yield Cause(INVALID, message, f"{path}.subdomain")


def machine_type(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Check the machine's type."""
    machine = get(spec, "domain", "machine", "type")
    patterns = config.emulated_machines_of(spec.get("architecture") or config.architecture)
    if machine and not any(fnmatch.fnmatchcase(machine, pattern) for pattern in patterns):
        here = f"{path}.domain.machine.type"
        message = f"{here} is not supported: {machine} (allowed values: [{' '.join(patterns)}])"
        yield Cause(INVALID, message, here)


def identity(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Check what identifies the machine."""
    firmware = get(spec, "domain", "firmware") or {}
    serial = firmware.get("serial")
    here = f"{path}.domain.firmware.serial"
    if serial and len(serial) > MAX_STRING:
        yield Cause(INVALID, f"{here} must be less than or equal to {MAX_STRING} in length, if specified", here)
    if serial and not SERIAL.fullmatch(serial):
        message = f"{here} must be made up of the following characters [A-Za-z0-9_.+-], if specified"
        yield Cause(INVALID, message, here)
    # What goes into SMBIOS: control characters could be anything to what reads it.
    for name, text in (get(spec, "domain", "chassis") or {}).items():
        if text and (len(text) > MAX_STRING or not text.isprintable()):
            here = f"{path}.domain.chassis.{name}"
            yield Cause(INVALID, f"{here} must be at most {MAX_STRING} printable characters", here)


def _uuid(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    found, here = get(spec, "domain", "firmware", "uuid"), f"{path}.domain.firmware.uuid"
    try:
        if found:
            uuid.UUID(found)
    except ValueError:
        yield Cause(INVALID, f"{here} must be a UUID, if specified", here)


def acpi_tables(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Check the volumes that ACPI tables come from."""
    tables, here = get(spec, "domain", "firmware", "acpi"), f"{path}.acpi"
    if tables is None:
        return
    if not tables.get("slicNameRef") and not tables.get("msdmNameRef"):
        yield Cause(INVALID, "ACPI was set but no SLIC nor MSDM volume reference was set", here)
    for field in ("slicNameRef", "msdmNameRef"):
        if not (name := tables.get(field)):
            continue
        volume = next((volume for volume in spec.get("volumes") or () if volume["name"] == name), None)
        if volume is None:
            yield Cause(INVALID, f"{here} does not have a matching Volume.", f"{here}.{field}")
        elif volume.get("secret") is None:
            yield Cause(INVALID, f"{here} refers to Volume of unsupported type.", f"{here}.{field}")


def start_strategy(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Check the start strategy. A paused guest can't be asked whether it is alive."""
    strategy, here = spec.get("startStrategy"), f"{path}.startStrategy"
    if strategy is None:
        return
    if strategy != "Paused":
        yield Cause(INVALID, f"{here} is set with an unrecognized option: {strategy}", here)
    elif spec.get("livenessProbe") is not None:
        message = (
            f"either {here} or {path}.livenessProbe should be provided.Pausing VMI with LivenessProbe is not supported"
        )
        yield Cause(INVALID, message, here)


def _clock(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    clock = get(spec, "domain", "clock") or {}
    here = f"{path}.domain.clock"
    zone = clock.get("timezone")
    if zone and not _TIMEZONE.fullmatch(zone):
        message = f"{here}.timezone '{zone}': must be the name of a time zone, such as Europe/Berlin"
        yield Cause(INVALID, message, f"{here}.timezone")
    policies = {
        "hpet": ("delay", "catchup", "merge", "discard"),
        "pit": ("delay", "catchup", "discard"),
        "rtc": ("delay", "catchup"),
    }
    for name, allowed in policies.items():
        timer = get(clock, "timer", name) or {}
        yield from one_of(timer.get("tickPolicy"), f"{here}.timer.{name}.tickPolicy", allowed)
        yield from one_of(timer.get("track"), f"{here}.timer.{name}.track", ("guest", "wall"))


def firmware(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Check what boots the machine, and that it can."""
    yield from boot(spec, path)
    if has_secure_boot(spec) and not is_smm_on(spec):
        message = f"{path}.domain has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled."
        yield Cause(INVALID, message, f"{path}.domain")


def boot(spec: Spec, path: str) -> Causes:
    """Check what boots the machine."""
    here = f"{path}.domain.firmware"
    found = get(spec, "domain", "firmware") or {}
    loader = found.get("bootloader") or {}
    if loader.get("efi") is not None and loader.get("bios") is not None:
        message = f"{here}.bootloader has both EFI and BIOS configured, but they are mutually exclusive."
        yield Cause(INVALID, message, f"{here}.bootloader")
    yield from _kernel_boot(found.get("kernelBoot"), f"{here}.kernelBoot")


def _kernel_boot(kernel: Spec | None, here: str) -> Causes:
    if kernel is None:
        return
    arguments, container = kernel.get("kernelArgs") or "", kernel.get("container")
    if not arguments.isprintable():
        yield Cause(INVALID, f"{here}.kernelArgs must be one line of printable characters", f"{here}.kernelArgs")
    if container is None:
        if arguments:
            message = "kernel arguments cannot be provided without an external kernel"
            yield Cause(INVALID, message, f"{here}.kernelArgs")
        return
    here = f"{here}.container"
    if not container["image"]:
        yield Cause(REQUIRED, f"{here} must be defined with an image", f"{here}.image")
    if not container.get("kernelPath") and not container.get("initrdPath"):
        message = f"{here} must be defined with at least one of the following: kernelPath, initrdPath"
        yield Cause(REQUIRED, message, here)
    for name in ("kernelPath", "initrdPath"):
        if container.get(name):
            yield from _path(container[name], f"{here}.{name}")


def _kernel_pull_policy(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    policy = get(spec, "domain", "firmware", "kernelBoot", "container", "imagePullPolicy")
    here = f"{path}.domain.firmware.kernelBoot.container.imagePullPolicy"
    yield from one_of(policy, here, ("Always", "IfNotPresent", "Never"))


def _path(path: str, here: str) -> Causes:
    if path == "/":
        yield Cause(INVALID, f"{here} must not point to root", here)
    elif not path.isprintable() or posixpath.normpath("/" + path.lstrip("/")) != path.removesuffix("/"):
        yield Cause(INVALID, f"{here} must be an absolute path to a file without relative components", here)


def has_secure_boot(spec: Spec) -> bool:
    """Say whether the guest boots only what is signed."""
    efi = get(spec, "domain", "firmware", "bootloader", "efi")
    return efi is not None and efi.get("secureBoot") is not False


def is_smm_on(spec: Spec) -> bool:
    """Say whether the machine has system management mode."""
    smm = get(spec, "domain", "features", "smm")
    return smm is not None and smm.get("enabled") is not False


def eviction_strategy(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Check the eviction strategy."""
    strategy, here = spec.get("evictionStrategy"), f"{path}.evictionStrategy"
    if strategy is not None and strategy not in _EVICTION_STRATEGIES:
        yield Cause(INVALID, f"{here} is set with an unrecognized option: {strategy}", here)


def reboot_policy(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Refuse to say what a reboot does, if that is switched off."""
    if spec["domain"].get("rebootPolicy") is not None and not config.has_gate(REBOOT_POLICY):
        message = f"{REBOOT_POLICY} is specified but the {REBOOT_POLICY} feature gate is not enabled"
        yield Cause(INVALID, message, f"{path}.domain.rebootPolicy")


def _reboot_policies(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    policy = spec["domain"].get("rebootPolicy")
    yield from one_of(policy, f"{path}.domain.rebootPolicy", ("Reboot", "Terminate"))


def _vendor(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Refuse a vendor that could be taken for another option of the emulator's processor."""
    vendor = get(spec, "domain", "features", "hyperv", "vendorid", "vendorid") or ""
    if not vendor.isprintable() or "," in vendor:
        here = f"{path}.domain.features.hyperv.vendorid.vendorid"
        yield Cause(INVALID, f"{here} must be printable characters without a comma", here)


def _enlightenments(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    here = f"{path}.domain.features.hyperv"
    hyperv = get(spec, "domain", "features", "hyperv") or {}
    vendor = get(hyperv, "vendorid", "vendorid") or ""
    if len(vendor) > _VENDOR:
        field = f"{here}.vendorid.vendorid"
        yield Cause(INVALID, f"{field} must be at most {_VENDOR} characters", field)
    tries = get(hyperv, "spinlocks", "spinlocks")
    if tries is not None and tries < _SPINLOCKS:
        field = f"{here}.spinlocks.spinlocks"
        yield Cause(INVALID, f"{field} must be at least {_SPINLOCKS}", field)


def hyperv_dependencies(spec: Spec, path: str) -> Causes:
    """Tell which enlightenments of an instance lack what they need. Defaults have added what wasn't switched off."""
    features = get(spec, "domain", "features") or {}
    hyperv, here = features.get("hyperv"), f"{path}.domain.features.hyperv"
    if hyperv is None:
        return
    # KubeVirt gives these paths so, with the place of the enlightenments twice.
    inner = f"{here}.domain.features.hyperv"
    for name, needed in dependencies(hyperv):
        if not is_on(hyperv, needed):
            message = f"'{inner}.{name}' requires '{inner}.{needed}', which was disabled."
            yield Cause(INVALID, message, f"{inner}.{name}")
    if needs_vmx(hyperv):
        found = get(spec, "domain", "cpu", "features") or ()
        if not found:
            yield Cause(REQUIRED, "vmx cpu feature is required when evmcs is set", "spec.domain.cpu.features")
        for index, feature in enumerate(found):
            if feature["name"] == "vmx" and feature.get("policy") != "require":
                message = "vmx cpu feature has to be set to require policy"
                yield Cause(INVALID, message, f"spec.domain.cpu.features[{index}].policy")
    if features.get("hypervPassthrough") is not None:
        message = (
            "Cannot explicitly set hyperV features if HypervPassthrough is being used. "
            "Please use either HyperV or HypervPassthrough."
        )
        yield Cause(INVALID, message, here)


def architecture(spec: Spec, path: str) -> Causes:
    """Tell what an instance can't have on its architecture."""
    found = spec.get("architecture")
    if found not in ("amd64", "arm64", "s390x"):
        yield Cause(INVALID, f"unsupported architecture: {found}", f"{path}.architecture")
    if found != "arm64":
        return
    loader = get(spec, "domain", "firmware", "bootloader") or {}
    here = f"{path}.domain.firmware.bootloader"
    if loader.get("bios") is not None:
        message = "Arm64 does not support bios boot, please change to uefi boot"
        yield Cause(NOT_SUPPORTED, message, f"{here}.bios")
    if (get(spec, "domain", "cpu", "model") or "host-passthrough") != "host-passthrough":
        message = "currently, host-passthrough is the only model supported on Arm64"
        yield Cause(NOT_SUPPORTED, message, f"{path}.domain.cpu.model")
    for index, disk in enumerate(get(spec, "domain", "devices", "disks") or ()):
        for kind in ("disk", "cdrom", "lun"):
            if (get(disk, kind, "bus") or "virtio") not in ("virtio", "scsi"):
                field = f"{path}.domain.devices.disks[{index}].{kind}.bus"
                message = "Arm64 not support this disk bus type, please use virtio or scsi"
                yield Cause(NOT_SUPPORTED, message, field)


#: What only this engine refuses.
OWN: tuple[Rule, ...] = (_vendor,)
FUTILE: tuple[Rule, ...] = (_uuid, _kernel_pull_policy, _clock, _reboot_policies, _enlightenments)
RULES: tuple[Rule, ...] = (
    names,
    machine_type,
    identity,
    acpi_tables,
    start_strategy,
    firmware,
    eviction_strategy,
    *OWN,
)
