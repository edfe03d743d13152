# SPDX-License-Identifier: GPL-3.0-or-later
"""Threads that serve disks, beside QEMU's own one (KubeVirt user guide, "Disks and volumes", IOThreads)."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any
from xml.etree.ElementTree import Element

from turtles.domain.definition.compute import cpu_topology
from turtles.domain.definition.elements import add_text, devices_of

_SHARED, _AUTO, _POOL = "shared", "auto", "supplementalPool"
#: Threads that the policy auto makes, at most, for each virtual CPU.
_THREADS_PER_CPU = 2


def of_disks(spec: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers of the threads that serve disks, by the disks' names. QEMU's own thread serves all others.

    A disk with a thread of its own has it for itself; what is left shares what the policy makes. Only disks on the bus
    virtio can have one.
    """
    policy = _policy(spec)
    if policy is None:
        return {}
    disks = [disk for disk in devices_of(spec).get("disks") or () if (disk.get("disk") or {}).get("bus") == "virtio"]
    own = [disk["name"] for disk in disks if disk.get("dedicatedIOThread")]
    others = [disk["name"] for disk in disks if not disk.get("dedicatedIOThread")]
    shared = _shared_threads(policy, spec, len(others), len(own))
    threads = dict(zip(others, cycle(range(1, shared + 1)), strict=False))
    return threads | {name: shared + index for index, name in enumerate(own, 1)}


def add_iothreads(root: Element, spec: Mapping[str, Any]) -> None:
    """Add how many threads there are."""
    numbers = list(of_disks(spec).values())
    policy = _policy(spec)
    if policy == _POOL:
        numbers.append(_pool_size(spec))
    if numbers:
        add_text(root, "iothreads", str(max(numbers)))


def _policy(spec: Mapping[str, Any]) -> str | None:
    domain = spec.get("domain") or {}
    if domain.get("ioThreadsPolicy"):
        return str(domain["ioThreadsPolicy"])
    dedicated = any(disk.get("dedicatedIOThread") for disk in devices_of(spec).get("disks") or ())
    return _SHARED if dedicated else None


def _pool_size(spec: Mapping[str, Any]) -> int:
    threads = (spec.get("domain") or {}).get("ioThreads") or {}
    return int(threads.get("supplementalPoolThreadCount") or 1)


def _shared_threads(policy: str, spec: Mapping[str, Any], others: int, own: int) -> int:
    """Return how many threads the disks share that have none of their own."""
    if not others:
        return 0
    if policy == _POOL:
        return _pool_size(spec)
    if policy == _AUTO:
        limit = _THREADS_PER_CPU * cpu_topology(spec).vcpus - own
        return max(1, min(others, limit))
    return 1
