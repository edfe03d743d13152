# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows for snapshots of machines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from turtles.api.conditions import get_condition
from turtles.api.snapshots import SNAPSHOT_FINALIZER
from turtles.controller.snapshot import content as contents
from turtles.controller.snapshot.plan import Plan, Situation, plan, quiesce_failed

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CLASSES = {"fast": "fast-snapshots"}


def snapshot(status: Any = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "s",
            "namespace": "ns",
            "uid": "u-s",
            "creationTimestamp": "2026-01-01T12:00:00Z",
            "finalizers": [SNAPSHOT_FINALIZER],
        },
        "spec": {"source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "vm"}, **spec},
        "status": status or {},
    }


def machine(volumes: Any = None, **status: Any) -> dict[str, Any]:
    default = [
        {"name": "root", "containerDisk": {"image": "i"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "slow", "dataVolume": {"name": "slow"}},
    ]
    domain = {"devices": {"disks": [{"name": "data", "disk": {}}]}}
    return {
        "metadata": {"name": "vm", "namespace": "ns", "uid": "u-vm", "labels": {"a": "b"}, "generation": 3},
        "spec": {"runStrategy": "Always", "template": {"spec": {"domain": domain, "volumes": volumes or default}}},
        "status": status,
    }


def instance(*conditions: str, **status: Any) -> dict[str, Any]:
    met = [{"type": each, "status": "True"} for each in conditions]
    return {"metadata": {"name": "vm"}, "spec": {}, "status": {"phase": "Running", "conditions": met, **status}}


def claim(name: str, storage_class: str = "fast", phase: str = "Bound") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": f"u-{name}"},
        "spec": {"storageClassName": storage_class, "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": phase},
    }


PVCS = {"data": claim("data"), "slow": claim("slow", "slow")}


def content(**status: Any) -> dict[str, Any]:
    made = contents.make(snapshot(), machine(), PVCS, CLASSES)
    made["metadata"]["uid"] = "u-c"
    return {**made, "status": status}


def taken(**status: Any) -> dict[str, Any]:
    name = "vmsnapshot-u-s-volume-data"
    return {name: {"metadata": {"name": name, "namespace": "ns"}, "status": status}}


IN_PROGRESS = {"phase": "InProgress", "readyToUse": False, "sourceUID": "u-vm"}
ONLINE = {**IN_PROGRESS, "indications": ["Online", "GuestAgent"]}


def conditions(decided: Plan) -> dict[str, str]:
    return {each["type"]: each["status"] for each in decided.status.get("conditions") or ()}


def test_a_machine_is_locked_and_its_content_stored_first() -> None:
    decided = plan(snapshot(), Situation(machine(), None, None, {}, PVCS, CLASSES), NOW)
    assert decided.lock is True
    made = decided.create_content
    assert made is not None
    (backup,) = made["spec"]["volumeBackups"]
    assert (backup["volumeName"], backup["diskName"]) == ("data", "data")
    assert backup["persistentVolumeClaim"]["spec"] == PVCS["data"]["spec"]
    kept = made["spec"]["source"]["virtualMachine"]
    assert kept["metadata"] == {"name": "vm", "namespace": "ns", "uid": "u-vm", "labels": {"a": "b"}}
    assert decided.status["snapshotVolumes"] == {"includedVolumes": ["data"], "excludedVolumes": ["root", "slow"]}
    assert decided.status["phase"] == "InProgress"
    assert decided.status["indications"] == ["PartialSnapshot"], "one of its claims is left out"
    assert not decided.create, "its volumes come when the content is stored"


def test_a_snapshot_of_all_claims_is_not_partial() -> None:
    whole = machine()
    volumes = whole["spec"]["template"]["spec"]["volumes"]
    whole["spec"]["template"]["spec"]["volumes"] = [each for each in volumes if each["name"] != "slow"]
    decided = plan(snapshot(), Situation(whole, None, None, {}, PVCS, CLASSES), NOW)
    assert decided.status["snapshotVolumes"] == {"includedVolumes": ["data"], "excludedVolumes": ["root"]}
    assert "indications" not in decided.status


STATE = "persistent-state-for-vm"


def keeping(**status: Any) -> dict[str, Any]:
    vm = machine(**status)
    vm["spec"]["template"]["spec"]["domain"]["devices"]["tpm"] = {"persistent": True}
    return vm


