# SPDX-License-Identifier: GPL-3.0-or-later
"""Processors, memory and what the Pod requests for them."""

from __future__ import annotations

from turtles.api import quantity
from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.headroom import max_guest, max_sockets
from turtles.api.objects import Object, get
from turtles.api.rules import Spec

_TOPOLOGY = ("cores", "sockets", "threads")
#: CPU models of machines that don't say theirs, where the installation's choice means nothing.
_MODELS = {"arm64": "host-passthrough"}


def default_requests(domain: Object, config: ClusterConfiguration) -> None:
    """Set what is requested for the processors: what the machine may use, else what the installation says."""
    resources = domain["resources"] = domain.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    if _amount(limits, "cpu") and not _amount(requests, "cpu"):
        resources["requests"] = {**requests, "cpu": quantity.canonical(limits["cpu"])}
    elif config.cpu_request and requests.get("cpu") is None and not get(domain, "cpu", "dedicatedCpuPlacement"):
        resources["requests"] = {**requests, "cpu": quantity.canonical(config.cpu_request)}


def default_guest_memory(domain: Object) -> None:
    """Set the guest's memory from what is requested for it, or else to one huge page."""
    memory = domain["memory"] = domain.get("memory") or {}
    if memory.get("guest") is not None:
        return
    for kind in ("requests", "limits"):
        amounts = domain["resources"].get(kind) or {}
        if _amount(amounts, "memory"):
            memory["guest"] = quantity.canonical(amounts["memory"])
            return
    page = get(memory, "hugepages", "pageSize")
    if page and is_quantity(page):
        memory["guest"] = quantity.canonical(page)


def default_topology(domain: Object) -> None:
    """Set sockets from what is requested. A machine that says any part of its topology says all of it."""
    cpu = domain["cpu"] = domain.get("cpu") or {}
    if any(cpu.get(key) for key in _TOPOLOGY):
        return
    amounts = ((domain["resources"].get(kind) or {}).get("cpu") for kind in ("limits", "requests"))
    asked = next((amount for amount in amounts if amount is not None), 1)
    cpu.update(cores=1, threads=1)
    if (sockets := quantity.to_int(asked)) > 0:
        cpu["sockets"] = sockets


def default_model(spec: Object, config: ClusterConfiguration) -> None:
    """Set the CPU's model."""
    cpu = spec["domain"]["cpu"]
    if not cpu.get("model"):
        cpu["model"] = _MODELS.get(spec["architecture"], config.cpu_model)


def default_headroom(spec: Object, config: ClusterConfiguration) -> None:
    """Set how far processors and memory may grow while the machine runs."""
    if not config.live_update or spec["architecture"] == "arm64":
        return
    cpu, memory = spec["domain"]["cpu"], spec["domain"]["memory"]
    if not cpu.get("maxSockets") and (sockets := max_sockets(cpu, config)):
        cpu["maxSockets"] = sockets
    if memory.get("maxGuest") is None and (most := max_guest(spec, config)) is not None:
        memory["maxGuest"] = most


def is_quantity(text: Spec | str) -> bool:
    """Say whether a text is a quantity."""
    try:
        quantity.parse(text)
    except quantity.QuantityError:
        return False
    return True


def _amount(amounts: Object, name: str) -> bool:
    return amounts.get(name) is not None and quantity.parse(amounts[name]) != 0
