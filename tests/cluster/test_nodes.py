# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nodes are emptied for maintenance, and what they offer virtual machines."""

from __future__ import annotations

import subprocess

from deployed import Deployed
from kubernetes_cluster import Cluster
from test_network import address_of, on_node


def kubectl(cluster: Deployed, *words: str) -> None:
    command = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nodes_offer_devices_and_say_what_they_can(cluster: Deployed) -> None:
    for node in cluster.core.list_node().items:
        assert node.metadata.labels["kubevirt.io/schedulable"] == "true", node.metadata.name
        assert any(label.startswith("machine-type.node.kubevirt.io/") for label in node.metadata.labels)
        assert any(label.startswith("cpu-vendor.node.kubevirt.io/") for label in node.metadata.labels)
        assert "kubevirt.io/heartbeat" in node.metadata.annotations
        # kvm and vhost-net are offered where they work, which is seldom in a virtual machine
        assert node.status.allocatable["devices.kubevirt.io/tun"] not in ("", "0")


def test_draining_a_node_moves_its_machines(cluster: Deployed, machines: Cluster, namespace: str) -> None:
    drained, other = (node.name for node in machines.nodes)
    vm = cluster.virtual_machine("moves")
    preference = {"key": "kubernetes.io/hostname", "operator": "In", "values": [drained]}
    vm["spec"]["template"]["spec"]["affinity"] = {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 100, "preference": {"matchExpressions": [preference]}}
            ]
        }
    }
    cluster.create(namespace, vm)
    cluster.create(namespace, on_node(cluster, "stays", other))
    first = cluster.wait_running(namespace, "moves")
    assert first["status"]["nodeName"] == drained
    address = address_of(cluster.wait_running(namespace, "stays"))
    boot = cluster.boot_id(address)
    try:
        # --force: Kubernetes doesn't know the kind of controller that launcher Pods have
        options = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=240s")
        kubectl(cluster, "drain", drained, *options, "--pod-selector=kubevirt.io=virt-launcher")
        second = cluster.wait_running(namespace, "moves", not_uid=first["metadata"]["uid"], timeout=120)
        assert second["status"]["nodeName"] == other
        assert cluster.ssh(address_of(second), "hostname") == "moves"
        assert cluster.boot_id(address) == boot
    finally:
        kubectl(cluster, "uncordon", drained)
