# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything that runs a virtual machine dies at some time: guests don't notice, and are governed again afterwards."""

from __future__ import annotations

import pytest
from deployed import COMPONENTS, NAMESPACE, Deployed
from kubernetes import client
from kubernetes_cluster import Cluster, wait_for
from scenarios import faults, shared
from scenarios.faults import survive
from user import User

globals().update(shared(faults))

NAMES = [name for _kind, name in COMPONENTS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("machines")
def test_processes_of_a_component_are_killed(cluster: Deployed, namespace: str, name: str) -> None:
    survive(cluster, namespace, lambda: cluster.kill_component(name))


@pytest.mark.parametrize("name", NAMES)
def test_pods_of_a_component_are_deleted(cluster: Deployed, namespace: str, name: str) -> None:
    before = cluster.component_pods(name)

    def delete() -> None:
        for pod in before:
            cluster.core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0)

    survive(cluster, namespace, delete)
    cluster.wait_component(name, {pod.metadata.uid for pod in before})


@pytest.mark.parametrize("agent", ["kubelet", "containerd"])
def test_an_agent_of_kubernetes_is_killed(cluster: Deployed, machines: Cluster, namespace: str, agent: str) -> None:
    def kill() -> None:
        for node in machines.nodes:
            node.machine.kill(agent)
            getattr(node.agents, f"start_{agent}")()

    survive(cluster, namespace, kill)


def test_the_api_server_is_away_for_a_while(cluster: Deployed, machines: Cluster, namespace: str) -> None:
    survive(cluster, namespace, lambda: machines.interrupt_api_server(seconds=20))


def test_a_replica_of_virt_api_leaves_and_nobody_notices(cluster: Deployed, user: User) -> None:
    before = cluster.component_pods("virt-api")
    assert len(before) == 2
    wait_for("requests to begin", lambda: user.done > 5, timeout=60)
    for pod in before:
        # as a drain does it: the next one only goes when the first is replaced
        name = pod.metadata.name
        wait_for(f"budget to allow {name}'s eviction", lambda name=name: evicted(cluster, name), timeout=120)
    cluster.wait_component("virt-api", {pod.metadata.uid for pod in before})
    done = user.done
    wait_for("requests to the new replicas", lambda: user.done > done + 50, timeout=120)
    assert user.failures == []


def evicted(cluster: Deployed, name: str) -> bool:
    """Whether a Pod of the engine goes; its disruption budget may say: not now."""
    try:
        cluster.core.create_namespaced_pod_eviction(name, NAMESPACE, {"metadata": {"name": name}})
    except client.ApiException as error:
        if error.status == 429 and "disruption budget" in str(error.body):
            return False
        raise
    return True


def test_another_virt_controller_leads_when_the_leader_is_gone(cluster: Deployed, namespace: str) -> None:
    def leader() -> str:
        lease = client.CoordinationV1Api(cluster.core.api_client).read_namespaced_lease("virt-controller", NAMESPACE)
        return str(lease.spec.holder_identity or "")

    names = {pod.metadata.name for pod in cluster.component_pods("virt-controller")}
    first = leader()
    assert len(names) == 2
    assert first in names
    cluster.core.delete_namespaced_pod(first, NAMESPACE, grace_period_seconds=0)
    wait_for("another leader", lambda: leader() not in ("", first), timeout=60)
    cluster.create(namespace, cluster.virtual_machine("web"))
    cluster.wait_running(namespace, "web")
    cluster.wait_component("virt-controller")
