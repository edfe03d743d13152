#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module data_source_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: data_source_info
short_description: Read DataSources, the names of disks that others are copied from
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind DataSource of the Containerized Data Importer, one by name or those that match selectors.
  - Long lists are read in pages.
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection
  - turtles.kubevirt.selection.selectors
seealso:
  - module: turtles.kubevirt.data_source
"""

EXAMPLES = r"""
- name: Read one by name
  turtles.kubevirt.data_source_info:
    name: debian
    namespace: images
  register: debian

- name: Show what it refers to
  ansible.builtin.debug:
    msg: "{{ debian.resources | map(attribute='status.source') }}"
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: cdi.kubevirt.io/v1beta1
      kind: DataSource
      metadata: {name: debian, namespace: images}
      spec: {source: {pvc: {namespace: images, name: debian-13}}}
      status:
        source: {pvc: {namespace: images, name: debian-13}}
        conditions: [{type: Ready, status: "True", reason: Ready}]
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [debian]
"""

from ..module_utils._info import InfoModule


class DataSourceInfo(InfoModule):
    """Objects of kind DataSource."""

    KIND = "DataSource"
    API_VERSION = "cdi.kubevirt.io/v1beta1"
    ARGUMENTS = InfoModule.SELECTION


MODULE = DataSourceInfo
main = MODULE.main


if __name__ == "__main__":
    main()
