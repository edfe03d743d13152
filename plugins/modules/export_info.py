#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module export_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: export_info
short_description: Read exports of disks
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind VirtualMachineExport of the KubeVirt API, one by name or those that match selectors.
  - Long lists are read in pages.
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection
  - turtles.kubevirt.selection.selectors
seealso:
  - module: turtles.kubevirt.export
"""

EXAMPLES = r"""
- name: Read one by name
  turtles.kubevirt.export_info:
    name: db
    namespace: shop
  register: found

- name: Read all of a namespace
  turtles.kubevirt.export_info:
    namespace: shop
  register: exports

- name: Show those that can be downloaded
  ansible.builtin.debug:
    msg: >-
      {{ exports.resources | selectattr('status.phase', 'equalto', 'Ready')
      | map(attribute='metadata.name') }}
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: export.kubevirt.io/v1
      kind: VirtualMachineExport
      metadata: {name: db, namespace: shop}
      spec: {source: {apiGroup: kubevirt.io, kind: VirtualMachine, name: db}}
      status: {phase: Ready, tokenSecretRef: export-token-db, ttlExpirationTime: "2026-01-01T14:00:00Z"}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [db]
"""

from ..module_utils import _exports
from ..module_utils._info import InfoModule


class ExportInfo(InfoModule):
    """Objects of kind VirtualMachineExport."""

    KIND = _exports.KIND
    ARGUMENTS = InfoModule.SELECTION

    def resource(self):
        return _exports.resource_of(self.client)


MODULE = ExportInfo
main = MODULE.main


if __name__ == "__main__":
    main()
