#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module replicaset."""

from __future__ import annotations

DOCUMENTATION = r"""
module: replicaset
short_description: Declare replica sets of virtual machine instances
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates, updates, scales or deletes a VirtualMachineInstanceReplicaSet of the KubeVirt API, which keeps as many
    instances of one template as wanted, and waits until all are ready.
  - The template can be given as a O(template), by high-level options such as O(memory) and O(image), or by both; the
    options win.
  - A change of the template applies to new instances only. Fields that aren't declared stay unchanged on the server.
options:
  state:
    description: Whether the replica set should exist. Its instances go with it.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the replica set. Names of instances begin with it.
    type: str
    required: true
  namespace:
    description: Namespace of the replica set. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  replicas:
    description:
      - How many instances there should be. Leave it out where an autoscaler decides.
      - A new replica set without it has one.
    type: int
  selector:
    description:
      - Which instances belong to the replica set, a label selector with C(matchLabels), C(matchExpressions) or both. It
        replaces the one that the replica set has, and must match the labels of the template.
      - Defaults to O(labels) for a new replica set.
    type: dict
  template:
    description: C(spec.template) of the KubeVirt API, with C(metadata) and C(spec).
    type: dict
  paused:
    description: Whether instances are neither created nor deleted. The task then waits for none of them.
    type: bool
  labels:
    description: Labels of the replica set and of its instances. The inventory plugin groups by them.
    type: dict
  annotations:
    description: Annotations of the replica set and of its instances.
    type: dict
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.machine
  - turtles.kubevirt.machine.cpu
  - turtles.kubevirt.wait
seealso:
  - module: turtles.kubevirt.replicaset_info
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Run three web servers
  turtles.kubevirt.replicaset:
    name: web
    namespace: shop
    replicas: 3
    labels:
      app: web
    image: registry.example.com/web:1.0
    memory: 128Mi

- name: Scale them to five
  turtles.kubevirt.replicaset:
    name: web
    namespace: shop
    replicas: 5

- name: Keep all as it is while something is looked into
  turtles.kubevirt.replicaset:
    name: web
    namespace: shop
    paused: true

- name: Remove them
  turtles.kubevirt.replicaset:
    name: web
    namespace: shop
    state: absent
"""

RETURN = r"""
result:
  description: The replica set as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: kubevirt.io/v1
    kind: VirtualMachineInstanceReplicaSet
    metadata: {name: web, namespace: shop}
    spec: {replicas: 3, selector: {matchLabels: {app: web}}}
    status: {replicas: 3, readyReplicas: 3, labelSelector: app=web}
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 4.871
"""

from ..module_utils import _merge, _shape, _vm_spec
from ..module_utils._replicated import ReplicatedModule
from ..module_utils._values import plain


class ReplicaSet(ReplicatedModule):
    """A VirtualMachineInstanceReplicaSet."""

    KIND = "VirtualMachineInstanceReplicaSet"
    TITLE = "replica set"
    MEMBERS = "instances"
    MEMBER_KIND = "VirtualMachineInstance"
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "replicas": {"type": "int"},
        "selector": {"type": "dict"},
        "template": {"type": "dict"},
        "paused": {"type": "bool"},
        **_vm_spec.MACHINE_ARGUMENTS,
    }
    # A label that the selector doesn't name any more mustn't be left in it.
    EXACT = frozenset(("selector",))

    def declare(self, live):
        declared = _vm_spec.declare(self.params)
        template = _merge.combine(
            plain(self.params["template"]) or {}, (declared.get("spec") or {}).get("template") or {}
        )
        spec = {**self.counted(live, template), "template": template or None}
        declaration = {
            "metadata": declared.get("metadata") or {},
            "spec": {key: value for key, value in spec.items() if value is not None},
        }
        _shape.check_shape("replicaset %s" % self.name, declaration, self.KIND)
        return declaration


MODULE = ReplicaSet
main = MODULE.main


if __name__ == "__main__":
    main()
