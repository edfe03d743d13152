# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nodes are emptied for maintenance, and what they offer virtual machines."""

from __future__ import annotations

import ssl
import urllib.request

import pytest
from deployed import COMPONENTS, NAMESPACE, Deployed
from kubernetes_cluster import Cluster, wait_for
from test_network import address_of, on_node

from engine import condition


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
        cluster.kubectl("drain", drained, *options, "--pod-selector=kubevirt.io=virt-launcher")
        second = cluster.wait_running(namespace, "moves", not_uid=first["metadata"]["uid"], timeout=120)
        assert second["status"]["nodeName"] == other
        assert cluster.ssh(address_of(second), "hostname") == "moves"
        assert cluster.boot_id(address) == boot
    finally:
        cluster.kubectl("uncordon", drained)


DRAIN = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--pod-selector=kubevirt.io=virt-launcher")


def drain_for_a_while(cluster: Deployed, node: str) -> str:
    """What a drain says that doesn't come to its end."""
    said = cluster.kubectl("drain", node, *DRAIN, "--timeout=12s", check=False)
    cluster.kubectl("uncordon", node)
    return said


@pytest.mark.parametrize("strategy", ["LiveMigrate", "External"])
def test_a_drain_is_refused_for_who_must_stay(cluster: Deployed, namespace: str, strategy: str) -> None:
    vm = cluster.virtual_machine("web", binding="bridge")
    vm["spec"]["template"]["spec"]["evictionStrategy"] = strategy
    cluster.create(namespace, vm)
    vmi = cluster.wait_running(namespace, "web")
    migratable = condition(vmi, "LiveMigratable")
    assert (migratable["status"], migratable["reason"]) == ("False", "InterfaceNotLiveMigratable")
    boot = cluster.boot_id(address_of(vmi))
    node = vmi["status"]["nodeName"]
    said = drain_for_a_while(cluster, node)
    assert 'admission webhook "virt-launcher-eviction-interceptor.kubevirt.io" denied the request' in said
    if strategy == "LiveMigrate":
        assert f"VMI {namespace}/web is configured with an eviction strategy but is not live-migratable" in said
        cluster.wait_event(namespace, "web", ["EvictionRefused", "stop it"], timeout=30)
        assert "evacuationNodeName" not in cluster.get(namespace, "virtualmachineinstances", "web")["status"]
    else:
        assert f'Eviction triggered evacuation of VMI "{namespace}/web"' in said
        vmi = cluster.wait(
            namespace,
            "virtualmachineinstances",
            "web",
            lambda o: condition(o or {}, "EvictionRequested").get("status") == "True",
            timeout=60,
            what="condition EvictionRequested",
        )
        assert vmi["status"]["evacuationNodeName"] == node
    assert cluster.boot_id(address_of(vmi)) == boot
    # stopping the machine lets the drain go on
    cluster.subresource(namespace, "web", "stop")
    cluster.wait_stopped(namespace, "web")
    try:
        cluster.kubectl("drain", node, *DRAIN, "--timeout=60s")
    finally:
        cluster.kubectl("uncordon", node)


def test_who_must_stay_stays_without_virt_api(cluster: Deployed, namespace: str) -> None:
    vm = cluster.virtual_machine("web")
    vm["spec"]["template"]["spec"]["evictionStrategy"] = "LiveMigrate"
    cluster.create(namespace, vm)
    vmi = cluster.wait_running(namespace, "web")
    with cluster.without_virt_api():
        said = drain_for_a_while(cluster, vmi["status"]["nodeName"])
    assert "would violate the pod's disruption budget" in said
    assert cluster.wait_running(namespace, "web")["metadata"]["uid"] == vmi["metadata"]["uid"]


def test_the_cluster_s_strategy_counts_where_a_machine_has_none(cluster: Deployed, namespace: str) -> None:
    def choose(strategy: str | None) -> None:
        change = {"spec": {"configuration": {"evictionStrategy": strategy}}}
        cluster.custom.patch_namespaced_custom_object("kubevirt.io", "v1", NAMESPACE, "kubevirts", "kubevirt", change)

    choose("LiveMigrateIfPossible")
    try:
        vm = cluster.virtual_machine("web", binding="bridge")

        def taken_over() -> bool:
            made = {**vm, "kind": "VirtualMachineInstance", "spec": vm["spec"]["template"]["spec"]}
            asked = cluster.custom.create_namespaced_custom_object(
                "kubevirt.io", "v1", namespace, "virtualmachineinstances", made, dry_run="All"
            )
            return bool(asked["spec"]["evictionStrategy"] == "LiveMigrateIfPossible")

        wait_for("virt-api to know the new configuration", taken_over, timeout=60)
        cluster.create(namespace, vm)
        first = cluster.wait_running(namespace, "web")
        assert first["spec"]["evictionStrategy"] == "LiveMigrateIfPossible"
    finally:
        choose(None)
    # it can't be migrated: the guest shuts down and starts elsewhere
    node = first["status"]["nodeName"]
    try:
        cluster.kubectl("drain", node, *DRAIN, "--timeout=240s")
        second = cluster.wait_running(namespace, "web", not_uid=first["metadata"]["uid"], timeout=120)
        assert second["status"]["nodeName"] != node
    finally:
        cluster.kubectl("uncordon", node)


def test_prometheus_finds_the_figures_of_every_component(cluster: Deployed, machines: Cluster) -> None:
    # as its configuration for KubeVirt says: HTTPS, without asking who that is
    anybody = ssl._create_unverified_context()
    addresses = set()
    for _kind, name in COMPONENTS:
        for pod in cluster.component_pods(name):
            ports = [port for container in pod.spec.containers for port in container.ports if port.name == "metrics"]
            url = f"https://{pod.status.pod_ip}:{ports[0].container_port}/metrics"
            with urllib.request.urlopen(url, context=anybody, timeout=30) as answer:
                assert f"kubevirt_{name.replace('-', '_')}_ready_status 1\n" in answer.read().decode()
            addresses.add(pod.status.pod_ip)

    def found() -> bool:
        subsets = cluster.core.read_namespaced_endpoints("kubevirt-prometheus-metrics", NAMESPACE).subsets or []
        return {address.ip for subset in subsets for address in subset.addresses or []} == addresses

    wait_for("the Service of the figures to lead to all of them", found, timeout=60)
