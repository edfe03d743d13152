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
  - A change of the template counts for new instances only. What isn't declared stays as it is on the server.
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
      - Which instances count, a label selector with C(matchLabels), C(matchExpressions) or both. It replaces the one
        that the replica set has, and must match the labels of the template.
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

from ..module_utils import _diagnosis, _merge, _resources, _shape, _vm_spec, _wait
from ..module_utils._base import ResourceModule, run_module
from ..module_utils._client import KubeError
from ..module_utils._values import plain

SHOWN = 3


class ReplicaSet(ResourceModule):
    """A VirtualMachineInstanceReplicaSet."""

    KIND = "VirtualMachineInstanceReplicaSet"
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
        if self.params["replicas"] is not None and self.params["replicas"] < 0:
            raise KubeError("replicas: %d is negative; give a number, or 0 for none" % self.params["replicas"])
        declared = _vm_spec.declare(self.params)
        template = _merge.combine(
            plain(self.params["template"]) or {}, (declared.get("spec") or {}).get("template") or {}
        )
        spec = {
            "replicas": self.params["replicas"],
            "paused": self.params["paused"],
            "selector": self._selector(live, template),
            "template": template or None,
        }
        declaration = {
            "metadata": declared.get("metadata") or {},
            "spec": {key: value for key, value in spec.items() if value is not None},
        }
        _shape.check_shape("replicaset %s" % self.name, declaration, self.KIND)
        return declaration

    def _selector(self, live, template):
        selector = plain(self.params["selector"])
        if selector is not None or live is not None:
            return selector
        labels = (template.get("metadata") or {}).get("labels")
        if not labels:
            raise KubeError("labels: missing for a new replica set. Give labels by which it knows its instances.")
        return {"matchLabels": labels}

    def is_ready(self, obj):
        if obj is None:
            return False
        status, wanted = obj.get("status") or {}, _wanted(obj)
        if obj["spec"].get("paused"):
            return _wait.is_true(obj, "ReplicaPaused")
        return status.get("replicas") == wanted and status.get("readyReplicas") == wanted

    def explain(self, obj):
        status = (obj or {}).get("status") or {}
        said = []
        if obj:
            said.append("%d of %d instances are ready" % (status.get("readyReplicas") or 0, _wanted(obj)))
        failure = _wait.condition(obj or {}, "ReplicaFailure")
        if failure.get("message"):
            said.append("%s: %s" % (failure.get("reason"), failure["message"]))
        return said + self._troubles(status.get("labelSelector")), {}

    def _troubles(self, selector):
        """Return what the first few instances that aren't ready say."""
        instance = _resources.known(self.API_VERSION, "VirtualMachineInstance")
        found = selector and _diagnosis.quietly(
            lambda: self.client.list(_resources.path(instance, self.namespace), selector)[0]
        )
        unready = [vmi for vmi in found or () if not _wait.is_true(vmi, "Ready")]
        return [
            "%s: %s" % (_resources.label(vmi), sentence)
            for vmi in unready[:SHOWN]
            for sentence in _diagnosis.bad_conditions(vmi)
        ]


def _wanted(obj):
    replicas = obj["spec"].get("replicas")
    return 1 if replicas is None else replicas


MODULE = ReplicaSet


def main():
    """Entry point."""
    run_module(ReplicaSet)


if __name__ == "__main__":
    main()
