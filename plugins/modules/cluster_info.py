#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module cluster_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_info
short_description: Read the version and the API groups of a Kubernetes API server
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns the version of an API server, the API groups it serves with their versions, and the KubeVirt object if
    there is one.
  - For playbooks that choose an API version, or fail early if a cluster can't be reached.
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection.values
seealso:
  - module: turtles.kubevirt.manifest
"""

EXAMPLES = r"""
- name: Read the version of Kubernetes
  turtles.kubevirt.cluster_info:
    kubeconfig: admin.kubeconfig
  register: cluster

- name: Read which versions of snapshots the server has
  turtles.kubevirt.cluster_info:
    kubeconfig: admin.kubeconfig
    query: groups."snapshot.storage.k8s.io"
  register: snapshots

- name: Create a budget in the version that the server has
  turtles.kubevirt.manifest:
    kubeconfig: admin.kubeconfig
    definition:
      apiVersion: "policy/{{ 'v1' if 'v1' in cluster.groups.policy else 'v1beta1' }}"
      kind: PodDisruptionBudget
      metadata:
        name: web
        namespace: shop
      spec:
        maxUnavailable: 1
        selector:
          matchLabels:
            app: web
"""

RETURN = r"""
host:
  description: URL of the API server.
  returned: success
  type: str
  sample: https://192.0.2.10:6443
version:
  description: Version of the API server, as it reports it.
  returned: success
  type: dict
  sample: {major: "1", minor: "31", gitVersion: v1.31.2}
groups:
  description: API groups with their versions, the preferred one first. The core group isn't among them.
  returned: success
  type: dict
  sample: {apps: [v1], policy: [v1]}
kubevirt:
  description:
    - The KubeVirt object, which says how KubeVirt is set up and whether it can be used; if there are several, the
      oldest.
    - Empty if there is none, or if the user isn't allowed to read it.
  returned: success
  type: dict
  sample:
    apiVersion: kubevirt.io/v1
    kind: KubeVirt
    metadata: {name: kubevirt, namespace: kubevirt}
    status: {phase: Deployed, observedKubeVirtVersion: v0.1.0}
query_result:
  description: What O(query) selects of the values above.
  returned: when O(query) is given
  type: raw
  sample: [v1]
"""

from ..module_utils import _installation
from ..module_utils._base import KubeModule
from ..module_utils._jmespath import QUERY_ARGUMENTS, Expression


class ClusterInfo(KubeModule):
    """Version, API groups, KubeVirt object."""

    ARGUMENTS = QUERY_ARGUMENTS

    def run(self):
        # A mistake in it is reported before anything is read.
        query = Expression.of(self.params, "query")
        version = self.client.request("GET", "/version")
        groups = self.client.request("GET", "/apis") or {}
        result = {
            "changed": False,
            "host": self.client.host,
            "version": version or {},
            "groups": {
                group["name"]: [entry["version"] for entry in group.get("versions") or []]
                for group in groups.get("groups") or []
            },
            "kubevirt": _installation.kubevirt(self.client) or {},
        }
        return query.extend(result, "the API server") if query else result


MODULE = ClusterInfo
main = MODULE.main


if __name__ == "__main__":
    main()
