# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every component dies at the worst moment: what runs keeps running, what starts arrives."""

from __future__ import annotations

import os
import signal

import pytest
from cluster import Cluster
from scenarios import faults, shared
from scenarios.faults import survive

globals().update(shared(faults))

COMPONENTS = [
    ("virt-controller",),
    ("virt-handler",),
    ("virt-api",),
    ("virt-standalone", "apiserver"),
    ("virt-standalone", "podrunner"),
    ("virt-standalone", "controller-manager"),
]


@pytest.mark.parametrize("component", COMPONENTS, ids=" ".join)
def test_kill_while_a_vm_runs_and_while_one_starts(
    cluster: Cluster, namespace: str, component: tuple[str, ...]
) -> None:
    survive(cluster, namespace, lambda: cluster.kill(*component))


def test_the_agent_dies_before_it_delivers_the_vmi(cluster: Cluster, namespace: str) -> None:
    """The launcher waits for it, and the next agent delivers it."""
    (agent,) = cluster.processes("virt-handler")
    os.kill(agent, signal.SIGSTOP)
    try:
        cluster.create(namespace, cluster.virtual_machine("web"))
        cluster.wait(
            namespace,
            "virtualmachineinstances",
            "web",
            lambda o: o and o.get("status", {}).get("phase") == "Scheduled",
            timeout=30,
            what="phase Scheduled",
        )
        (launcher,) = cluster.pod_processes(namespace, "web", "--ephemeral-disk-dir")
    finally:
        os.kill(agent, signal.SIGKILL)
    vmi = cluster.wait_running(namespace, "web")
    assert cluster.pod_processes(namespace, "web", "--ephemeral-disk-dir") == [launcher]
    assert cluster.ssh(vmi["status"]["interfaces"][0]["ipAddress"], "hostname") == "web"
