# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter workload_cluster_node_patches."""

from __future__ import annotations

DOCUMENTATION = r"""
name: workload_cluster_node_patches
short_description: Compare the nodes of a workload cluster with their declared labels and taints
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns what the role C(turtles.kubevirt.workload_cluster) changes of its nodes. Labels and taints that it hasn't
    set are left alone, and those that it has set are removed once they are no longer declared.
positional: _input, planned
options:
  _input:
    description: Node objects of the workload cluster.
    type: list
    elements: dict
    required: true
  planned:
    description: What the filter P(turtles.kubevirt.workload_cluster_plan#filter) returned.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what is to be changed
  ansible.builtin.debug:
    msg: "{{ nodes.resources | turtles.kubevirt.workload_cluster_node_patches(planned) }}"
"""

RETURN = r"""
_value:
  description: Merge patches, by the name of the node; nothing of nodes that are as declared.
  type: dict
"""

from ..plugin_utils import _workload_cluster


def workload_cluster_node_patches(nodes, planned):
    """Return the patches."""
    return _workload_cluster.node_patches(planned, nodes)


class FilterModule:
    """The filter."""

    def filters(self):
        """Return it by name."""
        return {"workload_cluster_node_patches": workload_cluster_node_patches}
