# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of a guest: libvirt's statistics of its domain under KubeVirt's names. Pure.

Sources: libvirt, virConnectGetAllDomainStats; KubeVirt, docs/observability/metrics.md. libvirt has nanoseconds and KiB,
metrics seconds and bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from turtles.api.objects import get
from turtles.metrics import COUNTER, GAUGE, Description, Sample

_NANOSECONDS, _KIB = 1e-9, 1024
#: Bytes of a page, where libvirt counts these and doesn't say how large they are.
PAGE_BYTES = 4096

_CPU = {
    "cpu.time": ("cpu_usage_seconds_total", "Total CPU time spent in all modes.", _NANOSECONDS),
    "cpu.user": ("cpu_user_usage_seconds_total", "Total CPU time spent in user mode.", _NANOSECONDS),
    "cpu.system": ("cpu_system_usage_seconds_total", "Total CPU time spent in system mode.", _NANOSECONDS),
}
_MEMORY = {
    "balloon.maximum": ("memory_domain_bytes", "Memory allocated to the domain.", _KIB),
    "balloon.current": ("memory_actual_balloon_bytes", "Current balloon size.", _KIB),
    "balloon.rss": ("memory_resident_bytes", "Resident set size of the process running the domain.", _KIB),
    "balloon.available": ("memory_available_bytes", "Usable memory as the guest sees it.", _KIB),
    "balloon.unused": ("memory_unused_bytes", "Memory left completely unused by the guest.", _KIB),
    "balloon.usable": ("memory_usable_bytes", "Memory that can be reclaimed without swapping.", _KIB),
    "balloon.disk_caches": ("memory_cached_bytes", "Memory used to cache I/O.", _KIB),
    "balloon.swap_in": ("memory_swap_in_traffic_bytes", "Data read from the guest's swap space.", _KIB),
    "balloon.swap_out": ("memory_swap_out_traffic_bytes", "Memory written to the guest's swap space.", _KIB),
    "balloon.major_fault": ("memory_pgmajfault_total", "Page faults that required disk I/O.", 1),
    "balloon.minor_fault": ("memory_pgminfault_total", "Page faults that required no disk I/O.", 1),
}
_BLOCK = {
    "rd.reqs": ("storage_iops_read_total", "Number of read operations.", 1),
    "wr.reqs": ("storage_iops_write_total", "Number of write operations.", 1),
    "rd.bytes": ("storage_read_traffic_bytes_total", "Number of bytes read.", 1),
    "wr.bytes": ("storage_write_traffic_bytes_total", "Number of bytes written.", 1),
    "rd.times": ("storage_read_times_seconds_total", "Time spent on reading.", _NANOSECONDS),
    "wr.times": ("storage_write_times_seconds_total", "Time spent on writing.", _NANOSECONDS),
    "fl.reqs": ("storage_flush_requests_total", "Number of flushes.", 1),
    "fl.times": ("storage_flush_times_seconds_total", "Time spent on flushing.", _NANOSECONDS),
}
_NET = {
    f"{short}.{part}": (f"network_{word}_{name}_total", f"{doc} {word}d.".replace("transmitd", "transmitted"), 1)
    for short, word in (("rx", "receive"), ("tx", "transmit"))
    for part, name, doc in (
        ("bytes", "bytes", "Bytes"),
        ("pkts", "packets", "Packets"),
        ("errs", "errors", "Packets with errors"),
        ("drop", "packets_dropped", "Packets dropped instead of"),
    )
}
_MIGRATION_DATA = "kubevirt_vmi_migration_data"
_MIGRATION = {
    "data_total": (f"{_MIGRATION_DATA}_bytes_total", "The total guest data to be migrated."),
    "data_processed": (f"{_MIGRATION_DATA}_processed_bytes", "The guest data migrated so far."),
    "data_remaining": (f"{_MIGRATION_DATA}_remaining_bytes", "The guest data that remains to be migrated."),
    "memory_bps": ("kubevirt_vmi_migration_memory_transfer_rate_bytes", "The rate at which memory is transferred."),
}
_DIRTY_RATE = "kubevirt_vmi_migration_dirty_memory_rate_bytes"
_VCPU_SECONDS, _VCPU_WAIT, _VCPU_DELAY = (
    f"kubevirt_vmi_vcpu_{name}_total" for name in ("seconds", "wait_seconds", "delay_seconds")
)
#: virVcpuState.
_VCPU_STATES = ("offline", "running", "blocked")
_UNSUITABLE = re.compile(r"[^a-zA-Z0-9_]")


def _described(table: Mapping[str, tuple[str, str, float]]) -> Iterator[Description]:
    for name, doc, _ in table.values():
        yield Description(f"kubevirt_vmi_{name}", doc, COUNTER if name.endswith("_total") else GAUGE)


