# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Migrations by the dozen, and with everything that takes part in one dying in the middle of it.

They take long: `make test-migration` runs them, with the number of rounds in TURTLES_MIGRATION_ROUNDS.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from cluster import Cluster, commands
from scenarios.migration import (
    FINAL,
    MIGRATIONS,
    WRITERS,
    address_of,
    begin,
    configure,
    migrated,
    start,
    wait_phase,
)

from engine import condition

ROUNDS = int(os.environ.get("TURTLES_MIGRATION_ROUNDS", "0"))

pytestmark = [
    pytest.mark.usefixtures("second_node"),
    pytest.mark.skipif(not ROUNDS, reason="long: run them with make test-migration"),
]


def qemus(namespace: str, name: str) -> list[int]:
    """Pids of the QEMUs that a machine has."""
    return [pid for pid, command in commands() if f"guest={namespace}_{name}," in command]


def wait_for_one_qemu(namespace: str, name: str) -> None:
    deadline = time.monotonic() + 60
    while len(qemus(namespace, name)) != 1:
        assert time.monotonic() < deadline, f"QEMUs of {name}: {qemus(namespace, name)}"
        time.sleep(0.5)  # processes of others can't be watched


@pytest.fixture
def slowly(cluster: Cluster) -> Iterator[None]:
    """Slow enough for something to happen on the way."""
    configure(cluster, {"bandwidthPerMigration": "2Mi", "completionTimeoutPerGiB": 20})
    yield
    configure(cluster, None)


def test_many_in_a_row(cluster: Cluster, namespace: str) -> None:
    vmi, boot = start(cluster, namespace, "web")
    cluster.ssh(address_of(vmi), WRITERS)
    for number in range(ROUNDS):
        vmi = migrated(cluster, namespace, "web")
        assert cluster.boot_id(address_of(vmi)) == boot, f"round {number}"
    check = "wc -l </root/lines; awk '$1 != NR || $3 != NR {print; exit}' /root/lines | head -n 1"
    wrong = cluster.ssh(address_of(vmi), check).partition("\n")[2]
    assert not wrong
    left = cluster.custom.list_namespaced_custom_object("kubevirt.io", "v1", namespace, MIGRATIONS)["items"]
    assert len(left) <= 6
    check_disk(cluster, namespace)


def check_disk(cluster: Cluster, namespace: str) -> None:
    """The disk that the guest writes to has no errors."""
    (pid,) = cluster.pod_processes(namespace, "web", "--ephemeral-disk-dir")
    disk = "/var/run/kubevirt-ephemeral-disks/disk-data/root/disk.qcow2"
    # A paused guest's QEMU has written what it knows of the disk
    cluster.subresource(namespace, "web", "pause", plural="virtualmachineinstances")
    cluster.wait(
        namespace,
        "virtualmachineinstances",
        "web",
        lambda o: o and condition(o, "Paused").get("status") == "True",
        timeout=30,
        what="condition Paused",
    )
    # the image below it is only there in the Pod
    command = ["nsenter", "--mount", "--target", str(pid), "qemu-img", "check", "--force-share", disk]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    cluster.subresource(namespace, "web", "unpause", plural="virtualmachineinstances")
    assert done.returncode == 0, done.stdout + done.stderr


Kill = Callable[[Cluster, str, str], None]


def agent_of(cluster: Cluster, node: str) -> list[int]:
    found = list(cluster.node_processes(node, "virt-handler"))
    return found or list(cluster.processes("virt-handler"))


def launcher_of(role: str) -> Kill:
    def kill(cluster: Cluster, namespace: str, name: str) -> None:
        vmi = cluster.get(namespace, "virtualmachineinstances", name)
        assert vmi is not None
        pod = cluster.core.read_namespaced_pod(vmi["status"]["migrationState"][f"{role}Pod"], namespace)
        for pid in cluster.processes_of_pod(pod.metadata.uid, "--ephemeral-disk-dir"):
            os.kill(pid, signal.SIGKILL)

    return kill


