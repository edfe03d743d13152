# SPDX-License-Identifier: GPL-3.0-or-later
"""Processors and memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from turtles.api import quantity
from turtles.domain.definition.elements import Host, add_text


@dataclass(frozen=True)
class Topology:
    """Virtual CPUs as sockets of cores of threads."""

    sockets: int
    cores: int
    threads: int

    @property
    def vcpus(self) -> int:
        """Number of virtual CPUs."""
        return self.sockets * self.cores * self.threads


def cpu_topology(spec: Mapping[str, Any]) -> Topology:
    """Return the topology of a VMI's *spec*.

    Without any of cores, sockets and threads, limits.cpu (else requests.cpu), rounded up, says how many sockets.
    """
    domain = spec.get("domain") or {}
    cpu = domain.get("cpu") or {}
    if any(cpu.get(key) for key in ("cores", "sockets", "threads")):
        return Topology(int(cpu.get("sockets") or 1), int(cpu.get("cores") or 1), int(cpu.get("threads") or 1))
    resources = domain.get("resources") or {}
    amount = (resources.get("limits") or {}).get("cpu") or (resources.get("requests") or {}).get("cpu")
    return Topology(max(1, quantity.to_int(amount)) if amount else 1, 1, 1)


def guest_memory(spec: Mapping[str, Any]) -> int:
    """Return the guest's memory in bytes: memory.guest, else requests.memory, else limits.memory.

    :raises ValueError: if there is none of them, which admission should have refused.
    """
    domain = spec.get("domain") or {}
    resources = domain.get("resources") or {}
    for value in (
        (domain.get("memory") or {}).get("guest"),
        (resources.get("requests") or {}).get("memory"),
        (resources.get("limits") or {}).get("memory"),
    ):
        if value:
            return quantity.to_int(value)
    raise ValueError("no memory requested; set spec.domain.memory.guest")


def add_cpu(root: Element, spec: Mapping[str, Any], topology: Topology, host: Host) -> None:
    """Add the processor's model, topology and features."""
    wanted = (spec.get("domain") or {}).get("cpu") or {}
    model = wanted.get("model") or "host-model"
    if model in ("host-model", "host-passthrough"):
        # The host's own CPU means nothing to an emulator: each has features that the other lacks.
        cpu = SubElement(root, "cpu", mode=model if host.kvm else "maximum")
    else:
        # An emulator leaves out of a named model what it can't do; under KVM a guest gets all of it or doesn't start.
        cpu = SubElement(root, "cpu", mode="custom", match="exact", check="partial" if host.kvm else "none")
        add_text(cpu, "model", model, fallback="forbid" if host.kvm else "allow")
    SubElement(
        cpu,
        "topology",
        sockets=str(topology.sockets),
        cores=str(topology.cores),
        threads=str(topology.threads),
    )
    for feature in wanted.get("features") or ():
        SubElement(cpu, "feature", policy=feature.get("policy") or "require", name=feature["name"])
