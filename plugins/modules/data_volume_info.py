#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module data_volume_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: data_volume_info
short_description: Read DataVolumes and the progress of their imports
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind DataVolume of the Containerized Data Importer, one by name or those that match selectors.
  - Long lists are read in pages.
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection
  - turtles.kubevirt.selection.selectors
seealso:
  - module: turtles.kubevirt.data_volume
"""

EXAMPLES = r"""
- name: Read one by name
  turtles.kubevirt.data_volume_info:
    name: web-root
    namespace: shop
  register: root

- name: Read all with a label, in all namespaces
  turtles.kubevirt.data_volume_info:
    label_selectors:
      - team=shop
  register: disks

- name: Show which aren't complete
  ansible.builtin.debug:
    msg: "{{ disks.resources | rejectattr('status.phase', 'equalto', 'Succeeded') | map(attribute='metadata.name') }}"
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: cdi.kubevirt.io/v1beta1
      kind: DataVolume
      metadata: {name: web-root, namespace: shop}
      status: {claimName: web-root, phase: ImportInProgress, progress: 43.21%, restartCount: 0}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [web-root]
"""

from ..module_utils._info import InfoModule


class DataVolumeInfo(InfoModule):
    """Objects of kind DataVolume."""

    KIND = "DataVolume"
    API_VERSION = "cdi.kubevirt.io/v1beta1"
    ARGUMENTS = InfoModule.SELECTION


MODULE = DataVolumeInfo
main = MODULE.main


if __name__ == "__main__":
    main()
