# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows for restores."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from test_snapshot_plan import CLASSES, NOW, PVCS, STATE, claim, content, instance, keeping, machine, snapshot, taken

from turtles.api.conditions import get_condition
from turtles.api.snapshots import LAST_RESTORE, RESTORE_FINALIZER, RESTORE_NAME, RESTORE_UID
from turtles.controller.restore import machine as machines
from turtles.controller.restore.plan import Plan, Situation, plan
from turtles.controller.snapshot import content as contents
from turtles.controller.state_claims import current_claim

READY = snapshot({"phase": "Succeeded", "readyToUse": True, "sourceUID": "u-vm"})
WHOLE = taken(readyToUse=True, restoreSize="2Gi")
ENTRY = {
    "volumeName": "data",
    "persistentVolumeClaim": "restore-u-r-data",
    "volumeSnapshotName": "vmsnapshot-u-s-volume-data",
}
OWN = {RESTORE_UID: "u-r"}


def restore(status: Any = None, target: str = "vm", **spec: Any) -> dict[str, Any]:
    reference = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": target}
    return {
        "metadata": {
            "name": "r",
            "namespace": "ns",
            "uid": "u-r",
            "creationTimestamp": "2026-01-01T12:00:00Z",
            "finalizers": [RESTORE_FINALIZER],
        },
        "spec": {"target": reference, "virtualMachineSnapshotName": "s", **spec},
        "status": status or {},
    }


def situation(target: Any = None, vmi: Any = None, pvcs: Any = None, **found: Any) -> Situation:
    return Situation(target, vmi, READY, content(), WHOLE, pvcs or {}, **found)


def made(name: str = "restore-u-r-data", phase: str = "Bound", own: bool = True) -> dict[str, Any]:
    pvc = claim(name, phase=phase)
    pvc["metadata"]["annotations"] = OWN if own else {}
    return {name: pvc}


def said(decided: Plan, kind: str = "Failure") -> str:
    found = get_condition(decided.status.get("conditions"), kind) or {}
    return f"{found.get('reason', '')} {found.get('message', '')}".strip()


def test_the_target_is_locked_and_its_claims_get_their_names_first() -> None:
    decided = plan(restore(), situation(machine()), NOW)
    assert decided.lock is True
    assert decided.status["restores"] == [ENTRY]
    assert decided.status["complete"] is False
    assert not decided.create
    assert decided.machine is None


@pytest.mark.parametrize(
    ("policy", "target", "name"),
    [
        (None, "vm", "restore-u-r-data"),
        ("RandomizeNames", "vm", "restore-u-r-data"),
        ("InPlace", "vm", "data"),
        ("PrefixTargetName", "new", "new-data"),
    ],
)
def test_names_of_claims(policy: str | None, target: str, name: str) -> None:
    spec = {"volumeRestorePolicy": policy} if policy else {}
    assert [each["persistentVolumeClaim"] for each in machines.volumes(restore(None, target, **spec), content())] == [
        name
    ]
    spec["volumeRestoreOverrides"] = [{"volumeName": "data", "restoreName": "mine"}]
    assert machines.volumes(restore(None, target, **spec), content())[0]["persistentVolumeClaim"] == "mine"


def test_claims_are_filled_from_volume_snapshots() -> None:
    before = content()
    backup = before["spec"]["volumeBackups"][0]["persistentVolumeClaim"]
    backup["metadata"]["annotations"] = {"pv.kubernetes.io/bind-completed": "yes", "mine": "x"}
    backup["spec"]["volumeName"] = "pvc-1"
    override = {"volumeName": "data", "labels": {"tier": "db"}, "annotations": {"more": "y"}}
    pvc = machines.claim(restore(volumeRestoreOverrides=[override]), before, ENTRY, next(iter(WHOLE.values())))
    assert pvc["spec"]["dataSource"] == {
        "apiGroup": "snapshot.storage.k8s.io",
        "kind": "VolumeSnapshot",
        "name": ENTRY["volumeSnapshotName"],
    }
    assert pvc["spec"]["resources"]["requests"]["storage"] == "2Gi", "as large as the snapshot at least"
    assert "volumeName" not in pvc["spec"]
    annotations = pvc["metadata"]["annotations"]
    assert {key: annotations.get(key) for key in ("mine", "more", "restore.kubevirt.io/name")} == {
        "mine": "x",
        "more": "y",
        "restore.kubevirt.io/name": "r",
    }
    assert not any(key.startswith("pv.") for key in annotations)
    assert pvc["metadata"]["labels"]["tier"] == "db"
    assert pvc["metadata"]["labels"]["restore.kubevirt.io/source-vm-name"] == "vm"


