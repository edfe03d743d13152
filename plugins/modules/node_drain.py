#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module node_drain."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_drain
short_description: Drain virtual machines from a node, and make it schedulable again
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Cordons a node and evicts the virtual machines on it. The C(evictionStrategy) of each determines whether it migrates
    or its guest is asked to shut down.
  - Makes a node schedulable again.
options:
  name:
    description: Name of the node.
    type: str
    required: true
  state:
    description:
      - V(drained) cordons the node and evicts its virtual machines. Other Pods stay.
      - V(cordoned) only keeps new Pods away from it.
      - V(schedulable) allows new Pods on it again.
    type: str
    choices: [drained, cordoned, schedulable]
    default: drained
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.library
  - turtles.kubevirt.wait
notes:
  - O(wait) waits until no virtual machine runs on the node. One that can't be migrated and isn't to be shut down
    (C(evictionStrategy) LiveMigrate) makes the task fail after O(wait_timeout), with the reason; the others have left.
seealso:
  - module: turtles.kubevirt.migration
  - module: kubernetes.core.k8s_drain
"""

EXAMPLES = r"""
- name: Drain a node
  turtles.kubevirt.node_drain:
    name: rack7-node3
    wait_timeout: 1800
  register: drained

- name: Show where they are now
  ansible.builtin.debug:
    msg: "{{ drained.machines }}"

- name: Take the node back
  turtles.kubevirt.node_drain:
    name: rack7-node3
    state: schedulable
"""

RETURN = r"""
machines:
  description: The virtual machines that were on the node, and where they are now. C(node) of those that ended is empty.
  returned: success
  type: list
  elements: dict
  sample:
    - {namespace: shop, name: web, node: rack8-node1}
duration:
  description: Seconds that the task took.
  returned: success
  type: float
  sample: 12.4
"""

import time

from ..module_utils import _resources
from ..module_utils._base import WAIT_ARGUMENTS, KubeModule, explain_error
from ..module_utils._client import MERGE_PATCH
from ..module_utils._errors import ApiError, KubeError
from ..module_utils._vm_status import FINAL_PHASES, node_of, phase_of

NODE = _resources.known("v1", "Node")
POD = _resources.known("v1", "Pod")
VMI = _resources.known("kubevirt.io/v1", "VirtualMachineInstance")
LAUNCHERS = "kubevirt.io=virt-launcher"
# Seconds between two attempts to evict what was refused, as kubectl has it.
RETRY = 5


class NodeDrain(KubeModule):
    """The virtual machines of one node."""

    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["drained", "cordoned", "schedulable"], "default": "drained"},
        **WAIT_ARGUMENTS,
    }

    def run(self):
        began = time.monotonic()
        self.node = self.params["name"]
        _resources.check_name("name", self.node)
        cordoned, changed = self._cordon(self.params["state"] != "schedulable")
        machines = self._machines() if self.params["state"] == "drained" else []
        if machines and not self.check_mode:
            self.changed = True
            self._leave()
        return {
            "changed": changed or bool(machines),
            "machines": [self._whereabouts(each) for each in machines],
            "duration": round(time.monotonic() - began, 3),
            "diff": {"before": {"unschedulable": cordoned}, "after": {"unschedulable": cordoned != changed}},
        }

    def _cordon(self, wanted):
        """Cordon the node or not; return whether it was cordoned, and whether that has changed."""
        path = _resources.path(NODE, None, self.node)
        node = self.client.get(path)
        if node is None:
            raise KubeError("Node %s doesn't exist. Check name." % self.node)
        cordoned = bool(node["spec"].get("unschedulable"))
        if cordoned == wanted:
            return cordoned, False
        query = {"dryRun": "All"} if self.check_mode else None
        self.client.request("PATCH", path, query, {"spec": {"unschedulable": wanted or None}}, MERGE_PATCH)
        self.changed = self.changed or not self.check_mode
        return cordoned, True

    def _machines(self):
        """Return the instances that run on the node."""
        items, _dummy = self.client.list(_resources.path(VMI))
        return [each for each in items if node_of(each) == self.node and phase_of(each) not in FINAL_PHASES]

    def _leave(self):
        """Evict until no instance is on the node."""
        while True:
            refusals = self._evict()
            left = self._machines()
            if not left or not self.waits:
                return
            if self.deadline.is_over():
                names = ["%s/%s" % (each["metadata"]["namespace"], each["metadata"]["name"]) for each in left]
                raise KubeError(
                    "Node %s wasn't drained within %d seconds (wait_timeout): %s. %s"
                    % (self.node, self.deadline.seconds, ", ".join(names), " ".join(refusals))
                )
            time.sleep(min(RETRY, self.deadline.left()))

    def _evict(self):
        """Evict the launchers that are on the node; return why some stay for now."""
        selector = "spec.nodeName=%s" % self.node
        pods, _dummy = self.client.list(_resources.path(POD), LAUNCHERS, selector)
        refusals = []
        for pod in pods:
            metadata = pod["metadata"]
            if metadata.get("deletionTimestamp") or phase_of(pod) in FINAL_PHASES:
                continue
            body = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            }
            try:
                path = _resources.path(POD, metadata["namespace"], metadata["name"], "eviction")
                self.client.request("POST", path, None, body)
            except ApiError as exc:
                if exc.status == 429:
                    refusals.append(explain_error(exc))
                elif exc.status != 404:
                    where = _resources.name_of(POD, metadata["namespace"], metadata["name"])
                    raise KubeError("%s can't be evicted: %s" % (where, explain_error(exc)), **exc.facts) from exc
        return refusals

    def _whereabouts(self, vmi):
        metadata = vmi["metadata"]
        now = self.client.get(_resources.path(VMI, metadata["namespace"], metadata["name"]))
        return {"namespace": metadata["namespace"], "name": metadata["name"], "node": node_of(now)}


MODULE = NodeDrain
main = MODULE.main


if __name__ == "__main__":
    main()
