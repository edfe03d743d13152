# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Machines that are backed up as files, lost, and made again."""

from __future__ import annotations

import gzip
import json
import stat
from pathlib import Path

import pytest
from cluster import Cluster
from scenarios.snapshots import marker, serves_snapshots
from scenarios.volumes import address_of, attach

from playbooks import playbook, recap

WRITE = "echo {} | dd of=/dev/vdc conv=fsync 2>/dev/null"


def test_a_machine_comes_back(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    if not serves_snapshots(cluster):
        pytest.skip("there is no class for snapshots of volumes")
    cluster.claim(namespace, "data", "16Mi")
    vm = cluster.virtual_machine("kept", grace_period=0)
    attach(vm, "data", {"persistentVolumeClaim": {"claimName": "data"}}, {"disk": {"bus": "virtio"}})
    cluster.create(namespace, vm)
    first = cluster.wait_running(namespace, "kept", timeout=120)
    dest = tmp_path / "backups"
    options = ("-e", json.dumps({"kubeconfig": str(cluster.kubeconfig), "backup_namespace": namespace,
                                 "backup_dest": str(dest), "backup_keep": 1}))  # fmt: skip
    for word in ("first", "later"):
        cluster.ssh(address_of(first), WRITE.format(word))
        done = playbook("turtles.kubevirt.backup", *options, folder=tmp_path)
        assert "without root, seed" in done.stdout
    # The machine still runs, nothing is left in the API, and one backup is kept
    vmi = cluster.get(namespace, "virtualmachineinstances", "kept")
    assert vmi is not None
    assert vmi["metadata"]["uid"] == first["metadata"]["uid"]
    left = cluster.custom.list_namespaced_custom_object("export.kubevirt.io", "v1", namespace, "virtualmachineexports")[
        "items"
    ]
    assert all(each["metadata"].get("deletionTimestamp") for each in left)
    (backup,) = (dest / namespace / "kept").iterdir()
    assert {each.name: stat.S_IMODE(each.stat().st_mode) for each in backup.iterdir()} == dict.fromkeys(
        ("SHA256SUMS", "backup.json", "data.img.gz", "manifest.json"), 0o600
    )
    about = json.loads((backup / "backup.json").read_text())
    assert (about["machine"], about["excluded"]) == ("kept", ["root", "seed"])
    assert gzip.decompress((backup / "data.img.gz").read_bytes())[:5] == b"later"
    assert about["disks"][0]["disk_bytes"] == len(gzip.decompress((backup / "data.img.gz").read_bytes()))

    # Beside the machine, as another one
    base = {"kubeconfig": str(cluster.kubeconfig), "restore_from": str(backup), "restore_state": "running"}
    refused = playbook("turtles.kubevirt.restore", "-e", json.dumps(base), folder=tmp_path, check=False)
    assert refused.returncode != 0
    assert "VirtualMachine kept, PersistentVolumeClaim data" in refused.stdout
    copied = json.dumps({**base, "restore_name": "copy"})
    playbook("turtles.kubevirt.restore", "-e", copied, folder=tmp_path)
    assert marker(cluster, namespace, "copy") == "later"
    again = playbook("turtles.kubevirt.restore", "-e", copied, folder=tmp_path)
    assert recap(again.stdout)["changed"] == 0
    # In its place
    cluster.delete(namespace, "kept")
    cluster.wait_gone(namespace, "kept")
    cluster.core.delete_namespaced_persistent_volume_claim("data", namespace)
    playbook("turtles.kubevirt.restore", "-e", json.dumps(base), folder=tmp_path)
    assert marker(cluster, namespace, "kept", not_uid=first["metadata"]["uid"]) == "later"
    # What was changed is not restored
    with (backup / "data.img.gz").open("ab") as file:
        file.write(b"x")
    broken = json.dumps({**base, "restore_name": "third"})
    refused = playbook("turtles.kubevirt.restore", "-e", broken, folder=tmp_path, check=False)
    assert "data.img.gz: FAILED" in refused.stdout
    assert cluster.get(namespace, "virtualmachines", "third") is None