def handler_of(role: str) -> Kill:
    def kill(cluster: Cluster, namespace: str, name: str) -> None:
        vmi = cluster.get(namespace, "virtualmachineinstances", name)
        assert vmi is not None
        for pid in agent_of(cluster, vmi["status"]["migrationState"][f"{role}Node"]):
            os.kill(pid, signal.SIGKILL)

    return kill


def component(*words: str) -> Kill:
    return lambda cluster, namespace, name: cluster.kill(*words) and None


VICTIMS = {
    "source-launcher": launcher_of("source"),
    "target-launcher": launcher_of("target"),
    "source-handler": handler_of("source"),
    "target-handler": handler_of("target"),
    "virt-controller": component("virt-controller"),
    "apiserver": component("virt-standalone", "apiserver"),
}


@pytest.mark.parametrize("phase", ["Scheduled", "PreparingTarget", "TargetReady", "Running"])
@pytest.mark.parametrize("victim", VICTIMS)
def test_something_dies_in_the_middle(cluster: Cluster, namespace: str, slowly: None, victim: str, phase: str) -> None:
    vmi, boot = start(cluster, namespace, "web")
    cluster.ssh(address_of(vmi), WRITERS)
    name = begin(cluster, namespace, "web")
    # phases are short: a later one will do
    wait_phase(cluster, namespace, name, *_from(phase))
    VICTIMS[victim](cluster, namespace, "web")
    done = wait_phase(cluster, namespace, name, *FINAL, timeout=240)
    wait_for_one_qemu(namespace, "web")
    if victim == "source-launcher" and done["status"]["phase"] == "Failed":
        # its guest died with it, and the machine is started again
        again = cluster.wait_running(namespace, "web", not_uid=vmi["metadata"]["uid"], timeout=120)
        cluster.boot_id(address_of(again))
        return
    after = cluster.wait_running(namespace, "web")
    assert after["metadata"]["uid"] == vmi["metadata"]["uid"]
    assert cluster.boot_id(address_of(after)) == boot
    state = after["status"]["migrationState"]
    assert bool(state.get("failed")) is (done["status"]["phase"] == "Failed")
    check_disk(cluster, namespace)


@pytest.mark.parametrize("phase", ["Pending", "Scheduling", "Scheduled", "PreparingTarget", "TargetReady", "Running"])
def test_one_is_cancelled(cluster: Cluster, namespace: str, phase: str) -> None:
    vmi, boot = start(cluster, namespace, "web")
    cluster.ssh(address_of(vmi), WRITERS)
    settings = {"bandwidthPerMigration": "1Mi", "parallelMigrationsPerCluster": 1}
    configure(cluster, settings)
    try:
        if phase == "Pending":
            # one that takes the only place
            start(cluster, namespace, "other")
            wait_phase(cluster, namespace, begin(cluster, namespace, "other"), "Running")
        name = begin(cluster, namespace, "web")
        wait_phase(cluster, namespace, name, *([phase] if phase == "Pending" else _from(phase)))
        began = time.monotonic()
        cluster.delete(namespace, name, MIGRATIONS)
        cluster.wait_gone(namespace, name, MIGRATIONS)
        assert time.monotonic() - began < cluster.seconds(20)
    finally:
        configure(cluster, None)
    wait_for_one_qemu(namespace, "web")
    after = cluster.wait_running(namespace, "web")
    assert after["status"]["nodeName"] == vmi["status"]["nodeName"]
    assert list(after["status"]["activePods"].values()) == [vmi["status"]["nodeName"]]
    state = after["status"].get("migrationState") or {}
    if state:
        assert (state["completed"], state["failed"], state["abortStatus"]) == (True, True, "Succeeded")
        assert state["endTimestamp"]
    assert cluster.boot_id(address_of(after)) == boot
    check_disk(cluster, namespace)
    # and nothing is left that keeps it from the next one
    assert cluster.boot_id(address_of(migrated(cluster, namespace, "web"))) == boot


def _from(phase: str) -> tuple[str, ...]:
    order = ("Scheduling", "Scheduled", "PreparingTarget", "TargetReady", "Running")
    return (*order[order.index(phase) :], *FINAL)
