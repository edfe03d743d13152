# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission refuses. Pure functions that take any JSON value and never raise.

First the model's check: shape, required fields, and nothing the engine doesn't implement. Only where that finds
nothing do the rules below run, which may thus rely on the shape. Rules and texts are those of the KubeVirt API, so
that clients which know KubeVirt's messages know these.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import ipaddress
import posixpath
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from turtles.api import labels, model, quantity
from turtles.api.defaults import DEFAULT_CONFIG, Config
from turtles.api.schema import DUPLICATE, INVALID, NOT_SUPPORTED, REQUIRED, UNSUPPORTED, Cause

Spec = Mapping[str, Any]
Causes = Iterator[Cause]

RUN_STRATEGIES = ("Halted", "Manual", "Always", "RerunOnFailure", "Once")
RUNNING_WARNING = "spec.running is deprecated, please use spec.runStrategy instead."

_SIDECARS = "hooks.kubevirt.io/hookSidecars"
_IGNITION = "kubevirt.io/ignitiondata"

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SERIAL = re.compile(r"[A-Za-z0-9_.+-]+")
_INTERFACE_NAME = re.compile(r"[A-Za-z0-9-_]+")
_PORT_NAME = re.compile(r"[a-z0-9-]*[a-z][a-z0-9-]*")
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}(([:-][0-9A-Fa-f]{2}){2}|([:-][0-9A-Fa-f]{2}){14})?")
_RESERVED_MAC = "02:00:00:00:00:00"

_MAX_STRING = 256
_MAX_CLOUD_INIT = 2048
_MIN_MEMORY = 10**6
_BUSES = ("virtio", "scsi", "sata", "usb")
_NIC_MODELS = frozenset(("e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio"))
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None", "")
_VOLUME_SOURCES = ("containerDisk", "cloudInitNoCloud", "cloudInitConfigDrive", "emptyDisk", "persistentVolumeClaim")


# --- what is called -------------------------------------------------------------------------------------------------


def validate_vmi(vmi: Any, config: Config = DEFAULT_CONFIG, *, privileged: bool = False) -> list[Cause]:
    """Give what is wrong with a new VirtualMachineInstance whose defaults have been set.

    `privileged`: it is written by one of the engine's own service accounts, which may set reserved labels.
    """
    causes: list[Cause] = []
    if not isinstance(vmi, dict):
        return [Cause(INVALID, "the object is not a JSON object")]
    model.VMI_SPEC.check(vmi.get("spec"), "spec", causes)
    _check_metadata(vmi.get("metadata"), "metadata", causes)
    if causes:
        return causes
    spec = vmi["spec"]
    causes += validate_vmi_spec(spec, "spec", config)
    causes += _volumes_without_disk(spec, "spec")
    causes += _no_memory(spec, "spec")
    causes += _metadata(vmi.get("metadata") or {}, "metadata", privileged)
    return causes


def validate_vmi_update(old: Any, new: Any, *, privileged: bool = False) -> list[Cause]:
    """Give what is wrong with an update of a VirtualMachineInstance: spec and reserved labels aren't for users."""
    if not isinstance(new, dict) or not isinstance(old, dict):
        return [Cause(INVALID, "the object is not a JSON object")]
    causes: list[Cause] = []
    _check_metadata(new.get("metadata"), "metadata", causes)
    if privileged or causes:
        return causes
    if old.get("spec") != new.get("spec"):
        return [Cause(NOT_SUPPORTED, "update of VMI object is restricted", "spec")]
    if _reserved(old.get("metadata")) != _reserved(new.get("metadata")):
        message = "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
        return [Cause(NOT_SUPPORTED, message, "metadata.labels")]
    return []


