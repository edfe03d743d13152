# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The modules snapshot, restore and clone."""

from __future__ import annotations

import json
import threading

import pytest

READY = {"phase": "Succeeded", "readyToUse": True}
FAILED = {"phase": "Failed", "error": {"message": "snapshot deadline exceeded: no space left"}}


@pytest.fixture
def shop(api):
    """A namespace."""
    api.put("namespaces", {"metadata": {"name": "shop"}})
    return api


def snapshot(api, name="before", vm="db", status=None, **spec):
    """Store a snapshot as the engine would."""
    source = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": vm}
    metadata = {"name": name, "namespace": "shop"}
    body = {"metadata": metadata, "spec": {"source": source, **spec}, "status": READY if status is None else status}
    return api.put("virtualmachinesnapshots", body)


def answer(api, plural, name, status):
    """Give an object its status as soon as it is there."""

    def give():
        obj = api.wait(lambda: api.get(plural, "shop", name))
        api.put(plural, {**obj, "status": status})

    thread = threading.Thread(target=give)
    thread.start()
    return thread


def stored(api, name="before", plural="virtualmachinesnapshots"):
    return api.get(plural, "shop", name)


def test_a_snapshot_is_made_and_waited_for_once(shop, run):
    options = {"name": "before", "vm": "db", "namespace": "shop"}
    assert run("snapshot", check=True, **options)["changed"]
    assert stored(shop) is None
    giving = answer(shop, "virtualmachinesnapshots", "before", READY)
    made = run("snapshot", **options, deletion_policy="Retain", failure_deadline="1m")
    giving.join()
    assert made["changed"]
    assert made["result"]["status"]["readyToUse"]
    assert stored(shop)["spec"] == {
        "source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "db"},
        "deletionPolicy": "Retain",
        "failureDeadline": "1m",
    }
    assert not run("snapshot", **options)["changed"]
    assert not run("snapshot", name="before", namespace="shop")["changed"]
    assert run("snapshot", name="before", namespace="shop", state="absent")["result"] == {}
    assert stored(shop) is None
    assert not run("snapshot", name="before", namespace="shop", state="absent")["changed"]


def test_a_snapshot_that_failed_says_why(shop, run):
    snapshot(shop, status=FAILED)
    failure = run("snapshot", name="before", vm="db", namespace="shop")
    assert "isn't ready to use: it failed. snapshot deadline exceeded: no space left" in failure.msg


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "new"}, "vm: missing for a new snapshot"),
        ({"name": "No_name", "vm": "db"}, "name: 'No_name' isn't a Kubernetes name"),
        (
            {"name": "before", "vm": "other"},
            "vm: VirtualMachineSnapshot shop/before has db, not other, and can't be changed",
        ),
        (
            {"name": "before", "deletion_policy": "Retain"},
            "deletion_policy: VirtualMachineSnapshot shop/before has Delete",
        ),
    ],
)
def test_bad_input_of_snapshots(shop, run, options, message):
    snapshot(shop)
    assert message in run("snapshot", namespace="shop", **options).msg


def test_a_machine_is_restored_once(shop, run):
    snapshot(shop)
    options = {"name": "back", "snapshot": "before", "namespace": "shop", "target_readiness_policy": "StopTarget"}
    assert run("restore", check=True, **options)["changed"]
    assert stored(shop, "back", "virtualmachinerestores") is None
    giving = answer(shop, "virtualmachinerestores", "back", {"complete": True})
    assert run("restore", **options)["result"]["status"]["complete"]
    giving.join()
    assert stored(shop, "back", "virtualmachinerestores")["spec"] == {
        "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "db"},
        "virtualMachineSnapshotName": "before",
        "targetReadinessPolicy": "StopTarget",
    }
    assert not run("restore", **options)["changed"]
    assert run("restore", name="back", namespace="shop", state="absent")["changed"]


def test_a_copy_is_restored(shop, run):
    snapshot(shop)
    override = {"volume_name": "data", "restore_name": "copied", "labels": {"tier": "db"}}
    patch = {"op": "replace", "path": "/spec/template/spec/domain/memory/guest", "value": "1Gi"}
    options = {
        "name": "copy",
        "snapshot": "before",
        "vm": "new",
        "namespace": "shop",
        "volume_restore_overrides": [override],
        "volume_ownership_policy": "None",
        "patches": [patch],
        "wait": False,
    }
    assert run("restore", **options)["changed"]
    spec = stored(shop, "copy", "virtualmachinerestores")["spec"]
    assert spec["target"]["name"] == "new"
    assert spec["volumeRestoreOverrides"] == [{"volumeName": "data", "restoreName": "copied", "labels": {"tier": "db"}}]
    assert spec["volumeOwnershipPolicy"] == "None"
    assert json.loads(spec["patches"][0]) == patch
    assert not run("restore", **options)["changed"]


