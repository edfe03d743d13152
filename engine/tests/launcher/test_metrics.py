# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk with metrics, read as vm-dump-metrics does."""

from __future__ import annotations

import struct
from pathlib import Path
from xml.etree import ElementTree

from turtles.launcher import metrics

from .conftest import make_vmi

MEMINFO = "MemTotal: 4000 kB\nMemFree: 1000 kB\nMemAvailable: 3000 kB\n"


def machine() -> dict:
    vmi = make_vmi()
    vmi["spec"]["domain"] = {"memory": {"guest": "64Mi"}, "cpu": {"cores": 2}}
    vmi["status"] = {"nodeName": "node-1"}
    return vmi


def read(disk: Path) -> ElementTree.Element:
    data = disk.read_bytes()
    signature, busy, checksum, length = struct.unpack_from(">4sIII", data)
    body = data[16 : 16 + length]
    assert (signature, busy, sum(body)) == (b"mvbd", 0, checksum)
    return ElementTree.fromstring(body)


def test_disk(tmp_path):
    disk = metrics.MetricsDisk(tmp_path / "metrics/more.img", machine())
    disk.create()
    path = tmp_path / "metrics/more.img"
    assert path.stat().st_size == metrics.DISK_SIZE
    assert read(path).tag == "metrics"
    path.write_bytes(bytes(metrics.DISK_SIZE))
    disk.renew()
    assert read(path).findtext("metric/name") == "HostName"
    path.unlink()
    disk.renew()  # the machine runs on


def test_document(tmp_path):
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "vmstat").write_text("pswpin 2\npswpout 3\n")
    (tmp_path / "stat").write_text("cpu 100 0 100 500 100 0 0 0 0 0\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\n")
    root = ElementTree.fromstring(metrics.document(machine(), 1700000000.9, tmp_path, tmp_path))
    found = {
        (metric.get("context"), metric.findtext("name")): (metric.findtext("value"), metric.get("unit"))
        for metric in root
    }
    expected = {
        ("host", "HostName"): ("node-1", None),
        ("host", "TotalCPUTime"): ("2.0", "s"),
        ("host", "FreePhysicalMemory"): ("1000", "KiB"),
        ("host", "UsedVirtualMemory"): ("1000", "KiB"),
        ("host", "PagedInMemory"): ("8", "KiB"),
        ("host", "Time"): ("1700000000", "s"),
        ("vm", "ResourceMemoryLimit"): ("65536", "KiB"),
        ("vm", "ResourceProcessorLimit"): ("2", None),
        ("vm", "TotalCPUTime"): ("1.5", "s"),
    }
    assert {key: found[key] for key in expected} == expected


def test_what_is_unknown_is_left_out(tmp_path):
    root = ElementTree.fromstring(metrics.document(machine(), 0, tmp_path, tmp_path))
    assert "FreePhysicalMemory" not in [metric.findtext("name") for metric in root]
