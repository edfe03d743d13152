# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything that runs a virtual machine dies at some time: guests don't notice, and are governed again afterwards."""

from __future__ import annotations

import pytest
from deployed import COMPONENTS, Deployed
from kubernetes_cluster import Cluster
from scenarios import faults, shared
from scenarios.faults import survive

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