@pytest.mark.parametrize(
    ("policy", "seconds", "outcome"),
    [
        ("FailImmediate", 0, "failed"),
        (None, 0, "waits"),
        (None, 301, "failed"),
        ("WaitGracePeriod", 299, "waits"),
        ("WaitEventually", 100_000, "waits"),
        ("StopTarget", 0, "stops"),
        ("StopTarget", 301, "failed"),
    ],
)
def test_a_target_that_runs(policy: str | None, seconds: int, outcome: str) -> None:
    wanted = restore(**({"targetReadinessPolicy": policy} if policy else {}))
    decided = plan(wanted, situation(machine(), instance()), NOW + timedelta(seconds=seconds))
    assert bool(said(decided)) is (outcome == "failed")
    assert decided.stop is (outcome == "stops")
    assert (decided.lock is True) is (outcome != "failed")
    assert "restores" not in decided.status
    if outcome != "failed":
        assert said(decided, "Ready") == "Waiting for target to be ready the target runs"
    if outcome == "waits" and policy != "WaitEventually":
        assert decided.wait, "its time will be over"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (machine(snapshotInProgress="x"), "snapshot x is in progress"),
        (machine(restoreInProgress="other"), "restore other is in progress"),
    ],
)
def test_one_operation_at_a_time(target: dict[str, Any], words: str) -> None:
    decided = plan(restore(), situation(target), NOW)
    assert decided.lock is None
    assert words in said(decided, "Ready")


def test_another_machine_of_the_name_is_left_alone() -> None:
    other = machine()
    other["metadata"]["uid"] = "u-other"
    decided = plan(restore(), situation(other), NOW)
    assert "restore target already exists" in said(decided)
    assert decided.lock is None


def test_the_machine_gets_its_spec_when_its_claims_are_there() -> None:
    waiting = plan(restore({"restores": [ENTRY]}), situation(machine(restoreInProgress="r")), NOW)
    assert [pvc["metadata"]["name"] for pvc in waiting.create] == ["restore-u-r-data"]
    assert waiting.machine is None
    target = machine(restoreInProgress="r")
    target["spec"]["template"]["spec"]["domain"]["cpu"] = {"cores": 8}
    decided = plan(restore({"restores": [ENTRY]}), situation(target, None, made(phase="Pending")), NOW)
    assert decided.machine is not None
    assert decided.machine["metadata"]["annotations"][LAST_RESTORE] == "r-u-r"
    spec = decided.machine["spec"]
    assert spec["runStrategy"] == "Halted"
    assert "cpu" not in spec["template"]["spec"]["domain"]
    (data,) = [each for each in spec["template"]["spec"]["volumes"] if each["name"] == "data"]
    assert data == {"name": "data", "persistentVolumeClaim": {"claimName": "restore-u-r-data"}}
    immediate = situation(target, None, made(phase="Pending"), immediate=frozenset({"fast"}))
    assert plan(restore({"restores": [ENTRY]}), immediate, NOW).machine is None, "its claim isn't filled yet"


def test_a_restored_machine_is_let_go_and_owns_its_claims() -> None:
    target = machine(restoreInProgress="r")
    target["metadata"]["annotations"] = {LAST_RESTORE: "r-u-r"}
    wanted = restore({"restores": [ENTRY]})
    decided = plan(wanted, situation(target, instance(), made()), NOW)
    assert decided.lock is False
    assert [pvc["metadata"]["name"] for pvc in decided.own] == ["restore-u-r-data"]
    assert decided.status["complete"] is True
    assert decided.status["restoreTime"]
    wanted["spec"]["volumeOwnershipPolicy"] = "None"
    assert not plan(wanted, situation(target, None, made()), NOW).own


def test_a_new_machine_has_an_identity_of_its_own() -> None:
    before = content()
    source = before["spec"]["source"]["virtualMachine"]["spec"]["template"]["spec"]
    source["domain"]["firmware"] = {"uuid": "u", "serial": "s", "bootloader": {"bios": {}}}
    source["domain"]["devices"]["interfaces"] = [{"name": "default", "macAddress": "02:00:00:00:00:01", "bridge": {}}]
    patch = {"op": "replace", "path": "/spec/template/spec/domain/firmware/bootloader", "value": {"efi": {}}}
    wanted = restore(None, "new", patches=[json.dumps(patch)])
    vm = machines.restored(wanted, before, [ENTRY], None)
    assert vm["metadata"]["name"] == "new"
    assert vm["metadata"]["labels"] == {"a": "b"}
    domain = vm["spec"]["template"]["spec"]["domain"]
    assert domain["firmware"] == {"bootloader": {"efi": {}}}
    assert domain["devices"]["interfaces"] == [{"name": "default", "bridge": {}}]
    same = machines.restored(restore(), before, [ENTRY], machine())
    assert same["spec"]["template"]["spec"]["domain"]["firmware"]["uuid"] == "u"


