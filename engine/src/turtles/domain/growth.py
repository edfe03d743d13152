# SPDX-License-Identifier: GPL-3.0-or-later
"""Processors and memory that a running guest is given, or gives back, because its VMI asks for it. Pure.

Names of conditions: KubeVirt user guide, "CPU hotplug" and "Memory hotplug".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from turtles.api import conditions, quantity
from turtles.api.kinds.vmi.headroom import memory_block
from turtles.domain import definition
from turtles.domain.live_domain import Live

VCPU_CHANGE, MEMORY_CHANGE = "HotVCPUChange", "HotMemoryChange"


@dataclass(frozen=True)
class Change:
    """A change of a running guest.

    :param condition: of the VMI while it goes on.
    :param amount: virtual processors, or bytes of the memory device.
    :param begun: it has been asked for; the guest takes its time with memory.
    """

    condition: str
    amount: int
    begun: bool = False


def changes(vmi: Mapping[str, Any], live: Live) -> list[Change]:
    """Return what is to change about a running guest, or is changing.

    :param live: what its domain is now.
    """
    spec = vmi["spec"]
    pending = []
    vcpus = definition.cpu_topology(spec).vcpus
    # Fewer than it has takes a restart: guests don't give processors back.
    if live.vcpus < vcpus <= live.most_vcpus:
        pending.append(Change(VCPU_CHANGE, vcpus))
    device = live.memory_device
    if device is None or conditions.has_condition(vmi, conditions.MIGRATION_REQUIRED):
        return pending  # its Pod is too small: the one that it is migrated to isn't
    wanted = definition.guest_memory(spec) - boot_memory(vmi)
    wanted = min(max(0, wanted), device.size) // memory_block(spec) * memory_block(spec)
    if not wanted == device.requested == device.current:
        pending.append(Change(MEMORY_CHANGE, wanted, begun=wanted == device.requested))
    return pending


def boot_memory(vmi: Mapping[str, Any]) -> int:
    """Return the bytes of memory that a guest was started with."""
    at_boot = ((vmi.get("status") or {}).get("memory") or {}).get("guestAtBoot")
    return quantity.to_int(at_boot) if at_boot else definition.guest_memory(vmi["spec"])