def test_state_beside_disks_is_a_volume_of_it() -> None:
    pvcs = {**PVCS, "restored": claim("restored")}
    decided = plan(snapshot(), Situation(keeping(), None, None, {}, pvcs, CLASSES, "restored"), NOW)
    assert decided.status["snapshotVolumes"] == {
        "includedVolumes": ["data", STATE],
        "excludedVolumes": ["root", "slow"],
    }
    assert decided.create_content is not None
    state = decided.create_content["spec"]["volumeBackups"][1]
    assert state["volumeName"] == STATE
    assert state["persistentVolumeClaim"]["metadata"]["name"] == "restored", "a restore has given it another claim"
    assert state["volumeSnapshotName"] == f"vmsnapshot-u-s-volume-{STATE}"


def test_state_that_can_not_be_copied_makes_a_snapshot_partial() -> None:
    vm = keeping()
    vm["spec"]["template"]["spec"]["volumes"].pop()
    pvcs = {"data": PVCS["data"], STATE: claim(STATE, "slow")}
    decided = plan(snapshot(), Situation(vm, None, None, {}, pvcs, CLASSES, STATE), NOW)
    assert decided.status["snapshotVolumes"] == {"includedVolumes": ["data"], "excludedVolumes": ["root", STATE]}
    assert decided.status["indications"] == ["PartialSnapshot"]


@pytest.mark.parametrize(
    ("vmi", "indications"),
    [
        (instance("AgentConnected"), ["Online", "GuestAgent"]),
        (instance(), ["Online", "NoGuestAgent"]),
        (instance("AgentConnected", "Paused"), ["Online", "Paused"]),
    ],
)
def test_a_snapshot_says_how_the_guest_was(vmi: dict[str, Any], indications: list[str]) -> None:
    decided = plan(snapshot(), Situation(machine(), vmi, None, {}, PVCS, CLASSES), NOW)
    expected = [*indications, "PartialSnapshot"]
    assert decided.status["indications"] == expected
    assert [each["indication"] for each in decided.status["sourceIndications"]] == expected
    assert all(each["message"] for each in decided.status["sourceIndications"])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Situation(None), "Source does not exist"),
        (Situation(machine(snapshotInProgress="other"), pvcs=PVCS), "Waiting for snapshot other"),
        (Situation(machine(restoreInProgress="r"), pvcs=PVCS), "Waiting for restore r"),
        (Situation(machine(), pvcs={}, snapshot_classes=CLASSES), "PersistentVolumeClaim data does not exist"),
        (
            Situation(machine(), pvcs={**PVCS, "data": claim("data", phase="Pending")}, snapshot_classes=CLASSES),
            "PersistentVolumeClaim data is not bound",
        ),
    ],
)
def test_what_a_snapshot_waits_for(found: Situation, words: str) -> None:
    decided = plan(snapshot(), found, NOW)
    assert decided.create_content is None
    said = get_condition(decided.status["conditions"], "Progressing") or {}
    assert words in f"{said.get('reason')} {said.get('message')}"
    assert decided.wait


@pytest.mark.parametrize(
    ("vmi", "freezes"),
    [
        (instance("AgentConnected"), True),
        (instance("AgentConnected", fsFreezeStatus="frozen"), False),  # by one that was killed since
        (None, False),
    ],
)
def test_the_guest_is_frozen_while_its_volumes_are_taken(vmi: Any, freezes: bool) -> None:
    found = Situation(machine(snapshotInProgress="s"), vmi, content(), {}, PVCS, CLASSES)
    decided = plan(snapshot(ONLINE), found, NOW + timedelta(seconds=100))
    assert decided.freeze == (200.0 if freezes else None), "for as long as the snapshot may take"
    (made,) = decided.create
    assert made["spec"]["source"] == {"persistentVolumeClaimName": "data"}
    assert made["spec"]["volumeSnapshotClassName"] == "fast-snapshots"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u-c"


def test_a_guest_that_can_not_be_frozen_is_tried_again_and_that_is_said() -> None:
    found = Situation(machine(snapshotInProgress="s"), instance("AgentConnected"), content(), {}, PVCS, CLASSES)
    decided = plan(snapshot(ONLINE), found, NOW)
    quiesce_failed(decided, "the agent doesn't answer", NOW)
    assert not decided.create
    assert decided.status["indications"] == ["Online", "GuestAgent", "QuiesceFailed"]
    assert "the agent doesn't answer" in decided.status["error"]["message"]
    assert decided.wait
    again = plan(snapshot(decided.status), found, NOW)
    assert again.create
    assert "QuiesceFailed" in again.status["indications"]