def test_patches_that_can_not_be_applied() -> None:
    bad = restore({"restores": [ENTRY]}, "new", patches=['{"op": "remove", "path": "/spec/none"}'])
    assert "spec.patches can't be applied" in said(plan(bad, situation(None, None, made()), NOW))


def test_labels_that_only_the_engine_sets() -> None:
    patch = {"op": "add", "path": "/spec/template/metadata", "value": {"labels": {"kubevirt.io/created-by": "x"}}}
    bad = restore({"restores": [ENTRY]}, "new", patches=[json.dumps(patch)])
    decided = plan(bad, situation(None, None, made()), NOW)
    assert "kubevirt.io/created-by can only be set by the engine" in said(decided)
    assert decided.machine is None


def test_data_volumes_are_not_made_again() -> None:
    before = content()
    vm = before["spec"]["source"]["virtualMachine"]["spec"]
    vm["template"]["spec"]["volumes"] = [
        {"name": "data", "dataVolume": {"name": "dv"}},
        {"name": "m", "memoryDump": {"claimName": "m"}},
    ]
    vm["dataVolumeTemplates"] = [{"metadata": {"name": "dv"}}, {"metadata": {"name": "other"}}]
    spec = machines.restored(restore(), before, [ENTRY], None)["spec"]
    claim_name = {"claimName": "restore-u-r-data"}
    assert spec["template"]["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": claim_name}]
    assert spec["dataVolumeTemplates"] == [{"metadata": {"name": "other"}}]


@pytest.mark.parametrize("policy", ["RandomizeNames", "PrefixTargetName"])
def test_a_claim_of_somebody_else_is_left_alone(policy: str) -> None:
    wanted = restore({"restores": [ENTRY]}, volumeRestorePolicy=policy)
    decided = plan(wanted, situation(machine(), None, made(own=False)), NOW)
    assert "exists, and doesn't belong to this restore; choose another restoreName" in said(decided)
    assert not decided.delete
    assert decided.machine is None


IN_PLACE = {"restores": [{**ENTRY, "persistentVolumeClaim": "data"}]}


def test_in_place_the_machines_own_claim_goes_first() -> None:
    wanted = restore(IN_PLACE, volumeRestorePolicy="InPlace")
    decided = plan(wanted, situation(machine(restoreInProgress="r"), None, made("data", own=False)), NOW)
    assert [pvc["metadata"]["name"] for pvc in decided.delete] == ["data"]
    assert not decided.create
    assert [pvc["metadata"]["name"] for pvc in plan(wanted, situation(machine()), NOW).create] == ["data"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (situation(machine(), None, made("data", own=False), users={"data": ["other"]}), "belongs to other as well"),
        (
            situation(machine([{"name": "data", "emptyDisk": {}}]), None, made("data", own=False)),
            "no longer belongs to the machine",
        ),
        (situation(None, None, made("data", own=False)), "belonged to a machine that no longer exists"),
    ],
)
def test_in_place_nothing_of_others_goes(found: Situation, words: str) -> None:
    decided = plan(restore(IN_PLACE, volumeRestorePolicy="InPlace"), found, NOW)
    assert words in said(decided)
    assert not decided.delete


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Situation(), "VirtualMachineSnapshot s does not exist"),
        (Situation(snapshot=snapshot()), "VirtualMachineSnapshot s is not ready"),
        (Situation(snapshot=READY, content=content()), "VolumeSnapshot vmsnapshot-u-s-volume-data does not exist"),
    ],
)
def test_a_snapshot_that_is_not_there(found: Situation, words: str) -> None:
    decided = plan(restore(), found, NOW)
    assert words in said(decided, "Ready")
    assert decided.wait


def test_deletion_leaves_nothing_half_done() -> None:
    gone = restore({"restores": [ENTRY]})
    gone["metadata"]["deletionTimestamp"] = "now"
    decided = plan(gone, situation(machine(restoreInProgress="r"), None, made()), NOW)
    assert decided.lock is False
    assert [pvc["metadata"]["name"] for pvc in decided.delete] == ["restore-u-r-data"]
    assert decided.finalizers == []
    assert not plan(gone, situation(machine(), None, made(own=False)), NOW).delete
    gone["status"]["complete"] = True
    assert not plan(gone, situation(machine(), None, made()), NOW).delete


def state_claim(name: str, owner: str | None = "u-vm", restored: str = "") -> dict[str, Any]:
    pvc = claim(name)
    pvc["metadata"]["labels"] = {"persistent-state-for": "vm"}
    pvc["metadata"]["ownerReferences"] = [{"kind": "VirtualMachine", "name": "vm", "uid": owner}] if owner else []
    pvc["metadata"]["annotations"] = {RESTORE_NAME: "r", RESTORE_UID: restored} if restored else {}
    return pvc


