#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module migration_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_info
short_description: Read live migrations of virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind VirtualMachineInstanceMigration of the KubeVirt API, one by name or those that match
    selectors.
  - Long lists are read in pages.
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection
  - turtles.kubevirt.selection.version
  - turtles.kubevirt.selection.selectors
seealso:
  - module: turtles.kubevirt.migration
"""

EXAMPLES = r"""
- name: Read the migrations of a machine
  turtles.kubevirt.migration_info:
    namespace: shop
    label_selectors:
      - kubevirt.io/vmi-name=web
  register: web

- name: Read which ones failed, and why
  turtles.kubevirt.migration_info:
    query: "[?status.phase=='Failed'].{vm: spec.vmiName, reason: status.migrationState.failureReason}"
  register: failed
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: kubevirt.io/v1
      kind: VirtualMachineInstanceMigration
      metadata: {name: web-x7k2p, namespace: shop}
      spec: {vmiName: web}
      status:
        phase: Running
        migrationState:
          sourceNode: rack7-node3
          targetNode: rack8-node1
          transferStatus: {dataTotalBytes: 4294967296, dataRemainingBytes: 1073741824}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: []
"""

from ..module_utils._info import InfoModule


class MigrationInfo(InfoModule):
    """Objects of kind VirtualMachineInstanceMigration."""

    KIND = "VirtualMachineInstanceMigration"


MODULE = MigrationInfo
main = MODULE.main


if __name__ == "__main__":
    main()
