#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module network_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: network_info
short_description: Read networks for virtual machines and Pods
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind NetworkAttachmentDefinition, one by name or those that match selectors.
  - Long lists are read in pages.
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection
  - turtles.kubevirt.selection.selectors
seealso:
  - module: turtles.kubevirt.network
"""

EXAMPLES = r"""
- name: Read one by name
  turtles.kubevirt.network_info:
    name: storage
    namespace: shop
  register: storage

- name: Show its type
  ansible.builtin.debug:
    msg: "{{ (storage.resources[0].spec.config | from_json).type }}"

- name: Read those of all namespaces
  turtles.kubevirt.network_info:
  register: networks
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: k8s.cni.cncf.io/v1
      kind: NetworkAttachmentDefinition
      metadata: {name: lan, namespace: shop}
      spec: {config: '{"cniVersion": "0.4.0", "name": "lan", "type": "macvlan", "master": "eth1"}'}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [web]
"""

from ..module_utils._info import InfoModule


class NetworkInfo(InfoModule):
    """Objects of kind NetworkAttachmentDefinition."""

    KIND = "NetworkAttachmentDefinition"
    API_VERSION = "k8s.cni.cncf.io/v1"
    ARGUMENTS = InfoModule.SELECTION


MODULE = NetworkInfo
main = MODULE.main


if __name__ == "__main__":
    main()
