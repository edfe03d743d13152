# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of VirtualMachines. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from turtles.api import quantity
from turtles.api.objects import get
from turtles.api.times import parse_time
from turtles.controller.metrics.common import OTHER, system, vnics
from turtles.metrics import Description, Sample

#: What the word that people see stands for.
_GROUPS = {
    **dict.fromkeys(("Provisioning", "Starting", "WaitingForVolumeBinding", "WaitingForReceiver"), "starting"),
    "Running": "running",
    "Migrating": "migrating",
    **dict.fromkeys(("Stopped", "Paused", "Stopping", "Terminating"), "non_running"),
    **dict.fromkeys(
        (
            "CrashLoopBackOff",
            "Unknown",
            "ErrorUnschedulable",
            "ErrImagePull",
            "ImagePullBackOff",
            "ErrorPvcNotFound",
            "DataVolumeError",
        ),
        "error",
    ),
}
_INFO, _NUMBER = "kubevirt_vm_info", "kubevirt_number_of_vms"
_REQUESTS, _LIMITS = "kubevirt_vm_resource_requests", "kubevirt_vm_resource_limits"
_CREATED, _DISK, _VNIC = (
    "kubevirt_vm_create_date_timestamp_seconds",
    "kubevirt_vm_disk_allocated_size_bytes",
    "kubevirt_vm_vnic_info",
)
_TRANSITION = "kubevirt_vm_{}_status_last_transition_timestamp_seconds"
_TRANSITIONS = ("starting", "running", "migrating", "non_running", "error")

DESCRIPTIONS = (
    Description(_NUMBER, "Number of VirtualMachines."),
    Description(_INFO, "Information about Virtual Machines."),
    Description(_REQUESTS, "Resources requested by Virtual Machine. Reports memory and CPU requests."),
    Description(_LIMITS, "Resource limits set for a Virtual Machine."),
    Description(_CREATED, "Virtual Machine creation timestamp."),
    Description(_DISK, "Allocated disk size of a Virtual Machine in bytes, based on its PersistentVolumeClaim."),
    Description(_VNIC, "Details of the vNIC interfaces in a Virtual Machine's configuration."),
    *(
        Description(_TRANSITION.format(name), f"Virtual Machine last transition timestamp to {name} status.")
        for name in _TRANSITIONS
    ),
)

Claims = Callable[[str, str], Mapping[str, Any] | None]


def samples(vms: Sequence[Mapping[str, Any]], claim: Claims) -> Iterator[Sample]:
    """Return the samples of all machines.

    :param claim: returns a PersistentVolumeClaim by namespace and name.
    """
    yield Sample(_NUMBER, {}, float(len(vms)))
    for vm in vms:
        own = {"name": vm["metadata"]["name"], "namespace": vm["metadata"]["namespace"]}
        template = get(dict(vm), "spec", "template") or {}
        spec = template.get("spec") or {}
        yield _info(vm, own, template)
        yield from _resources(own, spec.get("domain") or {})
        yield from _transitions(vm, own)
        if created := parse_time(vm["metadata"].get("creationTimestamp")):
            yield Sample(_CREATED, own, created.timestamp())
        yield from _disks(own, spec, claim)
        for labels in vnics(vm, spec):
            yield Sample(_VNIC, labels, 1.0)


def _info(vm: Mapping[str, Any], own: Mapping[str, str], template: Mapping[str, Any]) -> Sample:
    word = str(get(dict(vm), "status", "printableStatus") or "")
    labels = {
        **own,
        **system(template.get("metadata")),
        "machine_type": get(dict(template), "spec", "domain", "machine", "type") or "",
        "instance_type": OTHER if vm["spec"].get("instancetype") else "",
        "preference": OTHER if vm["spec"].get("preference") else "",
        "status": word.lower(),
        "status_group": _GROUPS.get(word, "<unknown>"),
    }
    return Sample(_INFO, labels, 1.0)


def _resources(own: Mapping[str, str], domain: Mapping[str, Any]) -> Iterator[Sample]:
    requests, limits = (get(dict(domain), "resources", name) or {} for name in ("requests", "limits"))
    cpu, memory = domain.get("cpu"), domain.get("memory") or {}
    for source, amount in (
        ("domain", requests.get("memory")),
        ("guest", memory.get("guest")),
        ("hugepages", get(dict(memory), "hugepages", "pageSize")),
    ):
        if value := _amount(amount):
            yield Sample(_REQUESTS, {**own, "resource": "memory", "unit": "bytes", "source": source}, value)
    of_cpu = {**own, "resource": "cpu"}
    for unit in ("cores", "threads", "sockets"):
        if count := (cpu or {}).get(unit):
            yield Sample(_REQUESTS, {**of_cpu, "unit": unit, "source": "domain"}, float(count))
    if value := _amount(requests.get("cpu")):
        yield Sample(_REQUESTS, {**of_cpu, "unit": "cores", "source": "requests"}, value)
    elif cpu is None:
        for unit in ("cores", "threads", "sockets"):
            yield Sample(_REQUESTS, {**of_cpu, "unit": unit, "source": "default"}, 1.0)
    for resource, unit in (("memory", "bytes"), ("cpu", "cores")):
        if value := _amount(limits.get(resource)):
            yield Sample(_LIMITS, {**own, "resource": resource, "unit": unit}, value)


def _amount(text: Any) -> float:
    try:
        return float(quantity.parse(text)) if text is not None else 0.0
    except quantity.QuantityError:
        return 0.0


def _transitions(vm: Mapping[str, Any], own: Mapping[str, str]) -> Iterator[Sample]:
    group = _GROUPS.get(str(get(dict(vm), "status", "printableStatus") or ""), "error")
    conditions = get(dict(vm), "status", "conditions") or ()
    times = [
        moment.timestamp()
        for condition in conditions
        if condition.get("type") in ("Ready", "Failure", "Paused")
        and (moment := parse_time(condition.get("lastTransitionTime")))
    ]
    for name in _TRANSITIONS:
        yield Sample(_TRANSITION.format(name), own, max(times, default=-1.0) if name == group else 0.0)


def _disks(own: Mapping[str, str], spec: Mapping[str, Any], claim: Claims) -> Iterator[Sample]:
    for volume in spec.get("volumes") or ():
        name = get(volume, "persistentVolumeClaim", "claimName") or get(volume, "dataVolume", "name")
        pvc = claim(own["namespace"], name) if name else None
        if pvc is None:
            continue
        labels = {
            **own,
            "persistentvolumeclaim": str(name),
            "volume_mode": get(dict(pvc), "spec", "volumeMode") or "Filesystem",
            "device": volume["name"],
        }
        yield Sample(_DISK, labels, _amount(get(dict(pvc), "spec", "resources", "requests", "storage")))