def validate_vm(vm: Any, config: Config = DEFAULT_CONFIG, *, privileged: bool = False) -> list[Cause]:
    """Give what is wrong with a VirtualMachine, created or updated."""
    causes: list[Cause] = []
    if not isinstance(vm, dict):
        return [Cause(INVALID, "the object is not a JSON object")]
    vm_spec = vm.get("spec")
    if isinstance(vm_spec, dict) and vm_spec.get("template") is None:
        return [Cause(REQUIRED, "missing virtual machine template.", "spec.template")]
    model.VM_SPEC.check(vm_spec, "spec", causes)
    if isinstance(vm_spec, dict) and isinstance(vm_spec.get("template"), dict):
        template = vm_spec["template"]
        _check_metadata(template.get("metadata"), "spec.template.metadata", causes)
        if template.get("spec") is None:
            causes.append(Cause(REQUIRED, "spec.template.spec is a required field", "spec.template.spec"))
    if causes:
        return causes
    assert isinstance(vm_spec, dict)
    template = vm_spec["template"]
    causes += _metadata(template.get("metadata") or {}, "spec.template.metadata", privileged)
    causes += validate_vmi_spec(template["spec"], "spec.template.spec", config)
    # Nothing but the template can say how much memory there is, so it is better told here than when the machine starts
    causes += _no_memory(template["spec"], "spec.template.spec")
    causes += _run_strategy(vm_spec)
    return causes


def warnings_vm(vm: Any) -> list[str]:
    """Give the warnings about a VirtualMachine that is accepted."""
    return [RUNNING_WARNING] if _get(vm, "spec", "running") is not None else []


def validate_vmi_spec(spec: Spec, path: str, config: Config = DEFAULT_CONFIG) -> Causes:
    """Give what is wrong with the spec of a VirtualMachineInstance, or of a template of one, at `path`.

    The spec has passed the model's check.
    """
    for rule in _RULES:
        yield from rule(spec, path, config)


# --- metadata -------------------------------------------------------------------------------------------------------


def _check_metadata(metadata: Any, path: str, causes: list[Cause]) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        causes.append(Cause(INVALID, f"{path} must be of type object", path))
        return
    for key in ("labels", "annotations"):
        values = metadata.get(key)
        if values is None:
            continue
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            causes.append(Cause(INVALID, f"{path}.{key} must be an object whose values are strings", f"{path}.{key}"))


def _reserved(metadata: Any) -> dict[str, Any]:
    found = _get(metadata, "labels") or {}
    return {key: found[key] for key in labels.RESERVED_VMI_LABELS if key in found} if isinstance(found, dict) else {}


def _metadata(metadata: Mapping[str, Any], path: str, privileged: bool) -> Causes:
    if not privileged and _reserved(metadata):
        message = "creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
        yield Cause(NOT_SUPPORTED, message, f"{path}.labels")
    annotations = metadata.get("annotations") or {}
    for key, gate in ((_IGNITION, "ExperimentalIgnitionSupport"), (_SIDECARS, "sidecar")):
        if annotations.get(key):
            message = f"{gate} feature gate is not enabled in kubevirt-config, invalid entry {path}.annotations.{key}"
            yield Cause(INVALID, message, f"{path}.annotations")


def _run_strategy(spec: Spec) -> Causes:
    running, strategy = spec.get("running"), spec.get("runStrategy")
    if running is not None and strategy is not None:
        message = (
            "Running and RunStrategy are mutually exclusive. "
            "Note that Running is deprecated, please use RunStrategy instead"
        )
        yield Cause(INVALID, message, "spec.running")
    elif running is None and strategy is None:
        yield Cause(REQUIRED, "RunStrategy must be specified", "spec.runStrategy")
    elif strategy == "WaitAsReceiver":
        yield Cause(NOT_SUPPORTED, f"RunStrategy (WaitAsReceiver) is {UNSUPPORTED}", "spec.runStrategy")
    elif strategy is not None and strategy not in RUN_STRATEGIES:
        yield Cause(INVALID, f"Invalid RunStrategy ({strategy})", "spec.runStrategy")


# --- names, memory, processors --------------------------------------------------------------------------------------


