# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots, restores and clones against an API server: the test plays user, storage and node agent.

Between any two steps virt-controller ends, and another one goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakeapi import FakeApi
from test_snapshot_plan import claim, machine

from turtles.api.snapshots import LAST_RESTORE
from turtles.api.times import now
from turtles.controller.main import VirtController

NAMESPACED = "/apis/{}/namespaces/ns/{}"
VM = NAMESPACED.format("kubevirt.io/v1", "virtualmachines/{}")
VMI = NAMESPACED.format("kubevirt.io/v1", "virtualmachineinstances/{}")
SNAPSHOT = NAMESPACED.format("snapshot.kubevirt.io/v1beta1", "virtualmachinesnapshots/{}")
CONTENTS = NAMESPACED.format("snapshot.kubevirt.io/v1beta1", "virtualmachinesnapshotcontents/")
RESTORE = NAMESPACED.format("snapshot.kubevirt.io/v1beta1", "virtualmachinerestores/{}")
CLONE = NAMESPACED.format("clone.kubevirt.io/v1beta1", "virtualmachineclones/{}")
VOLUME_SNAPSHOTS = NAMESPACED.format("snapshot.storage.k8s.io/v1", "volumesnapshots/")
PVC = "/api/v1/namespaces/ns/persistentvolumeclaims/{}"


