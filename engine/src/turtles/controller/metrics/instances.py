# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of VirtualMachineInstances. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from turtles.api import labels as names
from turtles.api.conditions import has_condition
from turtles.api.objects import annotations_of, get, labels_of
from turtles.api.phases import RUNNING, phase_of
from turtles.api.texts import to_number
from turtles.controller.metrics.common import OTHER, system, vnics
from turtles.metrics import Description, Sample

_INFO, _VNIC, _ADDRESSES = "kubevirt_vmi_info", "kubevirt_vmi_vnic_info", "kubevirt_vmi_status_addresses"
_STUCK, _OVERHEAD = "kubevirt_vmi_non_evictable", "kubevirt_vmi_launcher_memory_overhead_bytes"
_RUNNING, _OUTDATED = "kubevirt_vmi_number_of_running", "kubevirt_vmi_number_of_outdated"
_MIGRATING = ("LiveMigrate", "LiveMigrateIfPossible")

DESCRIPTIONS = (
    Description(_RUNNING, "Number of running VirtualMachineInstances."),
    Description(_OUTDATED, "Number of VirtualMachineInstances with an outdated launcher."),
    Description(_INFO, "Information about VirtualMachineInstances."),
    Description(_STUCK, "Whether a VirtualMachineInstance should be migrated on eviction but can't be."),
    Description(_ADDRESSES, "The addresses of a VirtualMachineInstance."),
    Description(_VNIC, "Details of the vNIC interfaces of a running instance."),
    Description(_OVERHEAD, "Estimated memory overhead of the launcher."),
)

Pods = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


def samples(vmis: Sequence[Mapping[str, Any]], pod_of: Pods, eviction_strategy: str) -> Iterator[Sample]:
    """Return the samples of all instances.

    :param pod_of: returns an instance's launcher Pod.
    :param eviction_strategy: of instances that have none.
    """
    phases = Counter(phase_of(vmi) for vmi in vmis)
    yield Sample(_RUNNING, {}, float(phases[RUNNING]))
    yield Sample(_OUTDATED, {}, float(sum(_is_outdated(vmi) for vmi in vmis)))
    for vmi in vmis:
        pod, evictable = pod_of(vmi), _is_evictable(vmi, eviction_strategy)
        own = {
            "node": get(dict(vmi), "status", "nodeName") or "",
            "namespace": vmi["metadata"]["namespace"],
            "name": vmi["metadata"]["name"],
        }
        yield Sample(_INFO, {**own, **_info(vmi, pod, evictable=evictable)}, 1.0)
        yield Sample(_STUCK, own, float(not evictable))
        yield from _addresses(vmi, own)
        for labels in vnics(vmi, vmi["spec"]):
            yield Sample(_VNIC, labels, 1.0)
        overhead = get(dict(pod or {}), "metadata", "annotations", names.MEMORY_OVERHEAD)
        if overhead and (size := to_number(overhead)) is not None:
            yield Sample(_OVERHEAD, {key: own[key] for key in ("namespace", "name")}, float(size))


def _info(vmi: Mapping[str, Any], pod: Mapping[str, Any] | None, *, evictable: bool) -> dict[str, str]:
    annotations = annotations_of(vmi)
    guest = get(dict(vmi), "status", "guestOSInfo") or {}

    def named(*keys: str) -> str:
        return OTHER if any(annotations.get(key) for key in keys) else ""

    return {
        "phase": phase_of(vmi).lower(),
        **system(vmi["metadata"]),
        "instance_type": named(names.INSTANCETYPE, names.CLUSTER_INSTANCETYPE),
        "preference": named(names.PREFERENCE, names.CLUSTER_PREFERENCE),
        "guest_os_kernel_release": str(guest.get("kernelRelease") or ""),
        "guest_os_machine": get(dict(vmi), "status", "machine", "type") or "",
        "guest_os_arch": str(guest.get("machine") or ""),
        "guest_os_name": str(guest.get("name") or ""),
        "guest_os_version_id": str(guest.get("versionId") or ""),
        "evictable": str(evictable).lower(),
        "outdated": str(_is_outdated(vmi)).lower(),
        "vmi_pod": pod["metadata"]["name"] if pod is not None and phase_of(pod) == RUNNING else "",
    }


def _is_outdated(vmi: Mapping[str, Any]) -> bool:
    return names.OUTDATED_LAUNCHER in labels_of(vmi)


def _is_evictable(vmi: Mapping[str, Any], eviction_strategy: str) -> bool:
    strategy = vmi["spec"].get("evictionStrategy") or eviction_strategy
    return strategy not in _MIGRATING or has_condition(vmi, "LiveMigratable")


def _addresses(vmi: Mapping[str, Any], own: Mapping[str, str]) -> Iterator[Sample]:
    for interface in get(dict(vmi), "status", "interfaces") or ():
        address = interface.get("ipAddress") or ""
        vnic, inside = interface.get("name") or "", interface.get("interfaceName") or ""
        if not address and not vnic and not inside:
            continue
        type_ = "ExternalInterface" if address else "SystemInterface"
        labels = {**own, "vnic_name": vnic, "interface_name": inside, "address": address, "type": type_}
        yield Sample(_ADDRESSES, labels, 1.0)
