#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module vm_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_info
short_description: Read virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Gives objects of kind VirtualMachine of the KubeVirt API, one by name or those that match selectors.
  - Long lists are read in pages.
options:
  name:
    description: Name of the one object to read. An empty list is returned if there is none.
    type: str
  namespace:
    description: Namespace to read from. All if not given, or, with O(name), that of the kubeconfig's context.
    type: str
  label_selectors:
    description: Label selectors that must all match, such as V(app=web), V(tier in (a,b\)) or V(!legacy).
    type: list
    elements: str
    default: []
  field_selectors:
    description: Field selectors that must all match, such as V(metadata.name=web).
    type: list
    elements: str
    default: []
  api_version:
    description: Version of the KubeVirt API.
    type: str
    choices: [kubevirt.io/v1, kubevirt.io/v1alpha3]
    default: kubevirt.io/v1
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.library
attributes:
  check_mode:
    support: full
    details: Never changes anything.
  diff_mode:
    support: none
    details: Never changes anything.
  idempotent:
    support: full
  action_group:
    support: full
seealso:
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: One by name
  turtles.kubevirt.vm_info:
    name: web
    namespace: shop
  register: web

- name: All with a label, in all namespaces
  turtles.kubevirt.vm_info:
    label_selectors:
      - app=web
  register: machines

- name: Their names
  ansible.builtin.debug:
    msg: "{{ machines.resources | map(attribute='metadata.name') }}"
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: kubevirt.io/v1
      kind: VirtualMachine
      metadata: {name: web, namespace: shop, labels: {app: web}}
"""

from ansible_collections.turtles.kubevirt.plugins.module_utils.base import run_module
from ansible_collections.turtles.kubevirt.plugins.module_utils.info import InfoModule


class VirtualMachineInfo(InfoModule):
    """Objects of kind VirtualMachine."""

    KIND = "VirtualMachine"


MODULE = VirtualMachineInfo


def main():
    """Entry point."""
    run_module(VirtualMachineInfo)


if __name__ == "__main__":
    main()
