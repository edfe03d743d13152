#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module clone_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: clone_info
short_description: Read clones of virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind VirtualMachineClone of the KubeVirt API, one by name or those that match selectors.
  - Long lists are read in pages.
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection
  - turtles.kubevirt.selection.selectors
seealso:
  - module: turtles.kubevirt.clone
"""

EXAMPLES = r"""
- name: Read one by name
  turtles.kubevirt.clone_info:
    name: db-for-test
    namespace: shop
  register: found

- name: Read all of a namespace
  turtles.kubevirt.clone_info:
    namespace: shop
  register: clones

- name: Show those that failed
  ansible.builtin.debug:
    msg: >-
      {{ clones.resources | selectattr('status.phase', 'equalto', 'Failed')
      | map(attribute='metadata.name') }}
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: clone.kubevirt.io/v1beta1
      kind: VirtualMachineClone
      metadata: {name: db-for-test, namespace: shop}
      spec: {source: {apiGroup: kubevirt.io, kind: VirtualMachine, name: db}}
      status: {phase: Succeeded, targetName: db-test}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [db-for-test]
"""

from ..module_utils._info import InfoModule


class CloneInfo(InfoModule):
    """Objects of kind VirtualMachineClone."""

    KIND = "VirtualMachineClone"
    API_VERSION = "clone.kubevirt.io/v1beta1"
    ARGUMENTS = InfoModule.SELECTION


MODULE = CloneInfo
main = MODULE.main


if __name__ == "__main__":
    main()