def _names(spec: Spec, path: str, config: Config) -> Causes:
    hostname, subdomain = spec.get("hostname"), spec.get("subdomain")
    if hostname and (problems := _label_problems(hostname)):
        message = f"{path}.hostname does not conform to the kubernetes DNS_LABEL rules : {', '.join(problems)}"
        yield Cause(INVALID, message, f"{path}.hostname")
    if subdomain and (problems := _subdomain_problems(subdomain)):
        message = f"{path}.subdomain does not conform to the kubernetes DNS_SUBDOMAIN rules : {', '.join(problems)}"
        yield Cause(INVALID, message, f"{path}.subdomain")


def _resources(spec: Spec, path: str, config: Config) -> Causes:
    requests = _get(spec, "domain", "resources", "requests") or {}
    limits = _get(spec, "domain", "resources", "limits") or {}
    where = f"{path}.domain.resources"
    for kind, values in (("requests", requests), ("limits", limits)):
        for name in ("memory", "cpu"):
            here = f"{where}.{kind}.{name}"
            amount = quantity.parse(values.get(name, 0))
            if amount < 0:
                yield Cause(INVALID, f"{here} '{values[name]}': must be greater than or equal to 0.", here)
            elif name == "memory" and kind == "requests" and 0 < amount < _MIN_MEMORY:
                yield Cause(INVALID, f"{here} '{values[name]}': must be greater than or equal to 1M.", here)
    for name in ("memory", "cpu"):
        limit = quantity.parse(limits.get(name, 0))
        if limit > 0 and quantity.parse(requests.get(name, 0)) > limit:
            here = f"{where}.requests.{name}"
            message = f"{here} '{requests[name]}' is greater than {where}.limits.{name} '{limits[name]}'"
            yield Cause(INVALID, message, here)


def _guest_memory(spec: Spec, path: str, config: Config) -> Causes:
    guest = _get(spec, "domain", "memory", "guest")
    if guest is None:
        return
    here = f"{path}.domain.memory.guest"
    amount = quantity.parse(guest)
    if amount < _MIN_MEMORY:
        yield Cause(INVALID, f"{here} '{guest}': must be greater than or equal to 1M.", here)
    limit = _get(spec, "domain", "resources", "limits", "memory")
    if limit is not None and 0 < quantity.parse(limit) < amount:
        message = f"{here} '{guest}' must be equal to or less than the memory limit "
        yield Cause(INVALID, f"{message}{path}.domain.resources.limits.memory '{limit}'", here)


def _no_memory(spec: Spec, path: str) -> Causes:
    requested = _get(spec, "domain", "resources", "requests", "memory")
    limit = _get(spec, "domain", "resources", "limits", "memory")
    guest = _get(spec, "domain", "memory", "guest")
    if guest is None and not any(amount and quantity.parse(amount) for amount in (requested, limit)):
        message = (
            f"no memory requested, at least one of '{path}.domain.memory.guest', "
            f"'{path}.domain.memory.hugepages.pageSize' or '{path}.domain.resources.requests.memory' must be set"
        )
        yield Cause(REQUIRED, message, f"{path}.domain.memory.guest")


def _cpu_features(spec: Spec, path: str, config: Config) -> Causes:
    for index, feature in enumerate(_get(spec, "domain", "cpu", "features") or ()):
        policy = feature.get("policy") or ""
        if policy not in ("", "force", "require", "optional", "disable", "forbid"):
            message = f"CPU feature {feature['name']} uses policy {policy} that is not supported."
            yield Cause(NOT_SUPPORTED, message, f"{path}.domain.cpu.features[{index}].policy")


def _machine(spec: Spec, path: str, config: Config) -> Causes:
    machine = _get(spec, "domain", "machine", "type")
    patterns = config.emulated_machines
    if machine and not any(fnmatch.fnmatchcase(machine, pattern) for pattern in patterns):
        here = f"{path}.domain.machine.type"
        message = f"{here} is not supported: {machine} (allowed values: [{' '.join(patterns)}])"
        yield Cause(INVALID, message, here)
    architecture = spec.get("architecture")
    if architecture and architecture != config.architecture:
        yield Cause(INVALID, f"unsupported architecture: {architecture}", f"{path}.architecture")


