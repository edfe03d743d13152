# SPDX-License-Identifier: GPL-3.0-or-later
"""Processors, memory and firmware."""

from __future__ import annotations

import uuid

from turtles.api import quantity
from turtles.api.configuration import ClusterConfiguration
from turtles.api.guests import firmware_uuid
from turtles.api.objects import Object


def default_cpu(domain: Object, config: ClusterConfiguration) -> None:
    """Set topology and model, and what is requested for the processors."""
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


def default_memory(domain: Object) -> None:
    """Set the guest's memory from what is requested for it."""
    resources = domain.get("resources") or {}
    asked = (resources.get("requests") or {}).get("memory") or (resources.get("limits") or {}).get("memory")
    memory = domain.get("memory") or {}
    if not memory.get("guest") and asked:
        domain["memory"] = {**memory, "guest": asked}


def default_firmware(vmi: Object, domain: Object) -> None:
    """Set the UUID that the guest sees."""
    firmware = domain.get("firmware") or {}
    if not firmware.get("uuid"):
        name = (vmi.get("metadata") or {}).get("name")
        # With generateName there is no name yet from which the UUID could be derived
        domain["firmware"] = {**firmware, "uuid": firmware_uuid(name) if name else str(uuid.uuid4())}