class Cluster:
    """An API server with storage, and the virt-controller that leads."""

    def __init__(self, api: FakeApi, start: Callable[..., VirtController]) -> None:
        self.api, self._start = api, start
        # What takes too long fails
        api.admit = lambda _method, _path, obj: obj["metadata"].setdefault("creationTimestamp", now())
        self._controller = start()
        classes = {"provisioner": "disks.example.org", "driver": "disks.example.org", "deletionPolicy": "Delete"}
        self.put(
            "/apis/storage.k8s.io/v1/storageclasses/fast", {"volumeBindingMode": "WaitForFirstConsumer", **classes}
        )
        self.put("/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses/snapshots", classes)
        for name, of_class in (("data", "fast"), ("slow", "slow")):
            self.put(PVC.format(name), claim(name, of_class))
        halted = machine()
        halted["spec"]["runStrategy"] = "Halted"
        del halted["metadata"]["uid"]
        self.put(VM.format("vm"), {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", **halted})

    def put(self, path: str, obj: dict[str, Any]) -> None:
        """Store an object."""
        parts = path.split("/")
        metadata = {
            "name": parts[-1],
            "creationTimestamp": now(),
            **({"namespace": "ns"} if "namespaces" in parts else {}),
        }
        self.api.put(path, {**obj, "metadata": {**obj.get("metadata", {}), **metadata}})

    def another(self) -> None:
        """End virt-controller; another one goes on."""
        self._controller.stop()
        self._controller = self._start()

    def get(self, path: str) -> dict[str, Any]:
        """Return an object."""
        return self.api.objects.get(path) or {}

    def below(self, path: str) -> list[str]:
        """Return the paths of objects."""
        return [each for each in list(self.api.objects) if each.startswith(path)]

    def status(self, path: str) -> dict[str, Any]:
        """Return an object's status."""
        return self.get(path).get("status") or {}

    def ask(self, path: str, kind: str, spec: dict[str, Any], version: str = "snapshot.kubevirt.io/v1beta1") -> None:
        """Create what a user asks for."""
        self.put(path, {"apiVersion": version, "kind": kind, "spec": spec})

    def claims_of_pods(self, name: str) -> list[str]:
        """Return the claims in Pods of a machine."""
        pods = [self.get(path) for path in self.below(f"/api/v1/namespaces/ns/pods/virt-launcher-{name}")]
        volumes = [volume for pod in pods for volume in pod["spec"]["volumes"]]
        return [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]

    def snapshot(self, name: str, *volumes: str) -> None:
        """Make a snapshot of the machine, and be the storage."""
        source = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "vm"}
        self.ask(SNAPSHOT.format(name), "VirtualMachineSnapshot", {"source": source})
        self.take(name, *volumes)

    def take(self, name: str, *volumes: str) -> None:
        """Be the storage for a snapshot that is asked for."""
        path = SNAPSHOT.format(name)
        self.api.wait(lambda: self.status(path).get("virtualMachineSnapshotContentName"))
        self.another()
        uid = self.get(path)["metadata"]["uid"]
        made = [f"{VOLUME_SNAPSHOTS}vmsnapshot-{uid}-volume-{volume}" for volume in volumes or ["data"]]
        self.api.wait(lambda: all(self.get(each) for each in made))
        self.another()
        taken = {"creationTime": "2026-01-01T12:00:00Z", "readyToUse": False}
        for each in made:
            self.api.update(each, {"status": taken})
        content = f"{CONTENTS}vmsnapshot-content-{uid}"
        self.api.wait(lambda: self.status(content).get("creationTime"))
        self.another()
        for each in made:
            self.api.update(each, {"status": {"readyToUse": True, "restoreSize": "1Gi"}})
        self.api.wait(lambda: self.status(path).get("phase") == "Succeeded")

    def restore(self, name: str, target: str, of: str, **spec: Any) -> str:
        """Ask for a restore; its path."""
        reference = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": target}
        spec = {"target": reference, "virtualMachineSnapshotName": of, **spec}
        self.ask(RESTORE.format(name), "VirtualMachineRestore", spec)
        return RESTORE.format(name)


@pytest.fixture
def cluster(api: FakeApi, start: Callable[..., VirtController]) -> Cluster:
    return Cluster(api, start)


def test_a_machine_goes_back_to_what_it_was(cluster: Cluster) -> None:
    cluster.snapshot("s")
    vm = VM.format("vm")
    cluster.api.wait(lambda: not cluster.status(vm).get("snapshotInProgress"))
    cluster.api.update(vm, {"spec": {"template": {"spec": {"domain": {"cpu": {"cores": 8}}}}}})
    path = cluster.restore("r", "vm", "s")
    cluster.api.wait(lambda: cluster.status(path).get("restores"))
    cluster.another()
    (entry,) = cluster.status(path)["restores"]
    cluster.api.wait(lambda: cluster.get(PVC.format(entry["persistentVolumeClaim"])))
    cluster.another()
    cluster.api.wait(lambda: cluster.status(path).get("complete"))
    spec = cluster.get(vm)["spec"]["template"]["spec"]
    assert "cpu" not in spec["domain"]
    claims = [each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if each["name"] == "data"]
    assert claims == [entry["persistentVolumeClaim"]]
    assert "restoreInProgress" not in cluster.status(vm)
    assert cluster.get(vm)["metadata"]["annotations"][LAST_RESTORE].startswith("r-")
    owners = cluster.get(PVC.format(claims[0]))["metadata"]["ownerReferences"]
    assert [each["name"] for each in owners] == ["vm"]
    assert cluster.get(PVC.format("data")), "what it had before stays"


def test_a_machine_that_runs_is_stopped_and_not_started_meanwhile(cluster: Cluster) -> None:
    cluster.snapshot("s")
    vm, vmi = VM.format("vm"), VMI.format("vm")
    cluster.api.update(vm, {"spec": {"runStrategy": "Always"}})
    cluster.api.wait(lambda: cluster.get(vmi))
    waiting = cluster.restore("r", "vm", "s", targetReadinessPolicy="WaitEventually")
    cluster.api.wait(lambda: cluster.status(vm).get("restoreInProgress") == "r")
    cluster.api.wait(lambda: cluster.status(waiting).get("conditions"))
    cluster.another()
    cluster.api.delete(waiting)
    cluster.api.wait(lambda: not cluster.get(waiting))
    assert "restoreInProgress" not in cluster.status(vm)
    assert cluster.get(vmi), "it ran on"

    stopping = cluster.restore("again", "vm", "s", targetReadinessPolicy="StopTarget")
    cluster.api.wait(lambda: cluster.get(vm)["spec"]["runStrategy"] == "Halted")
    cluster.api.update(vmi, {"status": {"phase": "Succeeded"}})
    cluster.api.wait(lambda: cluster.status(stopping).get("complete"))
    assert not cluster.get(vmi)
    later = cluster.restore("late", "vm", "s")
    cluster.api.wait(lambda: cluster.status(later).get("complete"))


def test_a_snapshot_goes_with_what_is_in_it(cluster: Cluster) -> None:
    cluster.snapshot("s")
    cluster.api.delete(SNAPSHOT.format("s"))
    cluster.api.wait(lambda: not cluster.get(SNAPSHOT.format("s")))
    assert not cluster.below(CONTENTS)


def test_a_machine_is_cloned(cluster: Cluster) -> None:
    reference = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine"}
    spec = {"source": {**reference, "name": "vm"}, "target": {**reference, "name": "new"}, "labelFilters": ["!a"]}
    path = CLONE.format("c")
    cluster.ask(path, "VirtualMachineClone", spec, "clone.kubevirt.io/v1beta1")
    cluster.api.wait(lambda: cluster.status(path).get("snapshotName"))
    cluster.another()
    cluster.take(cluster.status(path)["snapshotName"])
    cluster.another()
    cluster.api.wait(lambda: cluster.status(path).get("phase") == "Succeeded")
    new = cluster.get(VM.format("new"))
    assert not new["metadata"].get("labels")
    assert new["spec"]["runStrategy"] == "Halted"
    (name,) = [each["persistentVolumeClaim"]["claimName"] for each in new["spec"]["template"]["spec"]["volumes"][1:2]]
    assert cluster.below(RESTORE.format("")), "the claim waits for what it is filled from"
    cluster.api.update(PVC.format(name), {"status": {"phase": "Bound"}})
    cluster.api.wait(lambda: not cluster.below(SNAPSHOT.format("")) and not cluster.below(RESTORE.format("")))
    assert cluster.get(PVC.format(name))


def test_state_of_a_tpm_goes_back_and_to_copies(cluster: Cluster) -> None:
    """The machine's Pod has the restored claim; the claim of before stays, and isn't its state any more."""
    state = "persistent-state-for-vm"
    default = {"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}
    cluster.api.update("/apis/storage.k8s.io/v1/storageclasses/fast", default)
    vm = VM.format("vm")
    cluster.api.update(vm, {"spec": {"template": {"spec": {"domain": {"devices": {"tpm": {"persistent": True}}}}}}})
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "vm"}
    kept = claim(state, "fast")
    kept["metadata"] |= {
        "labels": {"persistent-state-for": "vm"},
        "ownerReferences": [{**owner, "uid": cluster.get(vm)["metadata"]["uid"]}],
    }
    cluster.put(PVC.format(state), kept)
    cluster.snapshot("s", "data", state)
    assert cluster.status(SNAPSHOT.format("s"))["snapshotVolumes"]["includedVolumes"] == ["data", state]
    path = cluster.restore("r", "vm", "s", volumeOwnershipPolicy="None")
    cluster.api.wait(lambda: cluster.status(path).get("restores"))
    cluster.another()
    cluster.api.wait(lambda: cluster.status(path).get("complete"))
    names = {each["volumeName"]: each["persistentVolumeClaim"] for each in cluster.status(path)["restores"]}
    assert "persistent-state-for" not in cluster.get(PVC.format(state))["metadata"]["labels"]
    restored = cluster.get(PVC.format(names[state]))["metadata"]
    assert restored["labels"]["persistent-state-for"] == "vm"
    assert [each["name"] for each in restored["ownerReferences"]] == ["vm"]
    cluster.another()
    cluster.api.update(vm, {"spec": {"runStrategy": "Always"}})
    cluster.api.wait(lambda: names[state] in cluster.claims_of_pods("vm"))
    assert state not in cluster.claims_of_pods("vm")
    cluster.restore("c", "copy", "s")
    cluster.api.wait(lambda: cluster.status(RESTORE.format("c")).get("complete"))
    copied = {
        each["volumeName"]: each["persistentVolumeClaim"] for each in cluster.status(RESTORE.format("c"))["restores"]
    }
    assert cluster.get(PVC.format(copied[state]))["metadata"]["labels"]["persistent-state-for"] == "copy"