def _firmware(spec: Spec, path: str, config: Config) -> Causes:
    firmware = _get(spec, "domain", "firmware") or {}
    serial = firmware.get("serial")
    here = f"{path}.domain.firmware.serial"
    if serial and len(serial) > _MAX_STRING:
        yield Cause(INVALID, f"{here} must be less than or equal to {_MAX_STRING} in length, if specified", here)
    if serial and not _SERIAL.fullmatch(serial):
        message = f"{here} must be made up of the following characters [A-Za-z0-9_.+-], if specified"
        yield Cause(INVALID, message, here)
    if firmware.get("uuid"):
        try:
            uuid.UUID(firmware["uuid"])
        except ValueError:
            here = f"{path}.domain.firmware.uuid"
            yield Cause(INVALID, f"{here} must be a UUID, if specified", here)


def _clock(spec: Spec, path: str, config: Config) -> Causes:
    clock = _get(spec, "domain", "clock") or {}
    here = f"{path}.domain.clock"
    if clock.get("utc") is not None and clock.get("timezone") is not None:
        yield Cause(INVALID, f"{here} must have only one of utc and timezone set", here)
    policies = {
        "hpet": ("delay", "catchup", "merge", "discard"),
        "pit": ("delay", "catchup", "discard"),
        "rtc": ("delay", "catchup"),
    }
    for name, allowed in policies.items():
        timer = _get(clock, "timer", name) or {}
        yield from _one_of(timer.get("tickPolicy"), f"{here}.timer.{name}.tickPolicy", allowed)
        yield from _one_of(timer.get("track"), f"{here}.timer.{name}.track", ("guest", "wall"))


# --- strategies and devices -----------------------------------------------------------------------------------------


def _strategies(spec: Spec, path: str, config: Config) -> Causes:
    allowed = {
        "evictionStrategy": ("None", "LiveMigrate", "LiveMigrateIfPossible", "External"),
        "startStrategy": ("Paused",),
    }
    for name, values in allowed.items():
        value = spec.get(name)
        if value is not None and value not in values:
            here = f"{path}.{name}"
            yield Cause(INVALID, f"{here} is set with an unrecognized option: {value}", here)
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        here = f"{path}.terminationGracePeriodSeconds"
        yield Cause(INVALID, f"{here} '{grace}': must be greater than or equal to 0.", here)


def _inputs(spec: Spec, path: str, config: Config) -> Causes:
    for index, device in enumerate(_get(spec, "domain", "devices", "inputs") or ()):
        here = f"{path}.domain.devices.inputs[{index}]"
        if (device.get("bus") or "usb") not in ("virtio", "usb"):
            yield Cause(INVALID, "Input device can have only virtio or usb bus.", f"{here}.bus")
        if device["type"] != "tablet":
            yield Cause(INVALID, "Input device can have only tablet type.", f"{here}.type")


def _watchdog(spec: Spec, path: str, config: Config) -> Causes:
    action = _get(spec, "domain", "devices", "watchdog", "i6300esb", "action")
    here = f"{path}.domain.devices.watchdog.i6300esb.action"
    yield from _one_of(action, here, ("poweroff", "reset", "shutdown"))


def _boot_order(spec: Spec, path: str, config: Config) -> Causes:
    seen: set[int] = set()
    for kind in ("disks", "interfaces"):
        for index, device in enumerate(_get(spec, "domain", "devices", kind) or ()):
            order = device.get("bootOrder")
            if order is None:
                continue
            here = f"{path}.domain.devices.{kind}[{index}]"
            if order < 1:
                yield Cause(INVALID, f"{here} must have a boot order > 0, if supplied", f"{here}.bootOrder")
            elif order in seen:
                message = f"Boot order for {here}.bootOrder already set for a different device."
                yield Cause(INVALID, message, f"{here}.bootOrder")
            seen.add(order)


# --- disks and volumes ----------------------------------------------------------------------------------------------


