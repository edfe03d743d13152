# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Snapshots and restores by the dozen, of a guest that writes, with the controllers dying in the middle of some.

They take long: `make test-snapshots` runs them, with the number of rounds in TURTLES_SNAPSHOT_ROUNDS.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from scenarios.guests import agent_image
from scenarios.snapshots import make, restore, snapshot, wait
from scenarios.volumes import address_of, attach

from engine import condition

__all__ = ["agent_image"]

ROUNDS = int(os.environ.get("TURTLES_SNAPSHOT_ROUNDS", "0"))

pytestmark = pytest.mark.skipif(not ROUNDS, reason="long: run them with make test-snapshots")

MOUNT = "mkdir -p /data && mount /dev/vdc /data"
WRITER = "nohup sh -c 'while :; do date >>/data/lines; sync /data/lines; done' >/dev/null 2>&1 &"


def running(cluster: Cluster, namespace: str, not_uid: str = "") -> dict[str, Any]:
    """The instance, once its agent is connected."""
    vmi = cluster.wait_running(namespace, "web", timeout=240, not_uid=not_uid)
    found = cluster.wait(
        namespace,
        "virtualmachineinstances",
        "web",
        lambda o: o and condition(o, "AgentConnected"),
        timeout=240,
        what="agent",
    )
    assert found is not None
    return vmi


def check(cluster: Cluster, made: dict[str, Any]) -> None:
    """A snapshot's copy has a file system without errors."""
    content = made["status"]["virtualMachineSnapshotContentName"]
    (backup,) = cluster.custom.get_namespaced_custom_object(
        "snapshot.kubevirt.io",
        "v1beta1",
        made["metadata"]["namespace"],
        "virtualmachinesnapshotcontents",
        content,
    )["spec"]["volumeBackups"]
    storage = ("snapshot.storage.k8s.io", "v1")
    volume_snapshot = cluster.custom.get_namespaced_custom_object(
        *storage, made["metadata"]["namespace"], "volumesnapshots", backup["volumeSnapshotName"]
    )
    bound = volume_snapshot["status"]["boundVolumeSnapshotContentName"]
    handle = cluster.custom.get_cluster_custom_object(*storage, "volumesnapshotcontents", bound)["status"]
    disk = Path(f"/var/lib/{cluster.instance}/volumes/snapshots/{handle['snapshotHandle']}/disk.img")
    done = subprocess.run(["e2fsck", "-fn", str(disk)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_many_in_a_row(cluster: Cluster, namespace: str, agent_image: str) -> None:
    cluster.claim(namespace, "data", "32Mi")
    vm = cluster.virtual_machine("web", image=agent_image, memory="128Mi", grace_period=0)
    attach(vm, "data", {"persistentVolumeClaim": {"claimName": "data"}}, {"disk": {"bus": "virtio"}})
    cluster.create(namespace, vm)
    vmi = running(cluster, namespace)
    made = cluster.ssh(address_of(vmi), f"mke2fs -F /dev/vdc >/dev/null && {MOUNT} && echo mounted", timeout=180)
    assert made == "mounted"
    for number in range(ROUNDS):
        address = address_of(vmi)
        cluster.ssh(address, f"echo {number} >/data/round; sync; {WRITER}", timeout=180)
        if number % 2:
            source = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "web"}
            spec = {"source": source}
            make(cluster, namespace, "virtualmachinesnapshots", "VirtualMachineSnapshot", f"s{number}", spec)
            cluster.kill("virt-controller", "--kubeconfig")
            taken = wait(
                cluster, namespace, "virtualmachinesnapshots", f"s{number}", lambda o: o["status"].get("readyToUse")
            )
        else:
            taken = snapshot(cluster, namespace, f"s{number}", "web")
        assert "GuestAgent" in taken["status"]["indications"]
        check(cluster, taken)
        cluster.ssh(address, "echo later >/data/round; sync", timeout=60)

        restore(cluster, namespace, f"r{number}", "web", f"s{number}", targetReadinessPolicy="StopTarget")
        if number % 2:
            cluster.kill("controller-manager", "--kubeconfig")
            cluster.kill("virt-controller", "--kubeconfig")
        wait(cluster, namespace, "virtualmachinerestores", f"r{number}", lambda o: o["status"].get("complete"))
        cluster.wait_stopped(namespace, "web")
        cluster.subresource(namespace, "web", "start")
        vmi = running(cluster, namespace, not_uid=vmi["metadata"]["uid"])
        assert cluster.ssh(address_of(vmi), f"{MOUNT} && cat /data/round", timeout=180).strip() == str(number)
    assert not list(Path(f"/var/lib/{cluster.instance}/volumes").glob(".partial-*"))
