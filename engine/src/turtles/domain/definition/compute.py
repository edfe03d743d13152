# SPDX-License-Identifier: GPL-3.0-or-later
"""Processors and memory."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from turtles.api import quantity
from turtles.api.guests import MAX_VCPUS
from turtles.api.kinds.vmi.headroom import memory_block, memory_obstacle
from turtles.domain.definition.elements import Host, add_text, devices_of

#: Alias of the device through which the guest is given more memory.
MEMORY_ALIAS = "ua-memory"
#: Bytes that devices of the node may need to lock besides the guest's memory.
_DEVICE_MEMORY = 2**30


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
    raise ValueError("no memory is requested; set spec.domain.memory.guest")


def most_sockets(spec: Mapping[str, Any]) -> int:
    """Return the sockets that a VMI's guest may be given while it runs.

    Processors of the node that belong to a guest alone are given to its Pod once and for all.
    """
    cpu = (spec.get("domain") or {}).get("cpu") or {}
    sockets = cpu_topology(spec).sockets
    return sockets if cpu.get("dedicatedCpuPlacement") else max(sockets, cpu.get("maxSockets") or 0)


def most_memory(spec: Mapping[str, Any]) -> int | None:
    """Return the bytes of memory that a VMI's guest may be given while it runs; None if it can't be given more."""
    most = ((spec.get("domain") or {}).get("memory") or {}).get("maxGuest")
    if most is None or memory_obstacle(spec, most):
        return None
    return quantity.to_int(most) if quantity.to_int(most) > guest_memory(spec) else None


def locked_memory(spec: Mapping[str, Any]) -> int:
    """Return the bytes that a VMI's QEMU must be allowed to lock; 0 if it needs none.

    Devices of the node that read and write the guest's memory need all of it, and room for their own (libvirt's
    documentation of `memtune`, "hard_limit": 1 GiB); `reservedOverhead.memLock` says so of others.
    """
    domain = spec.get("domain") or {}
    devices = devices_of(spec)
    reserved = (domain.get("memory") or {}).get("reservedOverhead") or {}
    functions = any(each.get("sriov") is not None for each in devices.get("interfaces") or ())
    if not (
        reserved.get("memLock") == "Required"
        or devices.get("gpus")
        or devices.get("hostDevices")
        or functions
        or domain.get("launchSecurity") is not None
    ):
        return 0
    memory = most_memory(spec) or guest_memory(spec)
    return memory + _DEVICE_MEMORY + quantity.to_int(reserved.get("addedOverhead") or 0)


def add_memory(root: Element, spec: Mapping[str, Any]) -> None:
    """Add the guest's memory, how far it can grow, and what backs it."""
    domain = spec.get("domain") or {}
    most = most_memory(spec)
    if most is not None:
        add_text(root, "maxMemory", kibibytes(most), unit="KiB", slots="1")
    add_text(root, "memory", kibibytes(guest_memory(spec)), unit="KiB")
    page = ((domain.get("memory") or {}).get("hugepages") or {}).get("pageSize")
    realtime = (domain.get("cpu") or {}).get("realtime") is not None
    if not page and not realtime:
        return
    backing = SubElement(root, "memoryBacking")
    if page:
        pages = SubElement(backing, "hugepages")
        SubElement(pages, "page", size=kibibytes(quantity.to_int(page)), unit="KiB")
        # Files in memory need no mounted file system of huge pages.
        SubElement(backing, "source", type="memfd")
    if realtime:
        SubElement(backing, "nosharepages")


def add_memory_device(devices: Element, spec: Mapping[str, Any]) -> None:
    """Add the device through which the guest is given more memory."""
    most = most_memory(spec)
    if most is None:
        return
    memory = SubElement(devices, "memory", model="virtio-mem")
    target = SubElement(memory, "target")
    add_text(target, "size", kibibytes(most - guest_memory(spec)), unit="KiB")
    add_text(target, "node", "0")
    add_text(target, "block", kibibytes(memory_block(spec)), unit="KiB")
    add_text(target, "requested", "0", unit="KiB")
    SubElement(memory, "alias", name=MEMORY_ALIAS)


def add_vcpus(root: Element, spec: Mapping[str, Any]) -> None:
    """Add the virtual processors: those that the guest has, and those that it may be given while it runs.

    :raises ValueError: there are too many.
    """
    topology = cpu_topology(spec)
    most = dataclasses.replace(topology, sockets=most_sockets(spec))
    if most.vcpus > MAX_VCPUS:
        raise ValueError(f"{most.vcpus} virtual processors exceed the maximum of {MAX_VCPUS}")
    if most == topology:
        add_text(root, "vcpu", str(topology.vcpus), placement="static")
        return
    add_text(root, "vcpu", str(most.vcpus), placement="static", current=str(topology.vcpus))
    vcpus = SubElement(root, "vcpus")
    fixed = topology.cores * topology.threads
    for number in range(most.vcpus):
        SubElement(
            vcpus,
            "vcpu",
            id=str(number),
            enabled="yes" if number < topology.vcpus else "no",
            hotpluggable="yes" if number >= fixed else "no",
        )


