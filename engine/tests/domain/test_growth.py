# SPDX-License-Identifier: GPL-3.0-or-later
"""Processors and memory that running guests are given."""

import copy
from typing import Any

import pytest

from turtles.domain import growth, report
from turtles.domain.device_requests import memory_request
from turtles.domain.growth import Change
from turtles.domain.lifecycle import State
from turtles.domain.live_domain import Live, MemoryDevice, read_live
from turtles.domain.report import Observation
from turtles.domain.xml import AnswerError

MIB, GIB = 1 << 20, 1 << 30
VMI: dict[str, Any] = {
    "metadata": {"name": "testvm", "namespace": "default", "uid": "u"},
    "spec": {
        "architecture": "amd64",
        "domain": {
            "cpu": {"sockets": 2, "cores": 2, "threads": 1, "maxSockets": 4},
            "memory": {"guest": "2Gi", "maxGuest": "4Gi"},
            "devices": {},
        },
    },
    "status": {"phase": "Running", "memory": {"guestAtBoot": "1Gi"}},
}
NOW = "2026-01-02T03:04:05Z"
XML = """<domain type='qemu'><memory unit='KiB'>4194304</memory><currentMemory unit='KiB'>4194304</currentMemory>
<vcpu placement='static' current='2'>8</vcpu><os><type machine='pc-q35-7.2'>hvm</type></os>
<devices><memory model='virtio-mem'><target><size unit='KiB'>3145728</size><node>0</node><block unit='KiB'>2048</block>
<requested unit='KiB'>1048576</requested><current unit='KiB'>524288</current></target><alias name='{alias}'/></memory>
</devices></domain>"""


def live(vcpus: int = 4, device: MemoryDevice | None = None) -> Live:
    return Live("q35", True, False, GIB, {}, vcpus, 8, device)


@pytest.mark.parametrize(
    ("seen", "changes"),
    [
        (live(), []),
        (live(2), [Change("HotVCPUChange", 4)]),
        # Guests don't give processors back
        (live(6), []),
        # More than the domain can have
        (Live("q35", True, False, GIB, {}, 2, 2), []),
        (live(device=MemoryDevice(3 * GIB, 0, 0)), [Change("HotMemoryChange", GIB)]),
        (live(device=MemoryDevice(3 * GIB, GIB, 0)), [Change("HotMemoryChange", GIB, begun=True)]),
        (live(device=MemoryDevice(3 * GIB, GIB, GIB)), []),
        (live(device=MemoryDevice(3 * GIB, 2 * GIB, 2 * GIB)), [Change("HotMemoryChange", GIB)]),
        # No more than there is
        (live(device=MemoryDevice(512 * MIB, 0, 0)), [Change("HotMemoryChange", 512 * MIB)]),
        (live(2, MemoryDevice(3 * GIB, 0, 0)), [Change("HotVCPUChange", 4), Change("HotMemoryChange", GIB)]),
    ],
)
def test_changes(seen: Live, changes: list[Change]) -> None:
    assert growth.changes(VMI, seen) == changes


def test_memory_waits_for_a_larger_pod() -> None:
    vmi = copy.deepcopy(VMI)
    vmi["status"]["conditions"] = [{"type": "MigrationRequired", "status": "True"}]
    seen = live(2, MemoryDevice(3 * GIB, 0, 0))
    assert growth.changes(vmi, seen) == [Change("HotVCPUChange", 4)]


def test_a_domain_that_grows() -> None:
    found = read_live(XML.format(alias="ua-memory"))
    assert (found.vcpus, found.most_vcpus) == (2, 8)
    assert found.memory_device == MemoryDevice(3 * GIB, GIB, GIB // 2)
    assert found.memory == GIB + GIB // 2
    asked = memory_request(XML.format(alias="ua-memory"), 2 * GIB)
    assert '<requested unit="KiB">2097152</requested>' in asked
    assert "<current" in asked
    other = read_live(XML.format(alias="ua-other"))
    assert other.memory_device is None
    assert other.memory == 4 * GIB
    with pytest.raises(AnswerError):
        memory_request(XML.format(alias="ua-other"), GIB)


@pytest.mark.parametrize(
    ("seen", "refused", "expected"),
    [
        (live(), {}, {}),
        (live(2), {}, {"HotVCPUChange": ("True", None)}),
        (live(2), {"HotVCPUChange": "no"}, {"HotVCPUChange": ("False", "ChangeFailed")}),
        (live(device=MemoryDevice(3 * GIB, GIB, 0)), {}, {"HotMemoryChange": ("True", None)}),
    ],
)
def test_conditions(seen: Live, refused: dict[str, str], expected: dict[str, tuple[str, str | None]]) -> None:
    vmi = copy.deepcopy(VMI)
    observation = Observation(State.RUNNING, 1, seen, (), refused)
    for _ in range(2):
        vmi["status"] = report.observed(vmi, observation, None, NOW)
    found = {
        each["type"]: (each["status"], each.get("reason"))
        for each in vmi["status"]["conditions"]
        if each["type"].startswith("Hot")
    }
    assert found == expected
    assert vmi["status"]["currentCPUTopology"]["sockets"] == seen.vcpus // 2
    vmi["status"] = report.observed(vmi, Observation(State.RUNNING, 1, live(), ()), None, NOW)
    assert not [each for each in vmi["status"]["conditions"] if each["type"].startswith("Hot")]
