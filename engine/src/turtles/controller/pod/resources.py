# SPDX-License-Identifier: GPL-3.0-or-later
"""What a launcher Pod requests of its node."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from turtles.api import labels, quantity
from turtles.api.objects import Object
from turtles.controller.pod.config import LauncherConfig
from turtles.domain.definition import cpu_topology

#: Memory limit of a Pod whose namespace's quota demands one, as a multiple of its request (KubeVirt's).
_QUOTA_MEMORY_RATIO = 2


def resources(spec: Mapping[str, Any], config: LauncherConfig, overhead: int) -> Object:
    """Return what the launcher's container requests, and its limits.

    :param overhead: bytes that the machine needs in addition to the guest's memory.
    """
    domain = spec.get("domain") or {}
    wanted = domain.get("resources") or {}
    requests, limits = dict(wanted.get("requests") or {}), dict(wanted.get("limits") or {})
    cpu = domain.get("cpu") or {}
    if cpu.get("dedicatedCpuPlacement"):
        # As many as there are virtual processors: the kubelet gives whole ones only to Pods of the class Guaranteed.
        processors = cpu_topology(spec).vcpus + bool(cpu.get("isolateEmulatorThread"))
        requests["cpu"] = limits["cpu"] = str(processors)
    elif "cpu" not in requests and "cpu" not in limits:
        requests["cpu"] = quantity.format_milli(
            max(1, 1000 * cpu_topology(spec).vcpus // config.cluster.cpu_allocation_ratio)
        )
    guest = (domain.get("memory") or {}).get("guest")
    page = ((domain.get("memory") or {}).get("hugepages") or {}).get("pageSize")
    if "memory" in requests:
        memory = quantity.to_int(requests["memory"])
    else:
        memory = quantity.to_int(guest or limits.get("memory") or 0)
        if not page:  # there is no more of them than there is
            memory = memory * 100 // config.cluster.memory_overcommit
    if page:
        # The guest's memory comes from the huge pages; what remains is what its Pod requests in addition.
        huge = min(memory, quantity.to_int(guest)) if guest else memory
        requests[f"hugepages-{page}"] = limits[f"hugepages-{page}"] = str(huge)
        memory -= huge
        if "memory" in limits:
            limits["memory"] = str(max(0, quantity.to_int(limits["memory"]) - huge))
    requests["memory"] = str(memory if wanted.get("overcommitGuestOverhead") else memory + overhead)
    if "memory" in limits:
        limits["memory"] = str(quantity.to_int(limits["memory"]) + overhead)
    elif cpu.get("dedicatedCpuPlacement"):
        limits["memory"] = requests["memory"]
    elif "memory" in config.limited:
        limits["memory"] = str(_QUOTA_MEMORY_RATIO * (memory + overhead))
    if "cpu" in config.limited and "cpu" not in limits:
        limits["cpu"] = max(str(cpu_topology(spec).vcpus), str(requests["cpu"]), key=quantity.to_milli)
    requests.setdefault("ephemeral-storage", "50M")
    limits[labels.DEVICE_TUN] = "1"
    if config.kvm:
        limits[labels.DEVICE_KVM] = "1"
    if domain.get("launchSecurity") is not None:
        limits[labels.DEVICE_SEV] = "1"
    if config.vhost_net and any(interface.get("model", "virtio") == "virtio" for interface in interfaces_of(spec)):
        limits[labels.DEVICE_VHOST_NET] = "1"
    devices = (spec.get("domain") or {}).get("devices") or {}
    if devices.get("autoattachVSOCK"):
        limits[labels.DEVICE_VHOST_VSOCK] = "1"
    assigned = Counter(device["deviceName"] for device in assigned_devices(spec) if device.get("deviceName"))
    limits.update({resource: str(count) for resource, count in assigned.items()})
    return {"requests": requests, "limits": limits}


def assigned_devices(spec: Mapping[str, Any]) -> list[Object]:
    """Return the node's devices that a VMI's *spec* wants: GPUs and host devices."""
    devices = (spec.get("domain") or {}).get("devices") or {}
    return [*(devices.get("gpus") or ()), *(devices.get("hostDevices") or ())]


def is_guaranteed(resources: Mapping[str, Any]) -> bool:
    """Tell whether a container with these resources gets the class of service Guaranteed."""
    requests, limits = resources["requests"], resources["limits"]
    return all(name in limits and requests.get(name, limits[name]) == limits[name] for name in ("cpu", "memory"))


def interfaces_of(spec: Mapping[str, Any]) -> list[Object]:
    """Return the network interfaces in a VMI's *spec*."""
    return ((spec.get("domain") or {}).get("devices") or {}).get("interfaces") or []
