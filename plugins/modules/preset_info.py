#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module preset_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preset_info
short_description: Read presets for virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind VirtualMachineInstancePreset of the KubeVirt API, one by name or those that match selectors.
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
  - module: turtles.kubevirt.preset
"""

EXAMPLES = r"""
- name: Read one by name
  turtles.kubevirt.preset_info:
    name: small
    namespace: shop
  register: small

- name: Read all with a label, in all namespaces
  turtles.kubevirt.preset_info:
    label_selectors:
      - team=shop
  register: flavors

- name: Show their names
  ansible.builtin.debug:
    msg: "{{ flavors.resources | map(attribute='metadata.name') }}"
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: kubevirt.io/v1
      kind: VirtualMachineInstancePreset
      metadata: {name: small, namespace: shop}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [web]
"""

from ..module_utils._info import InfoModule


class PresetInfo(InfoModule):
    """Objects of kind VirtualMachineInstancePreset."""

    KIND = "VirtualMachineInstancePreset"


MODULE = PresetInfo
main = MODULE.main


if __name__ == "__main__":
    main()
