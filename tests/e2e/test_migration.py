# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Running guests move between two nodes on one machine."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from typing import Self

import pytest
from cluster import Cluster
from scenarios import migration, shared
from scenarios.migration import FINAL, MIGRATIONS, address_of, begin, migratable

from engine import Object

#: Addresses of this machine and of the guest on a network that both nodes have, and no other test beside this one.
HOST, GUEST = "198.18.0.1", "198.18.0.9"

pytestmark = pytest.mark.usefixtures("second_node")

globals().update(shared(migration))


def test_guests_on_two_nodes_reach_each_other(cluster: Cluster, namespace: str, second_node: str) -> None:
    """With their own addresses, and Pods are reached wherever they are."""
    (first_node,) = {node.metadata.name for node in cluster.core.list_node().items} - {second_node}
    vmis = {}
    for name, node in (("here", first_node), ("there", second_node)):
        machine = cluster.virtual_machine(name)
        machine["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
        cluster.create(namespace, machine)
    for name in ("here", "there"):
        vmis[name] = cluster.wait_running(namespace, name)
    assert vmis["here"]["status"]["nodeName"] != vmis["there"]["status"]["nodeName"]
    here, there = (address_of(vmis[name]) for name in ("here", "there"))
    cluster.ssh(there, "true")
    peers = "netstat -tn | awk '$4 ~ /:2222$/ {print $5}'"
    cluster.ssh(there, "nc -l -p 2222 >/dev/null 2>&1 </dev/null &")
    cluster.ssh(here, f"(sleep 20 | nc {there} 2222) >/dev/null 2>&1 </dev/null &")
    peer = cluster.ssh(there, f"until {peers} | grep -q .; do usleep 100000; done; {peers}")
    assert peer.rpartition(":")[0].removeprefix("::ffff:") == here
    log = cluster.core.read_namespaced_pod_log(
        cluster.launcher(namespace, "there").metadata.name, namespace, container="guest-console-log"
    )
    assert log


@pytest.fixture
def wire(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A network that both nodes have, of the same name: a bridge on which this machine is, too."""
    name = f"tm{uuid.uuid4().hex[:8]}"
    for command in (["link", "add", name, "type", "bridge"], ["addr", "add", f"{HOST}/24", "dev", name]):
        subprocess.run(["ip", *command], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    definition = {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name},
        "spec": {"config": json.dumps({"cniVersion": "0.4.0", "type": "bridge", "bridge": name})},
    }
    plural = "network-attachment-definitions"
    cluster.custom.create_namespaced_custom_object("k8s.cni.cncf.io", "v1", namespace, plural, definition)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


class Session:
    """A shell in a guest, over one SSH connection."""

    def __init__(self, cluster: Cluster, address: str) -> None:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes")
        self._process = subprocess.Popen(
            [
                *("ssh", "-i", str(cluster.key), *(word for option in options for word in ("-o", option))),
                *(f"root@{address}", "exec sh"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # ssh makes it non-blocking, for all who share it: killed, it leaves it so, and Ansible refuses that.
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, command: str) -> str:
        """The first line that a command writes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


def test_a_session_and_a_claim_come_along(cluster: Cluster, namespace: str, wire: str) -> None:
    """An SSH session over a network that both nodes have stays open, and sees the same data on a shared claim."""
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "64Mi"}}},
    }
    cluster.core.create_namespaced_persistent_volume_claim(namespace, claim)
    machine = cluster.virtual_machine("web")
    spec = machine["spec"]["template"]["spec"]
    spec["domain"]["devices"]["disks"].append({"name": "data", "disk": {"bus": "virtio"}, "serial": "DATA"})
    spec["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data"}})
    spec["domain"]["devices"]["interfaces"].append({"name": "lan", "bridge": {}})
    spec["networks"].append({"name": "lan", "multus": {"networkName": wire}})
    cluster.create(namespace, machine)
    before = migratable(cluster, namespace, "web")
    cluster.ssh(address_of(before), f"ip addr add {GUEST}/24 dev eth1; ip link set eth1 up")
    write = "dd if=/dev/urandom of=/dev/vdc bs=64k count=100 2>/dev/null; sync; md5sum </dev/vdc"
    read = "echo 3 >/proc/sys/vm/drop_caches; md5sum </dev/vdc"
    with Session(cluster, GUEST) as session:
        shell, written = session.run("echo $$"), session.run(write)
        for _way in range(2):  # there and back
            name = begin(cluster, namespace, "web")
            count = 0
            while (found := cluster.get(namespace, MIGRATIONS, name)) and phase_of(found) not in FINAL:
                count += 1
                assert session.run(f"echo {count}") == str(count)
            assert count > 3
            assert phase_of(found or {}) == "Succeeded"
            assert session.run("echo $$") == shell
            assert session.run(read) == written
            written = session.run(write)
    after = cluster.get(namespace, "virtualmachineinstances", "web")
    assert after is not None
    assert [each["mac"] for each in after["status"]["interfaces"]] == [
        each["mac"] for each in before["status"]["interfaces"]
    ]


def phase_of(obj: Object) -> str:
    return obj.get("status", {}).get("phase", "")
