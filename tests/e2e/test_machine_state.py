# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a machine keeps beside its disks, here its TPM: rolled back, copied and backed up along with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster import Cluster
from scenarios.snapshots import firmware, make, restore, snapshot, wait
from scenarios.volumes import attach

from playbooks import playbook


def kept(cluster: Cluster, namespace: str, vm: str) -> Path:
    """The folder of the volume where the Pod of a running machine keeps its state."""
    volumes = cluster.launcher(namespace, vm).spec.volumes
    claim = next(each.persistent_volume_claim.claim_name for each in volumes if each.name == "vm-state")
    return folder(cluster, namespace, claim)


def folder(cluster: Cluster, namespace: str, claim: str) -> Path:
    """The folder of a claim's volume."""
    bound = cluster.core.read_namespaced_persistent_volume_claim(claim, namespace)
    volume = cluster.core.read_persistent_volume(bound.spec.volume_name).spec
    return Path((volume.host_path or volume.local).path)


def check(cluster: Cluster, namespace: str, vm: str, word: str, **options: Any) -> None:
    """A machine runs, and its TPM is the one beside which the word was written."""
    cluster.wait_running(namespace, vm, timeout=180, **options)
    found = kept(cluster, namespace, vm)
    assert (found / "marker").read_text() == word
    (tpm,) = (found / "swtpm").iterdir()
    assert tpm.name == firmware(cluster.get(namespace, "virtualmachines", vm) or {})["uuid"]
    assert list(tpm.rglob("tpm2-00.permall"))


def test_a_tpm_goes_with_the_disks(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    cluster.claim(namespace, "data", "16Mi")
    vm = cluster.virtual_machine("kept", grace_period=0)
    attach(vm, "data", {"persistentVolumeClaim": {"claimName": "data"}}, {"disk": {"bus": "virtio"}})
    # Nobody says where it is kept: the default StorageClass it is
    vm["spec"]["template"]["spec"]["domain"]["devices"]["tpm"] = {"persistent": True}
    cluster.create(namespace, vm)
    first = cluster.wait_running(namespace, "kept", timeout=180)
    before = kept(cluster, namespace, "kept")
    (before / "marker").write_text("first")
    made = snapshot(cluster, namespace, "before", "kept")
    assert made["status"]["snapshotVolumes"]["includedVolumes"] == ["data", "persistent-state-for-kept"]
    assert "PartialSnapshot" not in made["status"]["indications"]
    (before / "marker").write_text("later")

    # Backed up while it is what it was later, and made again as another machine
    options = {"kubeconfig": str(cluster.kubeconfig)}
    backup = {**options, "backup_namespace": namespace, "backup_vms": "kept", "backup_dest": str(tmp_path / "backups")}
    done = playbook("turtles.kubevirt.backup", "-e", json.dumps(backup), folder=tmp_path)
    assert "without root, seed" in done.stdout
    (place,) = (tmp_path / "backups" / namespace / "kept").iterdir()
    assert (place / "persistent-state-for-kept.tar.gz").exists()
    again = {**options, "restore_from": str(place), "restore_name": "other", "restore_state": "running"}
    playbook("turtles.kubevirt.restore", "-e", json.dumps(again), folder=tmp_path)
    check(cluster, namespace, "other", "later")
    assert firmware(cluster.get(namespace, "virtualmachines", "other") or {}) != firmware(
        cluster.get(namespace, "virtualmachines", "kept") or {}
    )
    cluster.delete(namespace, "other")

    # Rolled back; virt-controller dies on the way
    restore(cluster, namespace, "back", "kept", "before", targetReadinessPolicy="StopTarget")
    wait(cluster, namespace, "virtualmachinerestores", "back", lambda o: o["status"].get("restores"))
    cluster.kill("virt-controller")
    wait(cluster, namespace, "virtualmachinerestores", "back", lambda o: o["status"].get("complete"), timeout=120)
    cluster.subresource(namespace, "kept", "start")
    check(cluster, namespace, "kept", "first", not_uid=first["metadata"]["uid"])
    assert (before / "marker").read_text() == "later", "what it had before stays"

    # Copied
    target = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "copy"}
    clone = {"plural": "virtualmachineclones", "name": "copied", "group": "clone.kubevirt.io"}
    spec = {"source": {**target, "name": "kept"}, "target": target}
    make(cluster, namespace, kind="VirtualMachineClone", spec=spec, **clone)
    wait(cluster, namespace, done=lambda o: o["status"].get("phase") == "Succeeded", timeout=120, **clone)
    cluster.subresource(namespace, "copy", "start")
    check(cluster, namespace, "copy", "first")
    # All of its claims go with a machine
    cluster.delete(namespace, "copy")
    cluster.wait_gone(namespace, "copy")