def test_the_guest_goes_on_once_its_volumes_are_taken() -> None:
    vmi = instance("AgentConnected", fsFreezeStatus="frozen")
    found = Situation(machine(snapshotInProgress="s"), vmi, content(), taken(creationTime="T"), PVCS, CLASSES)
    decided = plan(snapshot(ONLINE), found, NOW)
    assert decided.thaw
    assert decided.content_status is not None
    assert decided.content_status["creationTime"] == "2026-01-01T12:00:00Z"
    assert decided.status["phase"] == "InProgress", "they aren't ready"
    later = Situation(found.vm, vmi, content(**decided.content_status), found.volume_snapshots, PVCS, CLASSES)
    assert not plan(snapshot(decided.status), later, NOW).thaw


def test_a_snapshot_whose_volumes_are_ready_is() -> None:
    found = Situation(
        machine(snapshotInProgress="s"), None, content(), taken(creationTime="T", readyToUse=True), PVCS, CLASSES
    )
    decided = plan(snapshot(IN_PROGRESS), found, NOW)
    assert decided.status["phase"] == "Succeeded"
    assert decided.status["readyToUse"] is True
    assert decided.lock is False
    assert conditions(decided) == {"Ready": "True", "Progressing": "False"}
    assert decided.content_status is not None
    assert decided.content_status["readyToUse"] is True


def test_a_machine_without_such_volumes_has_a_snapshot_of_its_spec() -> None:
    vm = machine([{"name": "root", "containerDisk": {"image": "i"}}], snapshotInProgress="s")
    empty = contents.make(snapshot(), vm, {}, {})
    decided = plan(snapshot(IN_PROGRESS), Situation(vm, content={**empty, "status": {}}), NOW)
    assert decided.status["phase"] == "Succeeded"


def test_errors_of_volumes_are_said_until_they_are_gone() -> None:
    vm = machine(snapshotInProgress="s")
    error = {"message": "no space left", "time": "T"}
    decided = plan(snapshot(IN_PROGRESS), Situation(vm, None, content(), taken(error=error), PVCS, CLASSES), NOW)
    assert decided.status["error"]["message"] == "no space left"
    assert decided.status["phase"] == "InProgress"
    ready = Situation(vm, None, content(), taken(creationTime="T", readyToUse=True), PVCS, CLASSES)
    assert "error" not in plan(snapshot(decided.status), ready, NOW).status


def test_the_deadline() -> None:
    found = Situation(machine(snapshotInProgress="s"), instance("AgentConnected"), content(), taken(), PVCS, CLASSES)
    late = NOW + timedelta(minutes=5, seconds=1)
    decided = plan(snapshot(ONLINE), found, late)
    assert decided.status["phase"] == "Failed"
    assert conditions(decided) == {"Ready": "False", "Progressing": "False", "Failure": "True"}
    assert decided.lock is False
    assert decided.thaw
    assert decided.delete_content, "half a snapshot is of no use"
    assert plan(snapshot(ONLINE, failureDeadline="0s"), found, late).status["phase"] == "InProgress"
    assert plan(snapshot(ONLINE, failureDeadline="10s"), found, NOW + timedelta(seconds=11)).status["phase"] == "Failed"
    left = plan(snapshot(ONLINE), found, NOW).wait
    assert left is not None
    assert left == pytest.approx(300, abs=1)


def test_what_was_left_undone_at_the_end_is_done() -> None:
    vm = machine(snapshotInProgress="s")
    assert plan(snapshot({"phase": "Succeeded"}), Situation(vm), NOW).lock is False
    assert plan(snapshot({"phase": "Succeeded"}), Situation(machine(snapshotInProgress="other")), NOW).lock is None
    assert plan(snapshot({"phase": "Failed"}), Situation(vm, content=content()), NOW).delete_content


@pytest.mark.parametrize(
    ("policy", "phase", "whole", "goes"),
    [
        ("Delete", "Succeeded", True, True),
        ("Retain", "Succeeded", True, False),
        ("Retain", "InProgress", False, True),
    ],
)
def test_deletion(policy: str, phase: str, whole: bool, goes: bool) -> None:
    gone = snapshot({**ONLINE, "phase": phase}, deletionPolicy=policy)
    gone["metadata"]["deletionTimestamp"] = "now"
    found = Situation(machine(snapshotInProgress="s"), instance("AgentConnected"), content(readyToUse=whole))
    decided = plan(gone, found, NOW)
    assert decided.lock is False
    assert decided.thaw is (phase == "InProgress")
    assert decided.delete_content is goes
    assert (decided.finalizers == []) is not goes, "it stays until its content is gone"
    assert plan(gone, Situation(machine()), NOW).finalizers == []


def test_claims_that_are_thrown_away_are_not_in_it() -> None:
    vm = machine(
        [
            {"name": "e", "ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}},
            {"name": "m", "memoryDump": {"claimName": "memory"}},
        ]
    )
    assert contents.claims_of(vm) == []
