#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module vmi_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vmi_info
short_description: Read running virtual machine instances
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind VirtualMachineInstance of the KubeVirt API, one by name or those that match selectors.
  - Long lists are read in pages.
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection
  - turtles.kubevirt.selection.version
  - turtles.kubevirt.selection.selectors
  - turtles.kubevirt.selection.waits
seealso:
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Read one by name
  turtles.kubevirt.vmi_info:
    name: web
    namespace: shop
  register: web

- name: Wait until it runs and its probes succeed
  turtles.kubevirt.vmi_info:
    name: web
    namespace: shop
    wait: true
    wait_timeout: 60

- name: Read all with a label, in all namespaces
  turtles.kubevirt.vmi_info:
    label_selectors:
      - app=web
  register: machines

- name: Show their names
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
      kind: VirtualMachineInstance
      metadata: {name: web, namespace: shop, labels: {app: web}}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [web]
diagnosis:
  description: What is known about the first machine that isn't in the expected state.
  returned: when waiting failed
  type: dict
  sample:
    printable_status: ImagePullBackOff
    phase: Scheduling
    conditions: []
    events: [{object: Pod virt-launcher-web-x7f2p, reason: Failed, message: manifest unknown, count: 3}]
"""

from ..module_utils._machine_info import MachineInfo


class VirtualMachineInstanceInfo(MachineInfo):
    """Objects of kind VirtualMachineInstance."""

    KIND = "VirtualMachineInstance"


MODULE = VirtualMachineInstanceInfo
main = MODULE.main


if __name__ == "__main__":
    main()
