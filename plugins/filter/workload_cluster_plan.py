# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter workload_cluster_plan."""

from __future__ import annotations

DOCUMENTATION = r"""
name: workload_cluster_plan
short_description: Check the declaration of a workload cluster, and list its machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns what the role C(turtles.kubevirt.workload_cluster) makes of its variables, and fails with the variable, its
    value and what to give instead if one of them can't be. It only computes.
options:
  _input:
    description:
      - The role's variables without their prefix, C(name), C(version), C(image), C(pod_cidr), C(service_cidr),
        C(control_plane) and C(workers), and the C(public_key) that the guests' user root is to have.
    type: dict
    required: true
  existing:
    description: Names of the cluster's machines that exist.
    type: list
    elements: str
    default: []
  recorded:
    description: Version of Kubernetes that the cluster has, if there is one.
    type: str
  available:
    description: Version of the programs in the folder, if there is one.
    type: str
  used:
    description: Addresses that the ranges of Pods and Services must leave alone.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show the machines of a cluster
  ansible.builtin.debug:
    msg: "{{ (cluster | turtles.kubevirt.workload_cluster_plan).machines | map(attribute='name') }}"
  vars:
    cluster:
      name: dev
      version: 1.33.2
      image: registry.example.com/images/node:1
      public_key: ssh-ed25519 AAAA
      pod_cidr: 172.20.0.0/16
      service_cidr: 172.21.0.0/16
      workers:
        count: 2
"""

RETURN = r"""
_value:
  description:
    - C(machines), a list as the module M(turtles.kubevirt.fleet) takes it; C(control_plane) and C(workers), their
      names; C(new), the names of those that don't exist; and C(surplus), the names of those that exist and are no
      longer declared.
    - C(version), without C(v); C(config_api), the version of kubeadm's configuration; C(cri_socket); and C(ranges).
  type: dict
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import _workload_cluster


def workload_cluster_plan(declaration, **observed):
    """Return the plan, with errors as Ansible shows them."""
    try:
        return _workload_cluster.plan(declaration, **observed)
    except _workload_cluster.DeclarationError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """The filter."""

    def filters(self):
        """Return it by name."""
        return {"workload_cluster_plan": workload_cluster_plan}
