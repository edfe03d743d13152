# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods that hold claims for running machines, and what the status says of them."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from turtles.controller.pod.attachment import attachment_name, attachment_pod
from turtles.controller.pod.config import LauncherConfig
from turtles.controller.vm import live_update
from turtles.controller.vmi import hotplug
from turtles.controller.vmi.plan import plan

DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "claim", "hotpluggable": True}}
DISK = {"name": "data", "disk": {"bus": "scsi"}}
ROOT = {"name": "root", "containerDisk": {"image": "demo"}}
ROOT_DISK = {"name": "root", "disk": {"bus": "virtio"}}
LAUNCHER = {
    "metadata": {"name": "virt-launcher-web-1", "namespace": "ns", "uid": "launcher"},
    "spec": {"nodeName": "n", "containers": [{"name": "compute"}], "tolerations": [{"key": "a", "operator": "Exists"}]},
    "status": {"phase": "Running", "conditions": [{"type": "ContainersReady", "status": "True"}]},
}
BOUND = {"spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound", "capacity": {"storage": "8Mi"}}}
PODNAME = attachment_name(LAUNCHER, DATA)


def vmi(*volumes: dict[str, Any], entries: list[dict[str, Any]] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "web", "namespace": "ns", "uid": "vmi", "annotations": {}},
        "spec": {
            "domain": {"devices": {"disks": [ROOT_DISK, *([DISK] if DATA in volumes else [])]}},
            "volumes": [ROOT, *volumes],
        },
        "status": {"phase": "Running", "nodeName": "n", "volumeStatus": entries or [], **status},
    }


def holder(*, ready: bool = True, deleted: bool = False, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "ContainersReady", "status": "True"}] if ready else []
    metadata = {"name": PODNAME, "namespace": "ns", "uid": "holder"}
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {
        "metadata": metadata,
        "spec": {"containers": [{}]},
        "status": {"phase": "Running", "conditions": conditions, **status},
    }


def entry(phase: str, *, uid: bool = True, **more: Any) -> dict[str, Any]:
    attached = {"attachPodName": PODNAME, **({"attachPodUID": "holder"} if uid else {})}
    return {"name": "data", "target": "", "phase": phase, "hotplugVolume": attached, **more}


def follow(obj: dict[str, Any], *pods: dict[str, Any], pvc: dict[str, Any] | None = BOUND) -> hotplug.Changes:
    changes = hotplug.follow(obj, LAUNCHER, pods, {"claim": pvc})
    assert changes is not None
    return changes


def test_nothing_comes_or_goes():
    assert hotplug.follow(vmi(), LAUNCHER, [], {}) is None


@pytest.mark.parametrize(
    ("pvc", "phase", "reason", "message", "creates"),
    [
        (None, "Pending", "FailedPvcNotFound", "PVC claim not found", False),
        # The scheduler binds it, for the Pod
        ({"spec": {}, "status": {"phase": "Pending"}}, "Pending", "PVCNotReady", "PVC is in phase ClaimPending", True),
        ({"spec": {}, "status": {"phase": "Lost"}}, "Pending", "PVCNotReady", "PVC is in phase Lost", True),
        (BOUND, "Bound", "PVCNotReady", "PVC is in phase Bound", True),
    ],
)
def test_a_claim_before_its_pod(pvc, phase, reason, message, creates):
    changes = follow(vmi(DATA), pvc=pvc)
    (found,) = changes.entries
    assert (found["phase"], found["reason"], found["message"]) == (phase, reason, message)
    assert found["hotplugVolume"] == {}
    assert changes.create == ([DATA] if creates else [])
    assert [event[1] for event in changes.events] == (["FailedPvcNotFound"] if pvc is None else [])
    # Said once
    assert follow(vmi(DATA, entries=changes.entries), pvc=pvc).events == []


def test_a_block_device():
    changes = follow(vmi(DATA), pvc={**BOUND, "spec": {"volumeMode": "Block"}})
    assert changes.create == []
    assert changes.entries[0]["reason"] == "VolumeModeNotSupported"
    assert "volumeMode: Block" in changes.entries[0]["message"]


