#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module pool_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pool_info
short_description: Read pools of virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind VirtualMachinePool of the KubeVirt API, one by name or those that match
    selectors.
  - Long lists are read in pages.
options:
  api_version:
    description: Version of the API.
    type: str
    choices: [pool.kubevirt.io/v1beta1, pool.kubevirt.io/v1alpha1]
    default: pool.kubevirt.io/v1beta1
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection
  - turtles.kubevirt.selection.selectors
seealso:
  - module: turtles.kubevirt.pool
"""

EXAMPLES = r"""
- name: Read one by name
  turtles.kubevirt.pool_info:
    name: web
    namespace: shop
  register: web

- name: Read all with a label, in all namespaces
  turtles.kubevirt.pool_info:
    label_selectors:
      - team=shop
  register: pools

- name: Show their names
  ansible.builtin.debug:
    msg: "{{ pools.resources | map(attribute='metadata.name') }}"
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: pool.kubevirt.io/v1beta1
      kind: VirtualMachinePool
      metadata: {name: web, namespace: shop}
      status: {replicas: 3, readyReplicas: 3, labelSelector: app=web}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [web]
"""

from ..module_utils._info import InfoModule


class PoolInfo(InfoModule):
    """Objects of kind VirtualMachinePool."""

    KIND = "VirtualMachinePool"
    ARGUMENTS = {
        **InfoModule.ARGUMENTS,
        "api_version": {
            "type": "str",
            "choices": ["pool.kubevirt.io/v1beta1", "pool.kubevirt.io/v1alpha1"],
            "default": "pool.kubevirt.io/v1beta1",
        },
    }


MODULE = PoolInfo
main = MODULE.main


if __name__ == "__main__":
    main()
