#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module migration."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration
short_description: Migrate running virtual machines to other nodes, live
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Migrates the running instance of a virtual machine to another node of the cluster, without a noticeable
    interruption, with a VirtualMachineInstanceMigration.
  - Can also cancel a migration in progress.
options:
  state:
    description:
      - V(migrated) migrates the machine, away from the node that it is on. A migration that is already under way is the
        one that is waited for.
      - V(cancelled) cancels the current migration; the guest keeps running on its node.
    type: str
    choices: [migrated, cancelled]
    default: migrated
  vm:
    description: Name of the VirtualMachine, or of an instance without one.
    type: str
    required: true
  namespace:
    description: Namespace of the machine. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  from_node:
    description: Name of the node to leave. A machine on another node stays there, and nothing is changed.
    type: str
  node:
    description: Name of the node to go to. A machine that is there already stays there, and nothing is changed.
    type: str
  node_selector:
    description: Labels that the target node must have, in addition to those that the machine requires.
    type: dict
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.library
  - turtles.kubevirt.wait
notes:
  - Without O(from_node) and O(node), each run migrates the machine once more, as each restart restarts it.
  - O(wait) waits until the guest runs at its target. If the migration fails, the task fails; the guest keeps
    running where it is.
  - Users need the role C(kubevirt.io:migrate).
seealso:
  - module: turtles.kubevirt.migration_info
"""

EXAMPLES = r"""
- name: Migrate a machine to another node
  turtles.kubevirt.migration:
    vm: web
    namespace: shop

- name: Make sure that a machine isn't on a node
  turtles.kubevirt.migration:
    vm: web
    namespace: shop
    from_node: rack7-node3
    wait_timeout: 600

- name: Move a machine to a node
  turtles.kubevirt.migration:
    vm: web
    namespace: shop
    node: rack8-node1

- name: Cancel what is under way
  turtles.kubevirt.migration:
    vm: web
    namespace: shop
    state: cancelled
"""

RETURN = r"""
migration:
  description: The VirtualMachineInstanceMigration; empty if there was nothing to do.
  returned: success
  type: dict
  sample:
    apiVersion: kubevirt.io/v1
    kind: VirtualMachineInstanceMigration
    metadata: {name: web-x7k2p, namespace: shop}
    spec: {vmiName: web}
    status:
      phase: Succeeded
      migrationState:
        sourceNode: rack7-node3
        targetNode: rack8-node1
        startTimestamp: "2026-01-01T12:00:00Z"
        endTimestamp: "2026-01-01T12:00:03Z"
        completed: true
node:
  description: Name of the node that the machine is on afterwards; without O(wait), at this moment.
  returned: success
  type: str
  sample: rack8-node1
duration:
  description: Seconds that the task took.
  returned: success
  type: float
  sample: 3.2
