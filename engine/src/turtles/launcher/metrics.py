# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk with metrics of the node and of the machine, which guests read with vm-dump-metrics (vhostmd).

Format: vhostmd's "metrics disk", a header in network byte order and an XML document. While the header says that the
disk is busy, or if the checksum is another one, guests read again.
"""

import logging
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from turtles.domain.definition import cpu_topology, guest_memory

log = logging.getLogger(__name__)

#: How often the metrics are renewed, as vhostmd does by default.
INTERVAL_SECONDS = 5.0
DISK_SIZE = 256 * 1024
_HEADER = struct.Struct(">4sIII")
_SIGNATURE = b"mvbd"
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class MetricsDisk:
    """The disk of one machine.

    :param path: of its file. :param vmi: whose metrics are on it.
    """

    def __init__(self, path: Path, vmi: Mapping[str, Any]) -> None:
        self._path, self._vmi = path, vmi

    def create(self) -> None:
        """Make the file, with the first metrics."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("wb") as file:
            file.truncate(DISK_SIZE)
        self.write()

    def renew(self) -> None:
        """Renew the metrics; the guest keeps the old ones where that isn't possible."""
        try:
            self.write()
        except OSError as error:
            log.warning("the disk with metrics can't be written: %s", error.strerror)

    def write(self) -> None:
        """Renew the metrics.

        :raises OSError: the file can't be written.
        """
        body = document(self._vmi, time.time())
        with self._path.open("r+b", buffering=0) as file:
            file.write(_HEADER.pack(_SIGNATURE, 1, 0, 0))
            file.write(body)
            file.seek(0)
            file.write(_HEADER.pack(_SIGNATURE, 0, sum(body) & 0xFFFFFFFF, len(body)))


def document(
    vmi: Mapping[str, Any], now: float, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> bytes:
    """Return the metrics as an XML document. What can't be found out is left out.

    :param now: seconds since 1970. :param proc: the kernel's files. :param cgroup: the container's.
    """
    root = Element("metrics")
    spec, memory, events = vmi["spec"], _numbers(proc / "meminfo"), _numbers(proc / "vmstat")
    _add(root, "host", "string", "HostName", (vmi.get("status") or {}).get("nodeName"))
    _add(root, "host", "string", "HostSystemInfo", "linux")
    _add(root, "host", "string", "VirtualizationVendor", "kubevirt.io")
    _add(root, "host", "uint32", "NumberOfPhysicalCPUs", os.cpu_count())
    _add(root, "host", "real64", "TotalCPUTime", _busy_seconds(proc / "stat"), "s")
    _add(root, "host", "uint64", "FreePhysicalMemory", memory.get("MemFree:"), "KiB")
    _add(root, "host", "uint64", "FreeVirtualMemory", memory.get("MemAvailable:"), "KiB")
    _add(root, "host", "uint64", "MemoryAllocatedToVirtualServers", _difference(memory, "MemTotal:", "MemFree:"), "KiB")
    _add(root, "host", "uint64", "UsedVirtualMemory", _difference(memory, "MemTotal:", "MemAvailable:"), "KiB")
    for name, event in (("PagedInMemory", "pswpin"), ("PagedOutMemory", "pswpout")):
        pages = events.get(event)
        _add(root, "host", "uint64", name, None if pages is None else pages * _PAGE_KIB, "KiB")
    _add(root, "host", "int64", "Time", int(now), "s")
    _add(root, "vm", "uint64", "ResourceMemoryLimit", guest_memory(spec) // 1024, "KiB")
    _add(root, "vm", "uint64", "ResourceProcessorLimit", cpu_topology(spec).vcpus)
    used = _numbers(cgroup / "cpu.stat").get("usage_usec")
    _add(root, "vm", "real64", "TotalCPUTime", None if used is None else round(used / 10**6, 3), "s")
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True))


def _add(root: Element, context: str, kind: str, name: str, value: object, unit: str = "") -> None:
    if value is None:
        return
    metric = SubElement(root, "metric", {"type": kind, "context": context, **({"unit": unit} if unit else {})})
    SubElement(metric, "name").text = name
    SubElement(metric, "value").text = str(value)


def _difference(values: Mapping[str, int], whole: str, part: str) -> int | None:
    return values[whole] - values[part] if whole in values and part in values else None


def _busy_seconds(path: Path) -> float | None:
    """Return the time all processors were busy: all but what they were idle or waiting."""
    try:
        times = [int(word) for word in path.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = sum(times[3:5])
    return float((sum(times) - idle) / os.sysconf("SC_CLK_TCK"))


def _numbers(path: Path) -> dict[str, int]:
    """Read lines of a name and a number; empty if there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    words = (line.split() for line in lines)
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}
