# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Running guests move between two nodes on one machine."""

from __future__ import annotations

import pytest
from cluster import Cluster
from scenarios import migration, shared
from scenarios.migration import address_of, migratable, migrated

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


def test_a_claim_that_both_nodes_have_comes_along(cluster: Cluster, namespace: str) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "64Mi"}}},
    }
    cluster.core.create_namespaced_persistent_volume_claim(namespace, claim)
    machine = cluster.virtual_machine("web")
    spec = machine["spec"]["template"]["spec"]
    spec["domain"]["devices"]["disks"].append({"name": "data", "disk": {"bus": "virtio"}, "serial": "DATA"})
    spec["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data"}})
    cluster.create(namespace, machine)
    before = migratable(cluster, namespace, "web")
    write = "dd if=/dev/urandom of=/dev/vdc bs=64k count=100 2>/dev/null; sync; md5sum </dev/vdc"
    written = cluster.ssh(address_of(before), write)
    after = migrated(cluster, namespace, "web")
    assert after["status"]["nodeName"] != before["status"]["nodeName"]
    assert cluster.ssh(address_of(after), "echo 3 >/proc/sys/vm/drop_caches; md5sum </dev/vdc") == written
    # and is written to from there
    again = cluster.ssh(address_of(after), write)
    assert cluster.ssh(address_of(migrated(cluster, namespace, "web")), "md5sum </dev/vdc") == again
