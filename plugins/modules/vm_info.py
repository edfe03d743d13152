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
  - Returns objects of kind VirtualMachine of the KubeVirt API, one by name or those that match selectors.
  - Long lists are read in pages.
options:
  running:
    description:
      - What O(wait) waits for. V(false) is machines whose guests have stopped; V(true) and without it, machines whose
        guests run and are ready.
      - Needs O(wait=true).
    type: bool
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
  turtles.kubevirt.vm_info:
    name: web
    namespace: shop
  register: web

- name: Wait until it runs and its probes succeed
  turtles.kubevirt.vm_info:
    name: web
    namespace: shop
    wait: true
    wait_timeout: 60

- name: Wait until all machines of a namespace have stopped
  turtles.kubevirt.vm_info:
    namespace: shop
    running: false
    wait: true

- name: Read all with a label, in all namespaces
  turtles.kubevirt.vm_info:
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
      kind: VirtualMachine
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

from ..module_utils import _vm_status
from ..module_utils._errors import KubeError
from ..module_utils._machine_info import MachineInfo


class VirtualMachineInfo(MachineInfo):
    """Objects of kind VirtualMachine."""

    KIND = "VirtualMachine"
    ARGUMENTS = {**MachineInfo.ARGUMENTS, "running": {"type": "bool"}}

    def run(self):
        self.stopped = self.params["running"] is False
        if self.params["running"] is not None and not self.params["wait"]:
            raise KubeError("running: has no effect without waiting. Set wait=true, or leave it out.")
        self.GOAL = "stopped" if self.stopped else "ready"
        return super().run()

    def is_there(self, obj):
        return _vm_status.is_stopped(obj) if self.stopped else super().is_there(obj)

    def hopeless(self, obj):
        return {} if self.stopped else _vm_status.hopeless(obj)


MODULE = VirtualMachineInfo
main = MODULE.main


if __name__ == "__main__":
    main()
