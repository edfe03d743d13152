#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module snapshot_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_info
short_description: Read snapshots of virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind VirtualMachineSnapshot of the KubeVirt API, one by name or those that match selectors.
  - Long lists are read in pages.
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection
  - turtles.kubevirt.selection.selectors
seealso:
  - module: turtles.kubevirt.snapshot
"""

EXAMPLES = r"""
- name: Read one by name
  turtles.kubevirt.snapshot_info:
    name: before-upgrade
    namespace: shop
  register: found

- name: Read all of a namespace
  turtles.kubevirt.snapshot_info:
    namespace: shop
  register: snapshots

- name: Show those that a machine has
  ansible.builtin.debug:
    msg: >-
      {{ snapshots.resources | selectattr('spec.source.name', 'equalto', 'db')
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
      kind: VirtualMachineSnapshot
      metadata: {name: before-upgrade, namespace: shop}
      spec: {source: {apiGroup: kubevirt.io, kind: VirtualMachine, name: db}}
      status: {phase: Succeeded, readyToUse: true}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [before-upgrade]
"""

from ..module_utils._info import InfoModule


class SnapshotInfo(InfoModule):
    """Objects of kind VirtualMachineSnapshot."""

    KIND = "VirtualMachineSnapshot"
    API_VERSION = "snapshot.kubevirt.io/v1beta1"
    ARGUMENTS = InfoModule.SELECTION


MODULE = SnapshotInfo
main = MODULE.main


if __name__ == "__main__":
    main()
