# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.domain.statistics import DESCRIPTIONS, migration_samples, samples

VMI: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "ns", "labels": {"kubevirt.io/size": "small"}},
    "spec": {"domain": {"devices": {"interfaces": [{"name": "default"}]}}},
    "status": {"volumeStatus": [{"name": "root", "target": "vda"}, {"name": "seed"}]},
}
LABELS = {"node": "n", "namespace": "ns", "name": "web", "kubevirt_vmi_label_kubevirt_io_size": "small"}
STATISTICS: dict[str, Any] = {
    "cpu.time": 2_500_000_000,
    "balloon.maximum": 1024,
    "balloon.rss": 512,
    "balloon.major_fault": 7,
    "vcpu.maximum": 2,
    "vcpu.0.state": 1,
    "vcpu.0.time": 10**9,
    "vcpu.0.wait": 5 * 10**8,
    "vcpu.0.delay": 25 * 10**7,
    "net.count": 1,
    "net.0.name": "tap0",
    "net.0.rx.bytes": 11,
    "net.0.tx.drop": 2,
    "block.count": 2,
    "block.0.name": "vda",
    "block.0.rd.reqs": 3,
    "block.0.wr.times": 10**9,
    "block.1.name": "sda",
    "block.1.fl.reqs": 4,
}


def found(vmi: dict[str, Any] = VMI, **changed: Any) -> dict[tuple[str, str], float]:
    """Return values by metric and by the label that isn't the guest's."""
    values = samples(vmi, "n", {**STATISTICS, **changed})
    assert all(dict(each.labels).items() >= LABELS.items() for each in values)
    return {
        (
            each.name.removeprefix("kubevirt_vmi_"),
            "/".join(v for k, v in each.labels.items() if k not in LABELS),
        ): each.value
        for each in values
    }


def test_values_have_kubevirts_names_and_units() -> None:
    assert found() == {
        ("cpu_usage_seconds_total", ""): 2.5,
        ("memory_domain_bytes", ""): 2**20,
        ("memory_resident_bytes", ""): 2**19,
        ("memory_pgmajfault_total", ""): 7,
        ("vcpu_seconds_total", "0/running"): 1.0,
        ("vcpu_wait_seconds_total", "0"): 0.5,
        ("vcpu_delay_seconds_total", "0"): 0.25,
        ("network_receive_bytes_total", "default"): 11,
        ("network_transmit_packets_dropped_total", "default"): 2,
        ("storage_iops_read_total", "root"): 3,
        ("storage_write_times_seconds_total", "root"): 1.0,
        ("storage_flush_requests_total", "sda"): 4,
    }


def test_interfaces_that_nobody_knows_have_the_devices_name() -> None:
    assert ("network_receive_bytes_total", "tap0") in found({**VMI, "spec": {}})


@pytest.mark.parametrize(
    "changed",
    [
        {"block.count": 10**12},
        {"block.count": "2", "net.count": -1, "vcpu.maximum": None},
        {"vcpu.0.state": 99, "cpu.time": "much", "balloon.rss": True, "block.0.name": 7},
    ],
)
def test_what_makes_no_sense_is_left_out(changed: dict[str, Any]) -> None:
    assert found(**changed).items() <= found().items()


def test_descriptions() -> None:
    names = [each.name for each in DESCRIPTIONS]
    assert len(names) == len(set(names)) == 33
    assert all(each.name.endswith("_total") == (each.kind == "counter") for each in DESCRIPTIONS)
    assert all(each.name in names for each in samples(VMI, "n", STATISTICS))


def test_a_guest_on_its_way() -> None:
    job = {
        "data_total": 400,
        "data_processed": 300,
        "data_remaining": 100,
        "memory_bps": 50,
        "memory_dirty_rate": 3,
        "disk_bps": "wrong",
    }
    found = {each.name.removeprefix("kubevirt_vmi_migration_"): each for each in migration_samples(VMI, "n", job)}
    assert {name: each.value for name, each in found.items()} == {
        "data_bytes_total": 400,
        "data_processed_bytes": 300,
        "data_remaining_bytes": 100,
        "memory_transfer_rate_bytes": 50,
        "dirty_memory_rate_bytes": 3 * 4096,
    }
    assert all(dict(each.labels) == LABELS for each in found.values())
    (rate,) = migration_samples(VMI, "n", {"memory_dirty_rate": 3, "memory_page_size": 16})
    assert rate.value == 48