def test_from_its_pod_to_the_agent():
    changes = follow(vmi(DATA, entries=follow(vmi(DATA)).entries), holder(ready=False))
    (found,) = changes.entries
    assert found["phase"] == "AttachedToNode"
    assert found["message"] == f"Created hotplug attachment pod {PODNAME}, for volume data"
    assert found["hotplugVolume"] == {"attachPodName": PODNAME}
    assert found["persistentVolumeClaimInfo"]["claimName"] == "claim"
    assert (changes.create, changes.delete) == ([], [])
    assert [event[:2] for event in changes.events] == [("Normal", "SuccessfulCreate")]
    changes = follow(vmi(DATA, entries=changes.entries), holder())
    assert changes.entries[0]["hotplugVolume"] == {"attachPodName": PODNAME, "attachPodUID": "holder"}
    assert changes.events == []


def test_a_pod_that_fails():
    ended = {"lastState": {"terminated": {"exitCode": 1, "message": "claim is full"}}, "state": {"waiting": {}}}
    changes = follow(vmi(DATA), holder(ready=False, containerStatuses=[ended]))
    assert (changes.entries[0]["reason"], changes.entries[0]["message"]) == ("FailedAttachVolume", "claim is full")
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
    changes = follow(vmi(DATA), holder(ready=False, conditions=[unscheduled]))
    assert changes.entries[0]["message"] == "no room"


@pytest.mark.parametrize("phase", ["MountedToPod", "Ready"])
def test_a_pod_that_is_lost_is_made_again(phase):
    before = entry(phase, target="sda", reason="r", message="m")
    changes = follow(vmi(DATA, entries=[before]))
    assert changes.create == [DATA]
    assert {key: changes.entries[0][key] for key in before} == before
    failed = holder(ready=False)
    failed["status"]["phase"] = "Failed"
    assert follow(vmi(DATA, entries=[before]), failed).delete == [failed]


@pytest.mark.parametrize(
    ("before", "pods", "kept", "deletes"),
    [
        # The agent has to say that it is done
        (entry("Ready"), [holder()], True, False),
        (entry("Detaching"), [holder()], True, False),
        (entry("AttachedToNode"), [holder()], True, False),
        (entry("Ready"), [], True, False),
        # It never was asked to begin, or has said so
        (entry("AttachedToNode", uid=False), [holder(ready=False)], True, True),
        (entry("UnMountedFromPod"), [holder()], True, True),
        (entry("UnMountedFromPod"), [holder(deleted=True)], True, False),
        (entry("UnMountedFromPod"), [], False, False),
        ({"name": "data", "target": "", "phase": "Pending", "hotplugVolume": {}}, [], False, False),
    ],
)
def test_a_volume_that_goes(before, pods, kept, deletes):
    changes = follow(vmi(entries=[before, {"name": "root", "target": "vda"}]), *pods)
    assert [each["name"] for each in changes.entries] == (["data", "root"] if kept else ["root"])
    assert changes.delete == (pods if deletes else [])
    assert changes.create == []


def test_the_end_takes_all_pods():
    now = datetime.now(UTC)
    decided = plan(vmi(DATA, phase="Failed"), [], {"claim": BOUND}, now, attachments=[holder()])
    assert [pod["metadata"]["name"] for pod in decided.detach] == [PODNAME]
    obj = vmi(DATA, phase="Failed")
    obj["metadata"] |= {
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
    }
    assert plan(obj, [], {}, now, attachments=[holder(deleted=True)]).vmi["metadata"]["finalizers"]
    assert plan(obj, [], {}, now).vmi["metadata"]["finalizers"] == []


def test_a_start_does_not_wait_for_what_comes_later():
    obj = vmi(DATA, phase="Pending")
    decided = plan(obj, [], {"claim": None}, datetime.now(UTC))
    assert decided.create_pod
    assert decided.vmi["status"].get("volumeStatus", []) == []