def test_a_restore_that_fails_says_why(shop, run):
    snapshot(shop)
    failure = {"type": "Failure", "status": "True", "message": "the target runs"}
    giving = answer(shop, "virtualmachinerestores", "back", {"conditions": [failure]})
    found = run("restore", name="back", snapshot="before", namespace="shop")
    giving.join()
    assert "isn't complete: the target runs" in found.msg


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "snapshot: missing for a new restore"),
        ({"snapshot": "none"}, "VirtualMachineSnapshot shop/none doesn't exist"),
        ({"snapshot": "none", "vm": "db"}, "VirtualMachineSnapshot shop/none doesn't exist"),
        ({"snapshot": "Not_a_name"}, "snapshot: 'Not_a_name' isn't a Kubernetes name"),
    ],
)
def test_bad_input_of_restores(shop, run, options, message):
    assert message in run("restore", name="back", namespace="shop", **options).msg


def test_a_restore_is_not_changed(shop, run):
    snapshot(shop)
    run("restore", name="back", snapshot="before", namespace="shop", wait=False)
    found = run("restore", name="back", snapshot="before", vm="other", namespace="shop", wait=False)
    assert "vm: VirtualMachineRestore shop/back has db, not other, and can't be changed" in found.msg


def test_they_are_read(shop, run):
    snapshot(shop)
    snapshot(shop, "after")
    assert [
        each["metadata"]["name"] for each in run("snapshot_info", name="before", namespace="shop")["resources"]
    ] == ["before"]
    assert len(run("snapshot_info", namespace="shop")["resources"]) == 2
    assert run("restore_info", namespace="shop")["resources"] == []


def test_a_machine_is_copied_once(shop, run):
    options = {"name": "c", "vm": "db", "target": "copy", "namespace": "shop", "label_filters": ["*", "!tier"]}
    options["template_annotation_filters"] = ["a*"]
    options["new_mac_addresses"] = {"default": "02:00:00:00:00:01"}
    assert run("clone", check=True, **options)["changed"]
    giving = answer(shop, "virtualmachineclones", "c", {"phase": "Succeeded"})
    assert run("clone", **options)["changed"]
    giving.join()
    machine = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine"}
    assert stored(shop, "c", "virtualmachineclones")["spec"] == {
        "source": {**machine, "name": "db"},
        "target": {**machine, "name": "copy"},
        "labelFilters": ["*", "!tier"],
        "template": {"annotationFilters": ["a*"]},
        "newMacAddresses": {"default": "02:00:00:00:00:01"},
    }
    assert not run("clone", **options)["changed"]
    serial = run("clone", **options, new_smbios_serial="x")
    assert "new_smbios_serial: VirtualMachineClone shop/c has none, not x" in serial.msg
    assert len(run("clone_info", namespace="shop")["resources"]) == 1
    assert run("clone", name="c", namespace="shop", state="absent")["changed"]


def test_a_clone_that_fails_says_why(shop, run):
    conditions = [{"type": "Ready", "status": "False", "message": "VirtualMachine copy exists"}]
    giving = answer(shop, "virtualmachineclones", "c", {"phase": "Failed", "conditions": conditions})
    found = run("clone", name="c", snapshot="before", namespace="shop")
    giving.join()
    assert "isn't successful: it failed. VirtualMachine copy exists" in found.msg
    assert "vm, snapshot: missing" in run("clone", name="new", namespace="shop").msg


@pytest.mark.parametrize(
    ("module", "plural", "options"),
    [
        ("snapshot", "virtualmachinesnapshots", {"vm": "db"}),
        ("restore", "virtualmachinerestores", {"snapshot": "before"}),
        ("clone", "virtualmachineclones", {"vm": "db", "target": "copy"}),
    ],
)
def test_labels_and_annotations_can_be_changed(shop, run, module, plural, options):
    options = {"name": "one", "namespace": "shop", "wait": False, **options}
    snapshot(shop)
    run(module, labels={"plan": "nightly", "keep": True}, annotations={"example.com/by": "cron"}, **options)
    spec = stored(shop, "one", plural)["spec"]
    assert stored(shop, "one", plural)["metadata"]["labels"] == {"plan": "nightly", "keep": "true"}
    assert stored(shop, "one", plural)["metadata"]["annotations"] == {"example.com/by": "cron"}
    assert not run(module, **options)["changed"]
    assert run(module, labels={"plan": "weekly", "keep": None}, **options)["changed"]
    assert stored(shop, "one", plural)["metadata"]["labels"] == {"plan": "weekly"}
    assert stored(shop, "one", plural)["spec"] == spec
    assert run(f"{module}_info", namespace="shop", label_selectors=["plan=weekly"])["resources"]
    refused = run(module, labels={"plan": ["weekly"]}, **options)
    assert refused.msg == "labels.plan: must be a string, but is a list"
