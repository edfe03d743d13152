# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Running guests move between two nodes on one machine."""

from __future__ import annotations

import pytest
from cluster import Cluster
from scenarios import migration, shared
from scenarios.migration import address_of

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
