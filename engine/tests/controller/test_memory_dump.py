# SPDX-License-Identifier: GPL-3.0-or-later
"""From the request for a memory dump to its end."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.controller.vm import live_update
from turtles.controller.vm.memory_dump import Step, step
from turtles.controller.vmi.template import make_vmi

NOW = "2026-01-02T03:04:05Z"
ROOT = {"name": "root", "containerDisk": {"image": "demo"}}
DUMP = {"name": "dump", "memoryDump": {"claimName": "dump", "hotpluggable": True}}
STOPPED = {"phase": "Failed", "message": "the machine stopped before its memory was dumped", "endTimestamp": NOW}


def vm(phase: str, *volumes: dict[str, Any], **request: Any) -> dict[str, Any]:
    status = {"memoryDumpRequest": {"claimName": "dump", "phase": phase, **request}} if phase else {}
    metadata = {"name": "web", "namespace": "ns", "uid": "u"}
    template = {"spec": {"volumes": [ROOT, *volumes]}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": metadata,
        "spec": {"template": template},
        "status": status,
    }


def vmi(*volumes: dict[str, Any], phase: str = "Running", entry: dict[str, Any] | None = None) -> dict[str, Any]:
    entries = [{"name": "dump", **entry}] if entry is not None else []
    return {"metadata": {}, "spec": {"volumes": [ROOT, *volumes]}, "status": {"phase": phase, "volumeStatus": entries}}


def request(phase: str, **more: Any) -> dict[str, Any]:
    return {"claimName": "dump", "phase": phase, **more}


DONE = {"startTimestamp": "a", "endTimestamp": "b", "targetFileName": "f"}


@pytest.mark.parametrize(
    ("machine", "instance", "expected"),
    [
        (vm(""), vmi(), None),
        (vm("Completed", DUMP), vmi(), None),
        (vm("Associating"), vmi(), Step(request("InProgress"), [ROOT, DUMP], [ROOT, DUMP])),
        (vm("Associating", DUMP), vmi(), Step(request("InProgress"), None, [ROOT, DUMP])),
        # The last one's claim is still on its way out
        (vm("Associating", DUMP), vmi(entry={}), None),
        (vm("Associating"), None, Step({"claimName": "dump", **STOPPED})),
        (vm("InProgress", DUMP), vmi(DUMP, entry={"phase": "MountedToPod"}), None),
        (
            vm("InProgress", DUMP),
            vmi(DUMP, entry={"phase": "MemoryDumpInProgress", "memoryDumpVolume": {"startTimestamp": "a"}}),
            Step(request("InProgress", startTimestamp="a")),
        ),
        (
            vm("InProgress", DUMP),
            vmi(DUMP, entry={"phase": "MemoryDumpCompleted", "memoryDumpVolume": DONE}),
            Step(request("Unmounting", startTimestamp="a", endTimestamp="b", fileName="f")),
        ),
        (
            vm("InProgress", DUMP),
            vmi(DUMP, entry={"phase": "MemoryDumpFailed", "message": "no room", "memoryDumpVolume": DONE}),
            Step(request("Failed", startTimestamp="a", endTimestamp="b", message="no room")),
        ),
        (vm("InProgress", DUMP), vmi(DUMP, phase="Failed"), Step({"claimName": "dump", **STOPPED})),
        (
            vm("Unmounting", DUMP, fileName="f"),
            vmi(DUMP, entry={}),
            Step(request("Unmounting", fileName="f"), None, [ROOT], "f"),
        ),
        (
            vm("Unmounting", DUMP, fileName="f"),
            vmi(entry={}),
            Step(request("Unmounting", fileName="f"), annotation="f"),
        ),
        (vm("Unmounting", DUMP, fileName="f"), vmi(), Step(request("Completed", fileName="f"), annotation="f")),
        (vm("Unmounting", DUMP, fileName="f"), None, Step(request("Completed", fileName="f"), annotation="f")),
        (vm("Failed", DUMP), vmi(DUMP), Step(request("Failed"), None, [ROOT], "Memory dump failed")),
        (vm("Dissociating", DUMP), vmi(DUMP, entry={}), Step(request("Dissociating"), [ROOT], [ROOT])),
        (vm("Dissociating"), vmi(entry={}), Step(request("Dissociating"))),
        (vm("Dissociating"), vmi(), Step(None)),
    ],
)
def test_step(machine, instance, expected):
    assert step(machine, instance, NOW) == expected


@pytest.mark.parametrize("volumes", [True, False])
def test_the_template_keeps_the_claim_and_nobody_else_follows(volumes):
    machine = vm("Completed", DUMP)
    assert make_vmi(machine, machine["spec"]["template"], "web")["spec"]["volumes"] == [ROOT]
    bare, with_dump = {"volumes": [ROOT]}, {"volumes": [ROOT, DUMP]}
    bare_fields, fields = (live_update.without_live_fields(each, volumes=volumes) for each in (bare, with_dump))
    assert bare_fields == fields
    domain = {"domain": {"devices": {"disks": [{"name": "root", "disk": {}}]}}}
    running = {"metadata": {}, "spec": {**domain, **with_dump}, "status": {}}
    assert live_update.update(running, {**domain, **bare}, volumes=volumes).patch == {}
    running["spec"] = {**domain, **bare}
    assert live_update.update(running, {**domain, **with_dump}, volumes=volumes).patch == {}