def _disks(spec: Spec, path: str, config: Config) -> Causes:
    volumes = {volume["name"] for volume in spec.get("volumes") or ()}
    where = f"{path}.domain.devices.disks"
    first: dict[str, int] = {}
    for index, disk in enumerate(_get(spec, "domain", "devices", "disks") or ()):
        here, name = f"{where}[{index}]", disk["name"]
        if name not in volumes:
            if disk.get("cdrom") is None:
                yield Cause(INVALID, f"{here}.Name '{name}' not found.", f"{here}.name")
            else:
                message = f"{here}.Name '{name}' not found; an empty CD-ROM disk is {UNSUPPORTED}"
                yield Cause(NOT_SUPPORTED, message, f"{here}.name")
        if name in first:
            message = f"{here} and {where}[{first[name]}] must not have the same Name."
            yield Cause(INVALID, message, f"{here}.name")
        first.setdefault(name, index)
        # The name becomes that of a volume of the Pod
        for problem in _label_problems(name):
            yield Cause(INVALID, problem, f"{here}.name")
        yield from _disk_target(disk, here)
        yield from _disk_tuning(disk, here)


def _disk_target(disk: Spec, here: str) -> Causes:
    targets = [name for name in ("disk", "cdrom") if disk.get(name) is not None]
    if len(targets) > 1:
        yield Cause(INVALID, f"{here} can only have a single target type defined", here)
        return
    if not targets:
        return
    kind = targets[0]
    target = disk[kind]
    bus = target.get("bus") or ""
    field = f"{here}.{kind}.bus"
    if bus == "ide":
        yield Cause(INVALID, "IDE bus is not supported", field)
    elif bus == "virtio" and kind == "cdrom":
        yield Cause(INVALID, f"Bus type {bus} is invalid for CD-ROM device", field)
    elif bus in ("", "sata") and kind == "disk" and target.get("readonly"):
        yield Cause(INVALID, "sata hard-disks do not support read-only.", field)
    elif bus and bus not in _BUSES:
        message = f"{here} is set with an unrecognized bus {bus}, must be one of: [{' '.join(_BUSES)}]"
        yield Cause(INVALID, message, field)
    if kind == "cdrom":
        yield from _one_of(target.get("tray"), f"{here}.cdrom.tray", ("open", "closed"))


def _disk_tuning(disk: Spec, here: str) -> Causes:
    serial = disk.get("serial")
    if serial and not _SERIAL.fullmatch(serial):
        message = f"{here} must be made up of the following characters [A-Za-z0-9_.+-], if specified"
        yield Cause(INVALID, message, f"{here}.serial")
    if serial and len(serial) > _MAX_STRING:
        message = f"{here} must be less than or equal to {_MAX_STRING} in length, if specified"
        yield Cause(INVALID, message, f"{here}.serial")
    cache = disk.get("cache")
    if cache and cache not in ("none", "writethrough", "writeback"):
        yield Cause(INVALID, f"{here}.cache has invalid value {cache}", f"{here}.cache")
    if disk.get("io") and disk["io"] not in ("native", "threads", "default"):
        message = f"Disk IO mode for {here} is not supported. Supported modes are: native, threads, default."
        yield Cause(NOT_SUPPORTED, message, f"{here}.io")
    if disk.get("io") == "native" and cache in ("writethrough", "writeback"):
        yield Cause(INVALID, f"{here}.io native needs cache none, not {cache}", f"{here}.io")
    policy = disk.get("errorPolicy")
    if policy is not None and policy not in ("stop", "ignore", "report", "enospace"):
        yield Cause(INVALID, f'{here}.errorPolicy has invalid value "{policy}"', f"{here}.errorPolicy")


