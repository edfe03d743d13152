# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a VMI can be migrated live, and if not, why not (condition LiveMigratable). Pure.

Reasons, their order and their words are KubeVirt's (KubeVirt API, VirtualMachineInstanceConditionReason); those of this
engine come after them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turtles.api import labels
from turtles.api.kinds.vmi.hotplug import is_hotpluggable
from turtles.api.objects import annotations_of
from turtles.domain import paths
from turtles.domain.connections import is_behind_pod
from turtles.domain.interface_names import POD_INTERFACE
from turtles.domain.network import InterfacePlan

#: Sources of volumes whose disks are files of the Pod's own: they are copied.
_LOCAL = (
    "containerDisk",
    "emptyDisk",
    "ephemeral",
    "cloudInitNoCloud",
    "cloudInitConfigDrive",
    "configMap",
    "secret",
    "downwardAPI",
    "serviceAccount",
    "sysprep",
    "downwardMetrics",
)
_PASSTHROUGH = "host-passthrough"


@dataclass(frozen=True)
class Migratability:
    """Why a VMI can't be migrated live, both empty if it can; ``method`` is status.migrationMethod."""

    method: str
    reason: str = ""
    message: str = ""


def of(vmi: Mapping[str, Any], plans: Sequence[InterfacePlan] = (), plugins: Collection[str] = ()) -> Migratability:
    """Return whether a VMI can be migrated live.

    :param plans: how its interfaces are connected.
    :param plugins: network binding plugins whose guests can be migrated on the Pod network.
    """
    volumes = vmi["spec"].get("volumes") or ()
    copied = any(source in volume for volume in volumes for source in _LOCAL)
    method = "BlockMigration" if copied else "LiveMigration"
    return Migratability(method, *next(_obstacles(vmi, plans, plugins), ("", "")))


def _obstacles(
    vmi: Mapping[str, Any], plans: Sequence[InterfacePlan], plugins: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Generate reason and message of what stands against it, the first of which counts."""
    spec = vmi["spec"]
    domain = spec.get("domain") or {}
    devices, cpu = domain.get("devices") or {}, domain.get("cpu") or {}
    yield from _interfaces(vmi, plans, plugins)
    if cpu.get("model") == _PASSTHROUGH:
        message = (
            "cannot migrate VMI which uses the CPU model host-passthrough: the guest sees the processors of this node; "
            "use host-model or a named model"
        )
        yield "CPUModeLiveMigratable", message
    if devices.get("hostDevices") or devices.get("gpus"):
        yield "HostDeviceNotLiveMigratable", "VMI uses a PCI host devices"
    if any(each.get("sriov") is not None for each in devices.get("interfaces") or ()):
        yield (
            "HostDeviceNotLiveMigratable",
            "VMI uses SR-IOV interfaces, which this engine can't migrate",
        )
    if domain.get("launchSecurity"):
        yield "SEVNotLiveMigratable", "VMI uses SEV"
    if (domain.get("features") or {}).get("hypervPassthrough"):
        yield "HypervPassthroughNotLiveMigratable", "VMI uses hyperv passthrough"
    yield from _disks(vmi)
    if cpu.get("dedicatedCpuPlacement"):
        message = "cannot migrate VMI with dedicated processors: this engine can't reassign them on another node"
        yield "DedicatedCPUNotLiveMigratable", message
    if devices.get("filesystems"):
        yield (
            "VirtIOFSNotLiveMigratable",
            "cannot migrate VMI with virtiofs: files opened by the guest would stay on this node",
        )


def _interfaces(
    vmi: Mapping[str, Any], plans: Sequence[InterfacePlan], plugins: Collection[str]
) -> Iterator[tuple[str, str]]:
    spec = vmi["spec"]
    pod_networks = {network["name"] for network in spec.get("networks") or () if network.get("pod") is not None}
    if labels.ALLOW_POD_BRIDGE_MIGRATION in annotations_of(vmi):
        return
    for interface in ((spec.get("domain") or {}).get("devices") or {}).get("interfaces") or ():
        migrates = is_behind_pod(interface) or (interface.get("binding") or {}).get("name") in plugins
        if interface["name"] in pod_networks and not migrates:
            yield (
                "InterfaceNotLiveMigratable",
                "cannot migrate VMI which does not use masquerade, bridge with "
                f"{labels.ALLOW_POD_BRIDGE_MIGRATION} VM annotation or a migratable plugin to connect to the pod "
                "network",
            )
    for plan in plans:
        if plan.binding == "bridge" and plan.pod_interface != POD_INTERFACE and plan.has_address:
            yield (
                "InterfaceNotLiveMigratable",
                f"cannot migrate VMI: interface {plan.name} has an address of its Pod, and the target's Pod is given "
                "another one; use a network without address management (ipam), or, if the network takes addresses "
                f"along, the annotation {labels.ALLOW_POD_BRIDGE_MIGRATION}",
            )


def _disks(vmi: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    reason = "DisksNotLiveMigratable"
    entries = (vmi.get("status") or {}).get("volumeStatus") or ()
    claims = {entry["name"]: entry.get("persistentVolumeClaimInfo") or {} for entry in entries}
    for volume in vmi["spec"].get("volumes") or ():
        name = volume["name"]
        if "persistentVolumeClaim" in volume or "dataVolume" in volume:
            if "ReadWriteMany" not in (claims.get(name, {}).get("accessModes") or ()):
                yield (
                    reason,
                    f"cannot migrate VMI: PVC {paths.claim_of(volume)} is not shared, live migration requires that all "
                    "PVCs must be shared (using ReadWriteMany access mode)",
                )
            elif is_hotpluggable(volume):
                yield (
                    reason,
                    f"cannot migrate VMI: volume {name} is hot-plugged, which this engine can't move "
                    "to another node; unplug it first",
                )
        if "hostDisk" in volume and not volume["hostDisk"].get("shared"):
            yield reason, "cannot migrate VMI with non-shared HostDisk"