DESCRIPTIONS = (
    *(each for table in (_CPU, _MEMORY, _BLOCK, _NET) for each in _described(table)),
    Description(_VCPU_SECONDS, "Time a virtual CPU spent in a state: offline, running, blocked.", COUNTER),
    Description(_VCPU_WAIT, "Time a virtual CPU waited for I/O.", COUNTER),
    Description(_VCPU_DELAY, "Time a virtual CPU waited in the queue instead of running.", COUNTER),
)

MIGRATION_DESCRIPTIONS = (
    *(Description(name, doc, COUNTER if name.endswith("_total") else GAUGE) for name, doc in _MIGRATION.values()),
    Description(_DIRTY_RATE, "The rate at which the guest changes its memory."),
)


def samples(vmi: Mapping[str, Any], node: str, statistics: Mapping[str, Any]) -> list[Sample]:
    """Return a guest's samples.

    :param statistics: of its domain, as libvirt has them. What is missing or isn't a number is left out.
    """
    labels = labels_of(vmi, node)
    return [
        *_samples(_CPU, statistics, "", labels),
        *_samples(_MEMORY, statistics, "", labels),
        *_vcpus(statistics, labels),
        *_devices("block", "drive", _BLOCK, statistics, labels, _disks(vmi)),
        *_devices("net", "interface", _NET, statistics, labels, _interfaces(vmi, statistics)),
    ]


def migration_samples(vmi: Mapping[str, Any], node: str, job: Mapping[str, Any]) -> Iterator[Sample]:
    """Yield the samples of a guest that is on its way to another node.

    :param job: libvirt's statistics of the job. What is missing or isn't a number is left out.
    """
    labels = labels_of(vmi, node)
    for key, (name, _) in _MIGRATION.items():
        value = _number(job.get(key))
        if value is not None:
            yield Sample(name, labels, value)
    pages = _number(job.get("memory_dirty_rate"))
    if pages is not None:
        yield Sample(_DIRTY_RATE, labels, pages * (_number(job.get("memory_page_size")) or PAGE_BYTES))


def labels_of(vmi: Mapping[str, Any], node: str) -> dict[str, str]:
    """Return the labels of a guest's samples: where and what it is, and the labels of the VMI."""
    metadata = vmi["metadata"]
    own = {
        f"kubevirt_vmi_label_{_UNSUITABLE.sub('_', key)}": str(value)
        for key, value in sorted((metadata.get("labels") or {}).items())
    }
    return {"node": node, "namespace": metadata["namespace"], "name": metadata["name"], **own}


def _samples(
    table: Mapping[str, tuple[str, str, float]], statistics: Mapping[str, Any], prefix: str, labels: dict[str, str]
) -> Iterator[Sample]:
    for key, (name, _, unit) in table.items():
        value = _number(statistics.get(prefix + key))
        if value is not None:
            yield Sample(f"kubevirt_vmi_{name}", labels, value * unit)


def _devices(
    kind: str,
    label: str,
    table: Mapping[str, tuple[str, str, float]],
    statistics: Mapping[str, Any],
    labels: dict[str, str],
    names: Mapping[str, str],
) -> Iterator[Sample]:
    for number in range(_count(statistics, f"{kind}.count")):
        prefix = f"{kind}.{number}."
        name = statistics.get(prefix + "name")
        if isinstance(name, str):
            yield from _samples(table, statistics, prefix, {**labels, label: names.get(name, name)})


def _disks(vmi: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of disks in the spec by those of devices, such as vda."""
    volumes = get(dict(vmi), "status", "volumeStatus") or ()
    return {volume["target"]: volume["name"] for volume in volumes if volume.get("target")}


def _interfaces(vmi: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of interfaces in the spec by those of devices, which are in the same order."""
    names = [each["name"] for each in get(dict(vmi), "spec", "domain", "devices", "interfaces") or ()]
    if len(names) != _count(statistics, "net.count"):
        return {}
    return {str(statistics.get(f"net.{number}.name")): name for number, name in enumerate(names)}


def _vcpus(statistics: Mapping[str, Any], labels: dict[str, str]) -> Iterator[Sample]:
    for number in range(_count(statistics, "vcpu.maximum")):
        prefix = f"vcpu.{number}."
        state = _number(statistics.get(prefix + "state"))
        of_vcpu = {**labels, "id": str(number)}
        time = _number(statistics.get(prefix + "time"))
        if state is not None and 0 <= state < len(_VCPU_STATES) and time is not None:
            labelled = {**of_vcpu, "state": _VCPU_STATES[int(state)]}
            yield Sample(_VCPU_SECONDS, labelled, time * _NANOSECONDS)
        for key, name in (("wait", _VCPU_WAIT), ("delay", _VCPU_DELAY)):
            value = _number(statistics.get(prefix + key))
            if value is not None:
                yield Sample(name, of_vcpu, value * _NANOSECONDS)


def _count(statistics: Mapping[str, Any], key: str) -> int:
    count = _number(statistics.get(key))
    # It comes from the Pod
    return 0 if count is None else max(0, min(int(count), 512))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