def add_placement(root: Element, spec: Mapping[str, Any], host: Host) -> None:
    """Bind the virtual processors to those of the node that the Pod was given for itself.

    :raises ValueError: the Pod was given too few.
    """
    cpu = (spec.get("domain") or {}).get("cpu") or {}
    if not cpu.get("dedicatedCpuPlacement"):
        return
    vcpus = cpu_topology(spec).vcpus
    wanted = vcpus + bool(cpu.get("isolateEmulatorThread"))
    if len(host.processors) < wanted:
        raise ValueError(
            f"cpu.dedicatedCpuPlacement needs {wanted} processors of the node, and the Pod has {len(host.processors)}; "
            "check that its kubelet has the CPU manager policy static"
        )
    processors = sorted(host.processors)
    tune = SubElement(root, "cputune")
    for number in range(vcpus):
        SubElement(tune, "vcpupin", vcpu=str(number), cpuset=str(processors[number]))
    if cpu.get("isolateEmulatorThread"):
        SubElement(tune, "emulatorpin", cpuset=str(processors[vcpus]))
    if _maps_numa(spec):
        nodes = sorted({host.numa.get(processor, 0) for processor in processors[:vcpus]})
        numatune = SubElement(root, "numatune")
        SubElement(numatune, "memory", mode="strict", nodeset=",".join(map(str, nodes)))
        for cell, node in enumerate(nodes):
            SubElement(numatune, "memnode", cellid=str(cell), mode="strict", nodeset=str(node))


def realtime_vcpus(spec: Mapping[str, Any]) -> frozenset[int]:
    """Return which virtual processors are scheduled in real time.

    libvirt in the Pod may not do that, so the domain doesn't say it.
    """
    cpu = (spec.get("domain") or {}).get("cpu") or {}
    if cpu.get("realtime") is None:
        return frozenset()
    everything = range(cpu_topology(spec).vcpus)
    mask = cpu["realtime"].get("mask") or ""
    included: set[int] = set()
    excluded: set[int] = set()
    for part in mask.split(","):
        first, _, last = part.strip().removeprefix("^").partition("-")
        if first:
            chosen = excluded if part.strip().startswith("^") else included
            chosen |= {number for number in everything if int(first) <= number <= int(last or first)}
    return frozenset((included or set(everything)) - excluded)


def add_cpu(root: Element, spec: Mapping[str, Any], host: Host) -> None:
    """Add the processor's model, topology and features."""
    topology = dataclasses.replace(cpu_topology(spec), sockets=most_sockets(spec))
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
    cells = list(_cells(spec, topology, host))
    if cells:
        numa = SubElement(cpu, "numa")
        for number, (vcpus, amount) in enumerate(cells):
            SubElement(
                numa,
                "cell",
                id=str(number),
                cpus=",".join(map(str, vcpus)) if len(cells) > 1 else f"0-{topology.vcpus - 1}",
                memory=kibibytes(amount),
                unit="KiB",
            )


def kibibytes(count: int) -> str:
    """Return a number of bytes in KiB, rounded up, as libvirt has it."""
    return str(math.ceil(count / 1024))


def _maps_numa(spec: Mapping[str, Any]) -> bool:
    numa = ((spec.get("domain") or {}).get("cpu") or {}).get("numa") or {}
    return numa.get("guestMappingPassthrough") is not None


def _cells(spec: Mapping[str, Any], topology: Topology, host: Host) -> Iterator[tuple[list[int], int]]:
    """Give the virtual processors and the bytes of memory of each NUMA node of the guest. Most need none."""
    memory = guest_memory(spec)
    if not _maps_numa(spec):
        if most_memory(spec) is not None:  # memory that is added belongs to a node
            yield list(range(topology.vcpus)), memory
        return
    by_node: dict[int, list[int]] = {}
    for number, processor in enumerate(sorted(host.processors)[: topology.vcpus]):
        by_node.setdefault(host.numa.get(processor, 0), []).append(number)
    page = quantity.to_int(spec["domain"]["memory"]["hugepages"]["pageSize"])
    share, rest = divmod(memory // page, len(by_node))
    for index, node in enumerate(sorted(by_node)):
        yield by_node[node], (share + (index < rest)) * page
