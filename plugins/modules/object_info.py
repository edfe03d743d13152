#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module object_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: object_info
short_description: Read objects of any kind, and wait for conditions
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Returns objects of a kind that the Kubernetes API serves, one by name or those that match selectors.
  - Can wait until one of them meets a condition. It watches rather than polls.
  - Long lists are read in pages.
options:
  api_version:
    description: Group and version of the kind, such as V(v1), V(apps/v1) or V(kubevirt.io/v1).
    type: str
    required: true
  kind:
    description: Kind of the objects, such as V(Pod).
    type: str
    required: true
  wait_for:
    description:
      - JMESPath expression that has to be true for the object of O(name), which need not exist yet, such as
        V(status.phase == 'Succeeded') or V(status.loadBalancer.ingress). Empty strings, lists and mappings are false,
        as everywhere in JMESPath.
      - Needs the Python package C(jmespath).
    type: str
  wait_timeout:
    description: Seconds after which waiting fails. The error says why.
    type: int
    default: 300
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.reads
  - turtles.kubevirt.library
  - turtles.kubevirt.selection
  - turtles.kubevirt.selection.selectors
notes:
  - Secrets are returned as they are; C(no_log) keeps their values off the screen.
seealso:
  - module: turtles.kubevirt.manifest
"""

EXAMPLES = r"""
- name: Read where launchers run
  turtles.kubevirt.object_info:
    api_version: v1
    kind: Pod
    namespace: shop
    label_selectors:
      - kubevirt.io=virt-launcher
    query: "[].{pod: metadata.name, node: spec.nodeName}"
  register: launchers

- name: Show it
  ansible.builtin.debug:
    msg: "{{ launchers.query_result }}"

- name: Wait until a claim is bound
  turtles.kubevirt.object_info:
    api_version: v1
    kind: PersistentVolumeClaim
    name: database
    namespace: shop
    wait_for: status.phase == 'Bound'
    wait_timeout: 60
"""

RETURN = r"""
resources:
  description: The objects found.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: v1
      kind: Pod
      metadata: {name: virt-launcher-web-x7k2p, namespace: shop}
query_result:
  description: What O(query) selects of the objects.
  returned: when O(query) is given
  type: raw
  sample: [{pod: virt-launcher-web-x7k2p, node: node1}]
"""

from ..module_utils import _resources
from ..module_utils._info import InfoModule
from ..module_utils._jmespath import Expression


class ObjectInfo(InfoModule):
    """Objects of any kind."""

    ARGUMENTS = {
        **InfoModule.ARGUMENTS,
        "api_version": {"type": "str", "required": True},
        "kind": {"type": "str", "required": True},
        "wait_for": {"type": "str"},
        "wait_timeout": {"type": "int", "default": 300},
    }
    RULES = {"required_by": {"wait_for": ["name"]}}

    def resource(self):
        return _resources.find(self.client, self.params["api_version"], self.params["kind"])

    def _read(self, resource):
        condition = Expression.of(self.params, "wait_for")
        if condition is None or self.check_mode:
            return super()._read(resource)
        name, namespace = self.params["name"], None
        _resources.check_name("name", name)
        if resource.namespaced:
            namespace = self.namespace_given()
        where = _resources.name_of(resource, namespace, name)

        def holds(obj):
            return obj is not None and bool(condition.search(obj, where))

        goal = "what wait_for asks for (%s)" % condition.text
        return [self.wait_until(resource, namespace, name, holds, goal)]


MODULE = ObjectInfo
main = MODULE.main


if __name__ == "__main__":
    main()
