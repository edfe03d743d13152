# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter workload_cluster_drain_obstacles."""

from __future__ import annotations

DOCUMENTATION = r"""
name: workload_cluster_drain_obstacles
short_description: Find the budgets that keep nodes of a workload cluster from being drained
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns why the machines that the role C(turtles.kubevirt.workload_cluster) would remove can't be drained.
options:
  _input:
    description: What the filter P(turtles.kubevirt.workload_cluster_plan#filter) returned.
    type: dict
    required: true
  pods:
    description: All Pods of the workload cluster.
    type: list
    elements: dict
    required: true
  budgets:
    description: All PodDisruptionBudgets of the workload cluster.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what keeps the machines from being drained
  ansible.builtin.debug:
    msg: >-
      {{ planned | turtles.kubevirt.workload_cluster_drain_obstacles(
           pods=pods.resources, budgets=budgets.resources) }}
"""

RETURN = r"""
_value:
  description: A sentence for each budget that is in the way.
  type: list
  elements: str
"""

from ..plugin_utils import _workload_cluster


def workload_cluster_drain_obstacles(planned, pods, budgets):
    """Return the reasons."""
    return _workload_cluster.drain_obstacles(planned, pods, budgets)


class FilterModule:
    """The filter."""

    def filters(self):
        """Return it by name."""
        return {"workload_cluster_drain_obstacles": workload_cluster_drain_obstacles}
