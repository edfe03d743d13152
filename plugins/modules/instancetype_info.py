#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module instancetype_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instancetype_info
short_description: Read instance types
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind VirtualMachineClusterInstancetype or VirtualMachineInstancetype of the KubeVirt
    API, one by name or those that match selectors.
  - Long lists are read in pages.
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.scope.reads
  - turtles.kubevirt.selection.selectors
seealso:
  - module: turtles.kubevirt.instancetype
"""

EXAMPLES = r"""
- name: Read those of the cluster
  turtles.kubevirt.instancetype_info:
  register: found

- name: Show their names
  ansible.builtin.debug:
    msg: "{{ found.resources | map(attribute='metadata.name') }}"

- name: Read one of a namespace by name
  turtles.kubevirt.instancetype_info:
    name: database
    namespace: shop

- name: Read those of all namespaces
  turtles.kubevirt.instancetype_info:
    scope: namespace
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: instancetype.kubevirt.io/v1beta1
      kind: VirtualMachineClusterInstancetype
      metadata: {name: small}
      spec: {cpu: {guest: 1}, memory: {guest: 1Gi}}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [web]
"""

from ..module_utils._scope import ScopedInfoModule


class InstancetypeInfo(ScopedInfoModule):
    """Objects of kind VirtualMachineInstancetype or VirtualMachineClusterInstancetype."""

    KIND = "VirtualMachineInstancetype"
    CLUSTER_KIND = "VirtualMachineClusterInstancetype"


MODULE = InstancetypeInfo
main = MODULE.main


if __name__ == "__main__":
    main()
