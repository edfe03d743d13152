#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module service_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_info
short_description: Read Services
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of kind Service, one by name or those that match selectors.
  - Long lists are read in pages.
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection
  - turtles.kubevirt.selection.selectors
seealso:
  - module: turtles.kubevirt.service
"""

EXAMPLES = r"""
- name: Read one by name
  turtles.kubevirt.service_info:
    name: web
    namespace: shop
  register: web

- name: Show where it is reached inside the cluster
  ansible.builtin.debug:
    msg: "{{ web.resources[0].spec.clusterIP }}"

- name: List the node ports of a namespace
  turtles.kubevirt.service_info:
    namespace: shop
    query: "[?spec.type=='NodePort'].spec.ports[].nodePort"
  register: ports
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: v1
      kind: Service
      metadata: {name: web, namespace: shop}
      spec: {type: ClusterIP, clusterIP: 10.96.40.7, ports: [{port: 80, protocol: TCP, targetPort: 80}]}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [web]
"""

from ..module_utils._info import InfoModule


class ServiceInfo(InfoModule):
    """Objects of kind Service."""

    KIND = "Service"
    API_VERSION = "v1"
    ARGUMENTS = InfoModule.SELECTION


MODULE = ServiceInfo
main = MODULE.main


if __name__ == "__main__":
    main()