def _volumes(spec: Spec, path: str, config: Config) -> Causes:
    where = f"{path}.volumes"
    first: dict[str, int] = {}
    for index, volume in enumerate(spec.get("volumes") or ()):
        here, name = f"{where}[{index}]", volume["name"]
        if name in first:
            message = f"{here} and {where}[{first[name]}] must not have the same Name."
            yield Cause(INVALID, message, f"{here}.name")
        first.setdefault(name, index)
        sources = [source for source in _VOLUME_SOURCES if volume.get(source) is not None]
        if len(sources) != 1:
            yield Cause(INVALID, f"{here} must have exactly one source type set", here)
            continue
        source = sources[0]
        yield from _VOLUME_RULES[source](volume[source], f"{here}.{source}")
        # With a disk the name is checked there; one without gets a disk of the same name
        if not any(disk["name"] == name for disk in _get(spec, "domain", "devices", "disks") or ()):
            for problem in _label_problems(name):
                yield Cause(INVALID, problem, f"{here}.name")


def _container_disk(source: Spec, here: str) -> Causes:
    if not source["image"].strip():
        yield Cause(REQUIRED, f"{here}.image is a required field", f"{here}.image")
    yield from _one_of(source.get("imagePullPolicy"), f"{here}.imagePullPolicy", ("Always", "IfNotPresent", "Never"))
    path = source.get("path")
    if not path:
        return
    if path == "/":
        yield Cause(INVALID, f"{here} must not point to root", here)
    elif "\0" in path or posixpath.normpath("/" + path.lstrip("/")) != path.removesuffix("/"):
        yield Cause(INVALID, f"{here} must be an absolute path to a file without relative components", here)


def _cloud_init(source: Spec, here: str) -> Causes:
    counts = []
    for kind, secret, many, advice in (
        ("userData", "secretRef", "userdatasource", "UserDataSecretRef"),
        ("networkData", "networkDataSecretRef", "networkdata source", "NetworkDataSecretRef"),
    ):
        text, encoded = source.get(kind), source.get(f"{kind}Base64")
        named = _get(source, secret, "name")
        size = len(text.encode(errors="surrogatepass")) if text else 0
        if encoded:
            try:
                size = len(base64.b64decode(encoded.replace("\r", "").replace("\n", ""), validate=True))
            except (binascii.Error, ValueError):
                message = f"{here}.{kind}Base64 is not a valid base64 value."
                yield Cause(INVALID, message, f"{here}.{kind}Base64")
        count = sum(bool(value) for value in (text, encoded, named))
        if count > 1:
            yield Cause(INVALID, f"{here} must have only one {many} set.", here)
        if size > _MAX_CLOUD_INIT:
            message = (
                f"{here} {kind.lower()} exceeds {_MAX_CLOUD_INIT} byte limit. Should use {advice} for larger data."
            )
            yield Cause(INVALID, message, here)
        counts.append(count)
    if not any(counts):
        yield Cause(INVALID, f"{here} must have at least one userdatasource or one networkdatasource set.", here)


def _empty_disk(source: Spec, here: str) -> Causes:
    if quantity.parse(source["capacity"]) < 512:
        message = f"{here}.capacity '{source['capacity']}': must be greater than or equal to 512."
        yield Cause(INVALID, message, f"{here}.capacity")


def _claim(source: Spec, here: str) -> Causes:
    for problem in _subdomain_problems(source["claimName"]):
        yield Cause(INVALID, f"{here}.claimName: {problem}", f"{here}.claimName")


def _volumes_without_disk(spec: Spec, path: str) -> Causes:
    disks = {disk["name"] for disk in _get(spec, "domain", "devices", "disks") or ()}
    for index, volume in enumerate(spec.get("volumes") or ()):
        if volume["name"] not in disks:
            here = f"{path}.domain.volumes[{index}].name"
            yield Cause(INVALID, f"{here} '{volume['name']}' not found.", here)


# --- network --------------------------------------------------------------------------------------------------------


