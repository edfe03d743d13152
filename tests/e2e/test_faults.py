# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every component dies at the worst moment: what runs keeps running, what starts arrives."""

from __future__ import annotations

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
