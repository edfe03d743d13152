#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module restore_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_info
short_description: Read restores of virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind VirtualMachineRestore of the KubeVirt API, one by name or those that match selectors.
  - Long lists are read in pages.
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection
  - turtles.kubevirt.selection.selectors
seealso:
  - module: turtles.kubevirt.restore
"""

EXAMPLES = r"""
- name: Read one by name
  turtles.kubevirt.restore_info:
    name: back
    namespace: shop
  register: found

- name: Read all of a namespace
  turtles.kubevirt.restore_info:
    namespace: shop
  register: restores

- name: Show those that are not complete
  ansible.builtin.debug:
    msg: >-
      {{ restores.resources | rejectattr('status.complete', 'equalto', true)
      | map(attribute='metadata.name') }}
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: snapshot.kubevirt.io/v1beta1
      kind: VirtualMachineRestore
      metadata: {name: back, namespace: shop}
      spec: {virtualMachineSnapshotName: before-upgrade}
      status: {complete: true}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [back]
"""

from ..module_utils._info import InfoModule


class RestoreInfo(InfoModule):
    """Objects of kind VirtualMachineRestore."""

    KIND = "VirtualMachineRestore"
    API_VERSION = "snapshot.kubevirt.io/v1beta1"
    ARGUMENTS = InfoModule.SELECTION


MODULE = RestoreInfo
main = MODULE.main


if __name__ == "__main__":
    main()
