# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows for clones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_snapshot_plan import NOW, claim, content, machine, snapshot

from turtles.api.clones import kept
from turtles.api.conditions import get_condition
from turtles.controller.clone.plan import Plan, Situation, patches, plan

READY = {"phase": "Succeeded", "readyToUse": True}
OWNED = [{"uid": "u-c"}]


def clone(status: Any = None, source: str = "vm", kind: str = "VirtualMachine", **spec: Any) -> dict[str, Any]:
    group = "kubevirt.io" if kind == "VirtualMachine" else "snapshot.kubevirt.io"
    return {
        "apiVersion": "clone.kubevirt.io/v1beta1",
        "kind": "VirtualMachineClone",
        "metadata": {"name": "c", "namespace": "ns", "uid": "u-c"},
        "spec": {
            "source": {"apiGroup": group, "kind": kind, "name": source},
            "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "new"},
            **spec,
        },
        "status": status or {},
    }


def restore(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "tmp-restore-u-c", "ownerReferences": OWNED}, "status": status}


def said(decided: Plan) -> str:
    return str((get_condition(decided.status["conditions"], "Ready") or {}).get("message"))


def test_a_machine_is_snapshot_then_restored_to_another() -> None:
    first = plan(clone(), Situation(machine()), NOW)
    assert first.create is not None
    assert first.create["kind"] == "VirtualMachineSnapshot"
    assert first.create["spec"]["source"]["name"] == "vm"
    assert first.create["metadata"]["ownerReferences"][0]["uid"] == "u-c"
    assert first.status["phase"] == "SnapshotInProgress"

    waiting = plan(clone(first.status), Situation(machine(), snapshot=snapshot({"phase": "InProgress"})), NOW)
    assert waiting.create is None
    second = plan(clone(first.status), Situation(machine(), snapshot=snapshot(READY), content=content()), NOW)
    assert second.create is not None
    assert second.create["kind"] == "VirtualMachineRestore"
    assert second.create["spec"]["target"]["name"] == "new"
    assert second.create["spec"]["virtualMachineSnapshotName"] == "tmp-snapshot-u-c"
    assert second.status["phase"] == "RestoreInProgress"

    done = plan(clone(second.status), Situation(machine(), machine(), restore=restore(complete=True)), NOW)
    assert done.status["phase"] == "Succeeded"
    assert done.status["targetName"] == "new"
    assert done.event is not None


def test_a_snapshot_is_restored() -> None:
    wanted = clone(source="s", kind="VirtualMachineSnapshot", volumeNamePolicy="PrefixTargetName")
    decided = plan(wanted, Situation(snapshot=snapshot(READY), content=content()), NOW)
    assert decided.create is not None
    assert decided.create["spec"]["virtualMachineSnapshotName"] == "s"
    assert decided.create["spec"]["volumeRestorePolicy"] == "PrefixTargetName"


def test_what_was_made_on_the_way_goes_when_the_copy_has_its_disks() -> None:
    made = snapshot(READY)
    made["metadata"]["ownerReferences"] = OWNED
    ended = clone({"phase": "Succeeded"})
    waiting = Situation(snapshot=made, restore=restore(complete=True), pvcs=[claim("a", phase="Pending")])
    assert not plan(ended, waiting, NOW).delete
    bound = Situation(snapshot=made, restore=restore(complete=True), pvcs=[claim("a")])
    assert len(plan(ended, bound, NOW).delete) == 2
    foreign = Situation(snapshot=snapshot(READY), restore=restore(complete=True), pvcs=[claim("a")])
    assert [each["metadata"]["name"] for each in plan(ended, foreign, NOW).delete] == ["tmp-restore-u-c"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Situation(), "VirtualMachine vm does not exist"),
        (Situation(machine(), machine()), "VirtualMachine vm already exists; choose another target"),
        (Situation(machine(), snapshot=snapshot({"phase": "Failed", "error": {"message": "full"}})), "full"),
        (
            Situation(
                machine(), restore=restore(conditions=[{"type": "Failure", "status": "True", "message": "no room"}])
            ),
            "no room",
        ),
    ],
)
def test_failures(found: Situation, words: str) -> None:
    decided = plan(clone(), found, NOW)
    assert decided.status["phase"] == "Failed"
    assert words in said(decided)
    assert decided.create is None


def test_how_the_copy_differs() -> None:
    vm = machine()
    vm["metadata"]["labels"] = {"app": "db", "tier/x": "1"}
    vm["metadata"]["annotations"] = {"a": "1", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    domain = vm["spec"]["template"]["spec"]["domain"]
    domain["devices"]["interfaces"] = [{"name": "default"}, {"name": "second"}]
    domain["firmware"] = {"uuid": "u", "bootloader": {"bios": {}}}
    wanted = clone(
        labelFilters=["*", "!tier/*"],
        annotationFilters=["b*"],
        newMacAddresses={"second": "02:00:00:00:00:02"},
        newSMBiosSerial="S-1",
        patches=['{"op": "test"}'],
    )
    assert [json.loads(text) for text in patches(wanted, vm)] == [
        {"op": "remove", "path": "/metadata/labels/tier~1x"},
        {"op": "remove", "path": "/metadata/annotations/a"},
        {
            "op": "add",
            "path": "/spec/template/spec/domain/devices/interfaces/1/macAddress",
            "value": "02:00:00:00:00:02",
        },
        {
            "op": "add",
            "path": "/spec/template/spec/domain/firmware",
            "value": {"bootloader": {"bios": {}}, "serial": "S-1"},
        },
        {"op": "test"},
    ]


@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        ([], "a ab b"),
        (["*"], "a ab b"),
        (["a"], "a"),
        (["a*"], "a ab"),
        (["!a*"], "b"),
        (["*", "!ab"], "a b"),
        (["a*", "!ab"], "a"),
    ],
)
def test_filters(filters: list[str], keys: str) -> None:
    assert kept({"a": "1", "ab": "2", "b": "3"}, filters) == {
        key: value for key, value in {"a": "1", "ab": "2", "b": "3"}.items() if key in keys.split()
    }