def with_state(name: str = STATE) -> dict[str, Any]:
    pvcs = {**PVCS, name: state_claim(name)}
    made = contents.make(snapshot(), keeping(), pvcs, CLASSES, name)
    return {**made, "metadata": {**made["metadata"], "uid": "u-c"}}


BACKUP = f"vmsnapshot-u-s-volume-{STATE}"
BOTH = {**WHOLE, BACKUP: {"metadata": {"name": BACKUP, "namespace": "ns"}, "status": {"readyToUse": True}}}


@pytest.mark.parametrize(("target", "label"), [("vm", "vm"), ("copy", "copy")])
def test_a_claim_with_state_says_whose_it_is(target: str, label: str) -> None:
    asked = restore(target=target)
    entries = machines.volumes(asked, with_state())
    found = Situation(
        keeping() if target == "vm" else None, None, READY, with_state(), BOTH, {}, state_claims=[state_claim(STATE)]
    )
    decided = plan(restore({"restores": entries}, target=target), found, NOW)
    data, state = decided.create
    assert "persistent-state-for" not in data["metadata"]["labels"]
    assert state["metadata"]["labels"]["persistent-state-for"] == label
    assert not decided.release, "until the machine is written it keeps what it has"


def test_a_label_of_a_claim_that_is_a_disk_now_is_not_passed_on() -> None:
    made = content()
    made["spec"]["volumeBackups"][0]["persistentVolumeClaim"]["metadata"]["labels"] = {"persistent-state-for": "vm"}
    (entry,) = machines.volumes(restore(), made)
    assert "persistent-state-for" not in machines.claim(restore(), made, entry, {})["metadata"]["labels"]


@pytest.mark.parametrize("policy", [None, "None"])
def test_state_of_before_is_let_go_when_the_machine_is_written(policy: str | None) -> None:
    target = keeping(restoreInProgress="r")
    target["metadata"]["annotations"] = {LAST_RESTORE: "r-u-r"}
    old, new = state_claim(STATE), state_claim("restore-u-r-state", owner=None, restored="u-r")
    other = state_claim("other", owner="u-other")
    found = Situation(
        target, None, READY, with_state(), BOTH, {"restore-u-r-state": new}, state_claims=[other, old, new]
    )
    decided = plan(restore(volumeOwnershipPolicy=policy), found, NOW)
    assert decided.release == [old], "its own, and that of nobody else"
    assert decided.own == [new], "whatever becomes of disks"
    without = Situation(target, None, READY, content(), WHOLE, {}, state_claims=[old])
    assert not plan(restore(), without, NOW).release, "a snapshot without it changes nothing about it"


def test_in_place_state_is_replaced_as_disks_are() -> None:
    entries = machines.volumes(restore(volumeRestorePolicy="InPlace"), with_state())
    assert [each["persistentVolumeClaim"] for each in entries] == ["data", STATE]
    asked = restore({"restores": entries}, volumeRestorePolicy="InPlace")
    data = claim("data")
    existing = {"data": {**data, "metadata": {**data["metadata"], "annotations": OWN}}, STATE: state_claim(STATE)}
    found = Situation(keeping(), None, READY, with_state(), BOTH, existing, state_claims=[existing[STATE]])
    assert plan(asked, found, NOW).delete == [existing[STATE]]
    other = {**existing, STATE: state_claim(STATE, owner="u-other")}
    # Not that of a machine that has a claim of its own by now
    own = state_claim("newer")
    refused = plan(asked, Situation(keeping(), None, READY, with_state(), BOTH, other, state_claims=[own]), NOW)
    assert not refused.delete
    assert "no longer belongs to the machine" in said(refused)


@pytest.mark.parametrize(
    ("labelled", "last", "expected"),
    [
        ([], None, STATE),
        ([state_claim(STATE)], None, STATE),
        ([state_claim(STATE), state_claim("new", restored="u-r", owner=None)], None, STATE),
        ([state_claim(STATE), state_claim("new", restored="u-r", owner=None)], "r-u-r", "new"),
        ([state_claim("new", restored="u-r")], None, "new"),
        ([state_claim("foreign", owner="u-other")], None, STATE),
        ([state_claim("foreign", owner=None)], "r-u-other", STATE),
    ],
)
def test_which_claim_has_the_state(labelled: list[dict[str, Any]], last: str | None, expected: str) -> None:
    vm = keeping()
    vm["metadata"]["annotations"] = {LAST_RESTORE: last} if last else {}
    assert current_claim(vm, labelled) == expected
    owner = {"kind": "VirtualMachine", "name": "vm", "uid": "u-vm", "controller": True}
    vmi = {"metadata": {"name": "vm", "uid": "u-vmi", "ownerReferences": [owner]}}
    assert current_claim(vmi, labelled, vm) == expected