"""

import time

from ..module_utils import _diagnosis, _resources
from ..module_utils._base import WAIT_ARGUMENTS, KubeModule, explain_error
from ..module_utils._errors import ApiError, KubeError
from ..module_utils._vm_status import FINAL_PHASES, node_of, phase_of
from ..module_utils._wait import reasons

VMI = _resources.known("kubevirt.io/v1", "VirtualMachineInstance")
MIGRATION = _resources.known("kubevirt.io/v1", "VirtualMachineInstanceMigration")
HOSTNAME = "kubernetes.io/hostname"
# A label of the Pod that a guest moves to: the migration's uid.
JOB = "kubevirt.io/migrationJobUID"


class Migration(KubeModule):
    """The migration of one machine."""

    ARGUMENTS = {
        "state": {"type": "str", "choices": ["migrated", "cancelled"], "default": "migrated"},
        "vm": {"type": "str", "required": True},
        "namespace": {"type": "str"},
        "from_node": {"type": "str"},
        "node": {"type": "str"},
        "node_selector": {"type": "dict"},
        **WAIT_ARGUMENTS,
    }

    def run(self):
        began = time.monotonic()
        self.machine = self.params["vm"]
        _resources.check_name("vm", self.machine)
        self.namespace = self.namespace_given()
        active = self._active()
        changed, migration = self._cancel(active) if self.params["state"] == "cancelled" else self._migrate(active)
        vmi = self._instance()
        return {
            "changed": changed,
            "migration": migration or {},
            "node": node_of(vmi),
            "duration": round(time.monotonic() - began, 3),
        }

    def _instance(self):
        return self.client.get(_resources.path(VMI, self.namespace, self.machine))

    def _active(self):
        """Return the migration of the machine that is under way; None if there is none."""
        items, _dummy = self.client.list(_resources.path(MIGRATION, self.namespace))
        for each in items:
            if each["spec"].get("vmiName") == self.machine and phase_of(each) not in FINAL_PHASES:
                return each
        return None

    def _migrate(self, active):
        vmi = self._instance()
        if vmi is None:
            raise KubeError(
                "%s doesn't exist: only a running machine can be migrated. Start it (state=running of vm), "
                "or check vm and namespace." % _resources.name_of(VMI, self.namespace, self.machine)
            )
        wanted, left = self.params["node"], self.params["from_node"]
        if active is None and ((wanted and node_of(vmi) == wanted) or (left and node_of(vmi) != left)):
            return False, None
        migration = active or self._create()
        if self.waits:
            migration = self._ended(migration)
        return active is None, migration

    def _create(self):
        selector = dict(self.params["node_selector"] or {})
        if self.params["node"]:
            selector[HOSTNAME] = self.params["node"]
        body = {
            "apiVersion": MIGRATION.api_version,
            "kind": MIGRATION.kind,
            "metadata": {"generateName": "%s-" % self.machine[:50].rstrip("-."), "namespace": self.namespace},
            "spec": {"vmiName": self.machine, **({"addedNodeSelector": selector} if selector else {})},
        }
        query = {"dryRun": "All"} if self.check_mode else None
        try:
            made = self.client.request("POST", _resources.path(MIGRATION, self.namespace), query, body)
        except ApiError as exc:
            where = _resources.name_of(VMI, self.namespace, self.machine)
            raise KubeError("%s can't be migrated: %s" % (where, explain_error(exc)), **exc.facts) from exc
        self.changed = not self.check_mode
        return made

    def _ended(self, migration):
        """Return a migration when it has succeeded."""

        def explain(obj):
            state = ((obj or {}).get("status") or {}).get("migrationState") or {}
            troubles = [state["failureReason"]] if state.get("failureReason") else reasons(obj)
            troubles = ["Its phase is %s" % (phase_of(obj) or "Pending"), *self._target_troubles(obj), *troubles]
            return troubles, {"migration": obj or {}}

        name = migration["metadata"]["name"]
        done = self.wait_until(
            MIGRATION,
            self.namespace,
            name,
            lambda obj: obj is None or phase_of(obj) == "Succeeded",
            "successful",
            lambda obj: {"it failed": 0} if phase_of(obj) == "Failed" else {},
            explain,
        )
        if done is None:
            where = _resources.name_of(MIGRATION, self.namespace, name)
            raise KubeError("%s was cancelled: somebody deleted it. The guest keeps running on its node." % where)
        return done

    def _target_troubles(self, migration):
        """Return what keeps the Pod from running that the guest is to move to, such as a lack of nodes for it."""
        selector = "%s=%s" % (JOB, ((migration or {}).get("metadata") or {}).get("uid"))
        pods = _diagnosis.quietly(
            lambda: self.client.list(_resources.path(_diagnosis.POD, self.namespace), label_selector=selector)[0]
        )
        return [sentence for pod in pods or () for sentence in _diagnosis.pod_troubles(pod)]

    def _cancel(self, active):
        if active is None:
            return False, None
        if not self.check_mode:
            self.delete(MIGRATION, self.namespace, active["metadata"]["name"])
            if self.waits:
                self.wait_until(
                    MIGRATION, self.namespace, active["metadata"]["name"], lambda obj: obj is None, "cancelled"
                )
        return True, active


MODULE = Migration
main = MODULE.main


if __name__ == "__main__":
    main()