def test_the_pod():
    obj = vmi(DATA, entries=[entry("Bound", size=8 << 20)])
    pod = attachment_pod(obj, LAUNCHER, DATA, LauncherConfig("launcher:1"))
    assert pod["metadata"]["name"] == PODNAME
    assert pod["metadata"]["labels"] == {"kubevirt.io": "hotplug-disk"}
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "launcher"
    (container,) = pod["spec"]["containers"]
    assert container["command"][2:] == ["--volume", "data", "--claim", "claim", "--size", str(8 << 20)]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["spec"]["securityContext"]["fsGroup"] == 107
    assert pod["spec"]["tolerations"] == LAUNCHER["spec"]["tolerations"]
    assert pod["spec"]["volumes"][1] == {"name": "data", "persistentVolumeClaim": {"claimName": "claim"}}
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms["nodeSelectorTerms"][0]["matchFields"][0]["values"] == ["n"]
    assert "limits" not in container["resources"]["requests"]
    limited = attachment_pod(obj, LAUNCHER, DATA, LauncherConfig("launcher:1", limited=frozenset(("cpu",))))
    assert limited["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "100m"
    fixed = {"name": "data", "persistentVolumeClaim": {**DATA["persistentVolumeClaim"], "readOnly": True}}
    read_only = attachment_pod(obj, LAUNCHER, fixed, LauncherConfig("launcher:1"))
    assert "--read-only" in read_only["spec"]["containers"][0]["command"]
    assert read_only["spec"]["volumes"][1]["persistentVolumeClaim"]["readOnly"] is True
    dump = {"name": "data", "memoryDump": {"claimName": "claim"}}
    assert (
        "--folder"
        in attachment_pod(obj, LAUNCHER, dump, LauncherConfig("launcher:1"))["spec"]["containers"][0]["command"]
    )


# Templates

FIXED = {"name": "fixed", "persistentVolumeClaim": {"claimName": "f"}}
DRIVE = {"name": "data", "cdrom": {"bus": "sata"}}
MARK = "kubevirt.io/ephemeral-hotplug-volumes"


def spec(*parts: dict[str, Any]) -> dict[str, Any]:
    disks = [part for part in parts if "disk" in part or "cdrom" in part]
    return {
        "domain": {"memory": {"guest": "1Gi"}, "devices": {"disks": disks}},
        "volumes": [part for part in parts if part not in disks],
    }


def instance(*parts: dict[str, Any], entries: tuple[str, ...] = (), mark: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "annotations": {MARK: mark} if mark else {}},
        "spec": spec(*parts),
        "status": {"phase": "Running", "volumeStatus": [{"name": name} for name in entries]},
    }


BASE = (ROOT, ROOT_DISK)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (BASE, (*BASE, DATA, DISK), (*BASE, DATA, DISK)),
        ((*BASE, DATA, DISK), BASE, BASE),
        ((*BASE, DRIVE), (*BASE, DRIVE, DATA), (*BASE, DRIVE, DATA)),
        ((*BASE, DRIVE, DATA), (*BASE, DRIVE), (*BASE, DRIVE)),
        # Changed: it goes first
        (
            (*BASE, DATA, DISK),
            (*BASE, {**DATA, "persistentVolumeClaim": {"claimName": "b", "hotpluggable": True}}, DISK),
            BASE,
        ),
        ((*BASE, DATA, DISK), (*BASE, DATA, {"name": "data", "disk": {"bus": "virtio"}}), BASE),
    ],
)
def test_a_template_that_has_other_volumes(before, after, expected):
    update = live_update.update(instance(*before), spec(*after))
    assert update.restart == ""
    wanted = spec(*expected)
    if wanted["volumes"] != spec(*before)["volumes"]:
        assert update.patch["volumes"] == wanted["volumes"]
    disks = update.patch.get("domain", {}).get("devices", {}).get("disks", spec(*before)["domain"]["devices"]["disks"])
    assert disks == wanted["domain"]["devices"]["disks"]
    assert update.annotations is None
    assert live_update.without_live_fields(spec(*before)) == live_update.without_live_fields(spec(*after))


def test_what_takes_a_restart():
    sata = {"name": "data", "disk": {"bus": "sata"}}
    assert "requires bus to be" in live_update.update(instance(*BASE), spec(*BASE, DATA, sata)).restart
    other = live_update.without_live_fields(spec(*BASE, FIXED, {"name": "fixed", "disk": {}}))
    assert live_update.without_live_fields(spec(*BASE)) != other
    # Without the gate templates are followed at the next start alone
    assert live_update.update(instance(*BASE), spec(*BASE, DATA, DISK), volumes=False) == live_update.Update({})
    with_data = live_update.without_live_fields(spec(*BASE, DATA, DISK), volumes=False)
    assert with_data != live_update.without_live_fields(spec(*BASE), volumes=False)


def test_a_volume_comes_again_only_when_it_is_gone():
    assert live_update.update(instance(*BASE, entries=("data",)), spec(*BASE, DATA, DISK)).patch == {}


def test_a_volume_of_the_instance_alone_stays():
    own = instance(*BASE, DATA, DISK, mark='["data"]')
    assert live_update.update(own, spec(*BASE)) == live_update.Update({})
    # Until the machine has it, too
    update = live_update.update(copy.deepcopy(own), spec(*BASE, DATA, DISK))
    assert (update.patch, update.annotations) == ({}, {MARK: None})
