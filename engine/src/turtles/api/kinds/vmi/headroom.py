# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a machine may grow while it runs. Pure.

Rules and messages: KubeVirt user guide, "CPU hotplug" and "Memory hotplug".
"""

from __future__ import annotations

from turtles.api import quantity
from turtles.api.configuration import ClusterConfiguration
from turtles.api.objects import Object, get
from turtles.api.rules import Spec

#: Virtual processors that a machine's headroom may add up to.
_MAX_VCPUS = 512
#: Memory is added in blocks: of a transparent huge page, or of 1 GiB where that is the size of the huge pages.
BLOCK, GIGABYTE_BLOCK = 2 * 1024**2, 1024**3
#: Memory that a guest needs to be given more: its kernel's data and all PCI devices have to fit into it.
_MIN_GUEST = 1024**3
_ARCHITECTURES = ("amd64", "arm64")


def max_sockets(cpu: Spec, config: ClusterConfiguration) -> int:
    """Return the sockets that a machine may grow to; 0 if it says none."""
    sockets = cpu.get("sockets") or 0
    if config.max_cpu_sockets:
        return int(max(config.max_cpu_sockets, sockets))
    most = sockets * config.max_hotplug_ratio
    each = (cpu.get("cores") or 0) * (cpu.get("threads") or 0)
    if most * each > _MAX_VCPUS:
        most = max(_MAX_VCPUS // each, sockets)
    return int(most)


def max_guest(spec: Spec, config: ClusterConfiguration) -> str | None:
    """Return the memory that a machine may grow to; None if it can't grow."""
    guest = get(spec, "domain", "memory", "guest")
    most: str | None = None
    if config.max_guest is not None:
        most = quantity.canonical(config.max_guest)
    elif guest is not None:
        most = quantity.format_binary(quantity.to_int(guest) * config.max_hotplug_ratio)
    return None if memory_obstacle(spec, most) else most


def memory_block(spec: Spec) -> int:
    """Return the bytes by whose multiples memory can be added to a machine."""
    return GIGABYTE_BLOCK if get(spec, "domain", "memory", "hugepages", "pageSize") == "1Gi" else BLOCK


def memory_obstacle(spec: Spec, most: str | None) -> str:
    """Return what keeps a machine's memory from growing to `most` while it runs; nothing if it can grow."""
    domain: Object = spec["domain"]
    if get(domain, "cpu", "realtime") is not None:
        return "Memory hotplug is not compatible with realtime VMs"
    if get(domain, "cpu", "numa", "guestMappingPassthrough") is not None:
        return "Memory hotplug is not compatible with guest mapping passthrough"
    if domain.get("launchSecurity") is not None:
        return "Memory hotplug is not compatible with encrypted VMs"
    guest = get(domain, "memory", "guest")
    if guest is None:
        return "Guest memory must be configured when memory hotplug is enabled"
    if most is None:
        return "Max guest memory must be configured when memory hotplug is enabled"
    block = memory_block(spec)
    if quantity.parse(guest) > quantity.parse(most):
        return "Guest memory is greater than the configured maxGuest memory"
    for name, amount in (("Guest memory", guest), ("MaxGuest", most)):
        if quantity.to_int(amount) % block:
            return f"{name} must be {quantity.format_binary(block)} aligned"
    if spec.get("architecture") not in _ARCHITECTURES:
        return "Memory hotplug is only available for x86_64 and arm64 VMs"
    if quantity.to_int(guest) < _MIN_GUEST:
        return "Memory hotplug is only available for VMs with at least 1Gi of guest memory"
    return ""