def _networks(spec: Spec, path: str, config: Config) -> Causes:
    networks = spec.get("networks") or ()
    interfaces = _get(spec, "domain", "devices", "interfaces") or ()
    named_interfaces = {interface["name"] for interface in interfaces}
    named_networks = {network["name"] for network in networks}
    seen: set[str] = set()
    for index, network in enumerate(networks):
        here, name = f"{path}.networks[{index}]", network["name"]
        if network.get("pod") is None:
            yield Cause(REQUIRED, "should have a network type", here)
        else:
            yield from _guest_cidr(network["pod"].get("vmNetworkCIDR"), f"{here}.pod.vmNetworkCIDR")
        if name in seen:
            message = f'Network with name "{name}" already exists, every network must have a unique name'
            yield Cause(DUPLICATE, message, f"{here}.name")
        seen.add(name)
        if name not in named_interfaces:
            yield Cause(REQUIRED, f"{here}.name '{name}' not found.", f"{here}.name")
    if sum(network.get("pod") is not None for network in networks) > 1:
        message = f"more than one interface is connected to a pod network in {path}.interfaces"
        yield Cause(DUPLICATE, message, f"{path}.interfaces")
    seen = set()
    for index, interface in enumerate(interfaces):
        here, name = f"{path}.domain.devices.interfaces[{index}]", interface["name"]
        if name not in named_networks:
            yield Cause(INVALID, f"{here}.name '{name}' not found.", f"{here}.name")
        if name in seen:
            yield Cause(DUPLICATE, "Only one interface can be connected to one specific network", f"{here}.name")
        seen.add(name)
        yield from _interface(interface, here)


def _guest_cidr(cidr: str | None, here: str) -> Causes:
    if not cidr:
        return
    try:
        usable = ipaddress.IPv4Network(cidr).num_addresses >= 4
    except ValueError:
        usable = False
    if not usable:
        yield Cause(INVALID, f"{here} must be an IPv4 network of at least 4 addresses, such as 10.0.2.0/24", here)


def _interface(interface: Spec, here: str) -> Causes:
    if not _INTERFACE_NAME.fullmatch(interface["name"]):
        message = (
            "Network interface name can only contain alphabetical characters, numbers, dashes (-) or underscores (_)"
        )
        yield Cause(INVALID, message, f"{here}.name")
    bindings = [name for name in ("bridge", "masquerade") if interface.get(name) is not None]
    if len(bindings) != 1:
        yield Cause(INVALID, f"{here} must have exactly one binding set: bridge or masquerade", here)
    interface_model = interface.get("model")
    if interface_model and interface_model not in _NIC_MODELS:
        message = f"interface {here}.name uses model {interface_model} that is not supported."
        yield Cause(NOT_SUPPORTED, message, f"{here}.model")
    yield from _mac(interface.get("macAddress"), "masquerade" in bindings, here)
    yield from _ports(interface.get("ports") or (), here)


def _mac(mac: str | None, masquerade: bool, here: str) -> Causes:
    if not mac:
        return
    field = f"{here}.macAddress"
    if not _MAC.fullmatch(mac) or len(set(mac) & {":", "-"}) != 1:
        yield Cause(INVALID, f"interface {here}.name has malformed MAC address ({mac}).", field)
    elif len(mac) > len(_RESERVED_MAC):
        yield Cause(INVALID, f"interface {here}.name has MAC address ({mac}) that is too long.", field)
    elif int(mac[:2], 16) & 1:
        yield Cause(INVALID, f"interface {here}.name has MAC address ({mac}) that is a multicast address.", field)
    elif masquerade and mac.replace("-", ":") == _RESERVED_MAC:
        message = "The requested MAC address is reserved for the in-pod bridge. Please choose another one."
        yield Cause(INVALID, message, field)


def _ports(ports: Any, here: str) -> Causes:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        field = f"{here}.ports[{index}]"
        name = port.get("name")
        if name:
            if name in seen:
                yield Cause(DUPLICATE, f"Duplicate name of the port: {name}", f"{field}.name")
            seen.add(name)
            if len(name) > 15 or not _PORT_NAME.fullmatch(name) or "--" in name or "-" in (name[0], name[-1]):
                yield Cause(INVALID, f"Invalid name of the port: {name}", f"{field}.name")
        if port["port"] == 0:
            yield Cause(REQUIRED, "Port field is mandatory.", field)
        elif not 0 < port["port"] < 65536:
            yield Cause(INVALID, "Port field must be in range 0 < x < 65536.", field)
        if port.get("protocol") and port["protocol"] not in ("TCP", "UDP"):
            yield Cause(INVALID, "Unknown protocol, only TCP or UDP allowed", f"{field}.protocol")


