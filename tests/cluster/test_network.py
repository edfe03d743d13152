# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests, Pods and Services of several nodes reach each other."""

from __future__ import annotations

import subprocess

import pytest
from deployed import Deployed
from kubernetes_cluster import Cluster


def address_of(vmi: dict) -> str:
    return str(vmi["status"]["interfaces"][0]["ipAddress"])


def on_node(cluster: Deployed, name: str, node: str, **options: object) -> dict:
    """A VirtualMachine for one node."""
    vm = cluster.virtual_machine(name, **options)
    vm["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
    return vm


@pytest.mark.parametrize("binding", ["masquerade", "bridge"])
def test_a_guest_answers_pods_of_all_nodes_at_its_address_and_through_a_service(
    cluster: Deployed, machines: Cluster, namespace: str, binding: str
) -> None:
    cluster.create(namespace, cluster.virtual_machine("web", binding=binding, labels={"app": "web"}))
    service = cluster.core.create_namespaced_service(
        namespace,
        {
            "metadata": {"name": "web"},
            "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 2222, "targetPort": 22}]},
        },
    )
    address = address_of(cluster.wait_running(namespace, "web"))
    for node in machines.nodes:
        pod = cluster.start_pod(namespace, f"client-{node.name}", node.name)
        assert cluster.greeting(pod, address).startswith("SSH-2.0-")
        assert cluster.greeting(pod, service.spec.cluster_ip, 2222).startswith("SSH-2.0-")
        assert cluster.greeting(pod, node.address, service.spec.ports[0].node_port).startswith("SSH-2.0-")
        # and from this machine, which is none of the cluster's
        said = subprocess.run(
            ["bash", "-c", f"exec 3<>/dev/tcp/{node.address}/{service.spec.ports[0].node_port}; head -n 1 <&3"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert said.stdout.startswith("SSH-2.0-")


@pytest.mark.parametrize("binding", ["masquerade", "bridge"])
def test_guests_of_two_nodes_reach_each_other(
    cluster: Deployed, machines: Cluster, namespace: str, binding: str
) -> None:
    names = [node.name for node in machines.nodes]
    for node in names:
        cluster.create(namespace, on_node(cluster, f"on-{node}", node, binding=binding))
    vmis = {node: cluster.wait_running(namespace, f"on-{node}") for node in names}
    assert {node: vmi["status"]["nodeName"] for node, vmi in vmis.items()} == {node: node for node in names}
    addresses = {node: address_of(vmi) for node, vmi in vmis.items()}
    for node in names:
        cluster.ssh(addresses[node], "true")
    for here, there in (names[:2], names[1::-1]):
        said = cluster.ssh(addresses[here], f"nc {addresses[there]} 22 </dev/null | head -c 20")
        assert said.startswith("SSH-2.0")


def test_a_guest_reaches_a_service(cluster: Deployed, machines: Cluster, namespace: str) -> None:
    """That of the API server, which every cluster has."""
    cluster.create(namespace, cluster.virtual_machine("web"))
    address = address_of(cluster.wait_running(namespace, "web"))
    service = cluster.core.read_namespaced_service("kubernetes", "default").spec.cluster_ip
    assert cluster.ssh(address, f"nc -w 5 {service} 443 </dev/null && echo open") == "open"
