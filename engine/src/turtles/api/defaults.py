# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission fills in. Pure functions; they take objects whose shape the model has found right.

Rules: KubeVirt user guide ("Virtual hardware", "Disks and volumes", "Interfaces and networks") and the KubeVirt API's
documented defaults.
"""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Callable

from turtles.api import labels, model, quantity
from turtles.api.conditions import GUEST_NOT_RUNNING, set_condition
from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.guests import QEMU_UID, firmware_uuid
from turtles.api.objects import Object
from turtles.api.phases import PENDING

_TAG = re.compile(r":([^/:@]+)$")


def default_vm(
    vm: Object,
    old: Object | None = None,
    config: ClusterConfiguration = DEFAULT,
    random_uuid: Callable[[], str] = lambda: str(uuid.uuid4()),
) -> Object:
    """Give a VirtualMachine with its defaults set: machine type, and an identity of its firmware for life.

    A new one has the finalizer of its controller from the start, which then needn't put it there.

    `old` is what an update replaces; a new firmware identity is made up on creation only. Whoever leaves the
    identity out of an update keeps the one there was.
    """
    vm = copy.deepcopy(vm)
    if old is None:
        _add_finalizer(vm, labels.VM_FINALIZER)
    domain = _domain_of(vm)
    if domain is None:
        return vm
    if not (domain.get("machine") or {}).get("type"):
        domain["machine"] = {**(domain.get("machine") or {}), "type": config.machine_type}
    before = (
        ((_domain_of(old) or {}).get("firmware") or {}) if old else {"uuid": random_uuid(), "serial": random_uuid()}
    )
    firmware = dict(domain.get("firmware") or {})
    for key in ("uuid", "serial"):
        if not firmware.get(key) and before.get(key):
            firmware[key] = before[key]
    if firmware:
        domain["firmware"] = firmware
    return vm


def default_vmi(vmi: Object, config: ClusterConfiguration = DEFAULT, now: str = "") -> Object:
    """Give a new VirtualMachineInstance with its defaults and its first status set.

    `now` is a RFC 3339 timestamp, that of the phase Pending.
    """
    vmi = copy.deepcopy(vmi)
    spec = vmi["spec"]
    domain = spec["domain"]
    if not spec.get("architecture"):
        spec["architecture"] = config.architecture
    if not spec.get("evictionStrategy"):
        spec["evictionStrategy"] = config.eviction_strategy
    if not (domain.get("machine") or {}).get("type"):
        domain["machine"] = {**(domain.get("machine") or {}), "type": config.machine_type}
    _default_cpu(domain, config)
    _default_memory(domain)
    _default_firmware(vmi, domain)
    features = domain["features"] = domain.get("features") or {}
    features["acpi"] = features.get("acpi") or {}
    _default_network(spec, domain, config)
    _default_disks(spec, domain)
    watchdog = domain["devices"].get("watchdog")
    if watchdog is not None and watchdog.get("i6300esb") is None:
        watchdog["i6300esb"] = {}
    model.VMI_SPEC.apply_defaults(spec)
    _default_metadata(vmi)
    _first_status(vmi, now)
    return vmi


def _domain_of(vm: Object) -> Object | None:
    template = (vm.get("spec") or {}).get("template") or {}
    domain = (template.get("spec") or {}).get("domain")
    return domain if isinstance(domain, dict) else None


def _default_cpu(domain: Object, config: ClusterConfiguration) -> None:
    cpu = domain["cpu"] = domain.get("cpu") or {}
    resources = domain.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    if not any(cpu.get(key) for key in ("cores", "sockets", "threads")):
        asked = quantity.to_int(limits.get("cpu") or requests.get("cpu") or 0)
        cpu["sockets"] = max(1, asked)
    for key in ("cores", "sockets", "threads"):
        cpu[key] = cpu.get(key) or 1
    if not cpu.get("model"):
        cpu["model"] = config.cpu_model
    if requests.get("cpu"):
        return
    if asked_for := limits.get("cpu") or config.cpu_request:
        domain["resources"] = {**resources, "requests": {**requests, "cpu": asked_for}}


def _default_memory(domain: Object) -> None:
    resources = domain.get("resources") or {}
    asked = (resources.get("requests") or {}).get("memory") or (resources.get("limits") or {}).get("memory")
    memory = domain.get("memory") or {}
    if not memory.get("guest") and asked:
        domain["memory"] = {**memory, "guest": asked}


def _default_firmware(vmi: Object, domain: Object) -> None:
    firmware = domain.get("firmware") or {}
    if not firmware.get("uuid"):
        name = (vmi.get("metadata") or {}).get("name")
        # With generateName there is no name yet from which the UUID could be derived
        domain["firmware"] = {**firmware, "uuid": firmware_uuid(name) if name else str(uuid.uuid4())}


def _default_network(spec: Object, domain: Object, config: ClusterConfiguration) -> None:
    devices = domain["devices"]
    if devices.get("autoattachPodInterface") is False or spec.get("networks") or devices.get("interfaces"):
        return
    devices["interfaces"] = [{"name": "default", config.default_network_interface: {}}]
    spec["networks"] = [{"name": "default", "pod": {}}]


def _default_disks(spec: Object, domain: Object) -> None:
    devices = domain["devices"]
    disks = devices.get("disks") or []
    named = {disk["name"] for disk in disks}
    disks += [{"name": volume["name"]} for volume in spec.get("volumes") or () if volume["name"] not in named]
    for disk in disks:
        if disk.get("disk") is None and disk.get("cdrom") is None:
            disk["disk"] = {}
        for target in (disk.get("disk"), disk.get("cdrom")):
            if target is not None and not target.get("bus"):
                target.pop("bus", None)
    if disks:
        devices["disks"] = disks
    for volume in spec.get("volumes") or ():
        container = volume.get("containerDisk")
        if container is not None and not container.get("imagePullPolicy"):
            container["imagePullPolicy"] = pull_policy(container["image"])


def pull_policy(image: str) -> str:
    """Give the pull policy of an image that has none set: Always for `latest` and no tag, else IfNotPresent."""
    if "@" in image:
        return "IfNotPresent"
    tag = _TAG.search(image)
    return "IfNotPresent" if tag and tag.group(1) != "latest" else "Always"


def _default_metadata(vmi: Object) -> None:
    metadata = vmi["metadata"] = vmi.get("metadata") or {}
    _add_finalizer(vmi, labels.VMI_FINALIZER)
    annotations = metadata.get("annotations") or {}
    if not annotations.get(labels.PCI_TOPOLOGY_VERSION):
        metadata["annotations"] = {**annotations, labels.PCI_TOPOLOGY_VERSION: labels.PCI_TOPOLOGY_V3}


def _add_finalizer(obj: Object, finalizer: str) -> None:
    metadata = obj["metadata"] = obj.get("metadata") or {}
    finalizers = metadata.get("finalizers") or []
    if finalizer not in finalizers:
        metadata["finalizers"] = [*finalizers, finalizer]


def _first_status(vmi: Object, now: str) -> None:
    domain = vmi["spec"]["domain"]
    cpu = domain["cpu"]
    status: Object = {
        "phase": PENDING,
        "runtimeUser": QEMU_UID,
        "currentCPUTopology": {key: cpu[key] for key in ("cores", "sockets", "threads")},
    }
    if now:
        status["phaseTransitionTimestamps"] = [{"phase": PENDING, "phaseTransitionTimestamp": now}]
    guest = (domain.get("memory") or {}).get("guest")
    if guest:
        status["memory"] = {"guestAtBoot": guest, "guestCurrent": guest, "guestRequested": guest}
    # As it will be until the guest runs, so that nobody has to write it on the way there
    conditions: list[Object] = []
    set_condition(conditions, "Ready", "False", *GUEST_NOT_RUNNING, now)
    vmi["status"] = {**status, "conditions": conditions}