def _dns(spec: Spec, path: str, config: Config) -> Causes:
    policy, dns = spec.get("dnsPolicy") or "", spec.get("dnsConfig")
    if policy not in _DNS_POLICIES:
        message = f"DNSPolicy: {policy} is not supported, valid values: [{' '.join(_DNS_POLICIES)}]"
        yield Cause(NOT_SUPPORTED, message, f"{path}.dnsPolicy")
    if policy == "None":
        if dns is None:
            message = "must provide `dnsConfig` when `dnsPolicy` is None"
            yield Cause(REQUIRED, message, f"{path}.dnsConfig")
        elif not dns.get("nameservers"):
            yield Cause(REQUIRED, "must provide at least one DNS nameserver when `dnsPolicy` is None", "nameservers")
    if dns is None:
        return
    servers, searches = dns.get("nameservers") or (), dns.get("searches") or ()
    if len(servers) > 3:
        yield Cause(INVALID, f"must not have more than 3 nameservers: [{' '.join(servers)}]", "nameservers")
    for server in servers:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            yield Cause(INVALID, f"must be valid IP address: {server}", "nameservers")
    if len(searches) > 6:
        yield Cause(INVALID, "must not have more than 6 search paths", "searchDomains")
    if len(" ".join(searches)) > 256:
        message = "must not have more than 256 characters (including spaces) in the search list"
        yield Cause(INVALID, message, "searchDomains")
    for search in searches:
        for problem in _subdomain_problems(search):
            yield Cause(INVALID, problem, "searchDomains")
    if any(not option.get("name") for option in dns.get("options") or ()):
        yield Cause(INVALID, "Option.Name must not be empty", "options")


# --- helpers --------------------------------------------------------------------------------------------------------


def _get(value: Any, *keys: str) -> Any:
    """Follow keys through objects; None where one is missing, null or no object."""
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _one_of(value: Any, here: str, allowed: tuple[str, ...]) -> Causes:
    if value and value not in allowed:
        yield Cause(NOT_SUPPORTED, f"{here} has invalid value {value}, must be one of: [{' '.join(allowed)}]", here)


def _label_problems(name: str) -> list[str]:
    """Give what keeps a name from being a DNS label (RFC 1123), in Kubernetes' words."""
    problems = []
    if len(name) > 63:
        problems.append("must be no more than 63 characters")
    if not _LABEL.fullmatch(name):
        problems.append(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
            "end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
            f"'{_LABEL.pattern}')"
        )
    return problems


def _subdomain_problems(name: str) -> list[str]:
    """Give what keeps a name from being a DNS subdomain (RFC 1123), in Kubernetes' words."""
    problems = []
    if len(name) > 253:
        return ["must be no more than 253 characters"]
    if not _SUBDOMAIN.fullmatch(name):
        problems.append(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
            f"'{_SUBDOMAIN.pattern}')"
        )
    return problems


_VOLUME_RULES: dict[str, Callable[[Spec, str], Causes]] = {
    "containerDisk": _container_disk,
    "cloudInitNoCloud": _cloud_init,
    "cloudInitConfigDrive": _cloud_init,
    "emptyDisk": _empty_disk,
    "persistentVolumeClaim": _claim,
}

_RULES: tuple[Callable[[Spec, str, Config], Causes], ...] = (
    _names,
    _resources,
    _guest_memory,
    _machine,
    _firmware,
    _cpu_features,
    _clock,
    _strategies,
    _networks,
    _boot_order,
    _inputs,
    _watchdog,
    _disks,
    _volumes,
    _dns,
)
