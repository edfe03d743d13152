#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module kubevirt."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubevirt
short_description: Configure KubeVirt and wait until it is available
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Declares the KubeVirt object, which holds the configuration of an installation, and waits until KubeVirt is
    available in the version that is being deployed. If it doesn't become available, the error says which component
    is missing and why, as far as its Pods and events tell.
  - Can also delete the object. It refuses to while there are virtual machines, unless O(remove_workloads) is set, and
    if the cluster's KubeVirt is in another namespace.
  - Works with this collection's engine and with upstream KubeVirt.
options:
  state:
    description: Whether the object should exist.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the KubeVirt object.
    type: str
    default: kubevirt
  namespace:
    description: Namespace of KubeVirt's components.
    type: str
    default: kubevirt
  spec:
    description: The object's spec, or parts of it. Fields that aren't mentioned stay unchanged on the server.
    type: dict
    default: {}
  apply:
    description:
      - Whether the server applies O(spec), instead of this module patching what differs.
      - The server remembers what was declared, and removes what is no longer declared. What others have set stays if it
        isn't declared, and is taken over if it is.
    type: bool
    default: false
  wait_for:
    description:
      - What O(wait) waits for with O(state=present).
      - V(rollout) waits before the object is declared, until the existing Deployments run as declared. V(available)
        also waits afterwards, until everything runs and the object reports that it is available.
      - O(wait_timeout) counts from the last time a component or node got the version that is being deployed.
    type: str
    choices: [available, rollout]
    default: available
  components:
    description:
      - Names of components, such as C(virt-handler), that O(wait_for=rollout) waits for. Defaults to all Deployments.
      - If a DaemonSet is only missing on nodes that aren't Ready, the module waits no longer than O(wait_timeout), then
        warns about these nodes and continues.
    type: list
    elements: str
    default: []
  remove_workloads:
    description: With O(state=absent), delete all virtual machines first.
    type: bool
    default: false
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.wait
seealso:
  - module: turtles.kubevirt.manifest
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Allow virtual machines without hardware support, and four virtual CPUs per CPU of the node
  turtles.kubevirt.kubevirt:
    spec:
      configuration:
        developerConfiguration:
          useEmulation: true
          cpuAllocationRatio: 4

- name: Wait until KubeVirt is available
  turtles.kubevirt.kubevirt:
    wait_timeout: 600

- name: Remove the installation and all its virtual machines
  turtles.kubevirt.kubevirt:
    state: absent
    remove_workloads: true
"""

RETURN = r"""
result:
  description: The KubeVirt object as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: kubevirt.io/v1
    kind: KubeVirt
    metadata: {name: kubevirt, namespace: kubevirt}
    status: {phase: Deployed, observedKubeVirtVersion: v0.1.0}
diagnosis:
  description: What is known about why it isn't available.
  returned: when waiting failed
  type: list
  elements: str
  sample:
    - "DaemonSet virt-handler: available on 0 of 2 nodes"
    - "Pod virt-handler-x2k4p: container virt-handler is waiting (ImagePullBackOff): manifest unknown"
"""

from ..module_utils import _installation, _resources, _server_side, _shape, _wait
from ..module_utils._base import Outcome
from ..module_utils._client import MERGE_PATCH
from ..module_utils._errors import KubeError
from ..module_utils._resource_module import ResourceModule
from ..module_utils._values import plain

SHOWN = 5
BOTH = (_installation.DEPLOYMENT, _installation.DAEMONSET)


class KubeVirt(ResourceModule):
    """The KubeVirt object."""

    KIND = "KubeVirt"
    DESCRIBED = False
    READY = "available"
    ARGUMENTS = {
        "name": {"type": "str", "default": "kubevirt"},
        "namespace": {"type": "str", "default": "kubevirt"},
        "spec": {"type": "dict", "default": {}},
        "apply": {"type": "bool", "default": False},
        "wait_for": {"type": "str", "choices": ["available", "rollout"], "default": "available"},
        "components": {"type": "list", "elements": "str", "default": []},
        "remove_workloads": {"type": "bool", "default": False},
    }

    def declare(self, live):
        declaration = {"spec": plain(self.params["spec"])}
        _shape.check_shape("option spec", declaration, self.KIND)
        return declaration

    def is_ready(self, obj):
        return _installation.is_available(obj)

    def explain(self, obj):
        diagnosis = _installation.diagnose(self.client, self.namespace, self.name)
        return diagnosis, {"diagnosis": diagnosis}

    # -- present ----------------------------------------------------------------------------------------------------

    def present(self):
        if self.waits:
            # Admission of the object is the Deployments'; DaemonSets may be the next to be declared
            components = self.params["components"]
            self._wait_for_rollout(BOTH if components else (_installation.DEPLOYMENT,), components)
        outcome = self._apply()
        if not self.waits or self.params["wait_for"] == "rollout":
            return outcome
        self._wait_for_rollout(BOTH)
        return outcome._replace(after=self.until(self.is_ready, self.READY))

    def _apply(self):
        if self.params["apply"]:
            declared = self.declared(None)
            return self.apply_server_side(*self.where, declared, _server_side.FIELD_MANAGER, force=True)
        return self.apply(*self.where, self.declared)

    def _wait_for_rollout(self, kinds, components=()):
        try:
            _installation.wait_for_rollout(self.client, self.namespace, self.deadline.left(), kinds, components)
        except _wait.GaveUp as exc:
            lost = _installation.lost_nodes(self.client, self.namespace, exc.obj) if components and exc.obj else []
            if not lost:
                where = _resources.name_of(*self.where)
                raise self.gave_up(exc, where, self.READY, self.explain) from exc
            self.module.warn(
                "No longer waiting for DaemonSet %s on nodes that aren't Ready (%s): it is updated there when they are "
                "back." % (exc.obj["metadata"]["name"], ", ".join(lost))
            )
        # However long that took, what follows gets its own time
        self.deadline.restart()

    # -- absent -----------------------------------------------------------------------------------------------------

    def absent(self):
        url = _resources.path(*self.where)
        live = self.client.get(url)
        if live is None:
            self._check_place()
        machines = _installation.machines(self.client)
        if machines and not self.params["remove_workloads"]:
            raise KubeError(
                "KubeVirt can't be removed while there are virtual machines (%d: %s). Delete them first, or set "
                "remove_workloads=true to have them deleted." % (len(machines), _some(machines))
            )
        if live is None:
            return Outcome(False, None, None)
        if self.check_mode:
            return Outcome(True, live, None)
        if not live["metadata"].get("deletionTimestamp"):
            if machines and (live.get("spec") or {}).get("uninstallStrategy") != "RemoveWorkloads":
                # KubeVirt itself refuses and removes by what the object says
                patch = {"spec": {"uninstallStrategy": "RemoveWorkloads"}}
                self.client.request("PATCH", url, body=patch, content_type=MERGE_PATCH)
                self.changed = True
            self.delete(*self.where)
        if self.params["wait"]:
            self._wait_gone(url, bool(machines))
        return Outcome(True, live, None)

    def _check_place(self):
        """Refuse if there is no such object, but one elsewhere whose definitions the next task would remove."""
        metadata = (_installation.kubevirt(self.client) or {}).get("metadata") or {}
        if metadata.get("namespace") not in (None, self.namespace):
            raise KubeError(
                "There is no KubeVirt %s/%s, but the cluster has the KubeVirt %s/%s, so nothing is removed. "
                "Set namespace and name to these to remove that one."
                % (self.namespace, self.name, metadata["namespace"], metadata["name"])
            )

    def _wait_gone(self, url, with_machines):
        abandoned = not with_machines and not _installation.has_controller(self.client, self.namespace)
        if abandoned and self.client.get(url) is not None:
            # Nothing is left to remove the finalizer: an earlier removal got no further than the components
            self.client.request("PATCH", url, body={"metadata": {"finalizers": None}}, content_type=MERGE_PATCH)
            self.changed = True
        self.wait_until(*self.where, lambda obj: obj is None, "gone", explain=self._why_not_gone)

    def _why_not_gone(self, obj):
        troubles, facts = self.explain(obj)
        left = _installation.machines(self.client)
        return (["%d virtual machines remain (%s)" % (len(left), _some(left))] if left else []) + troubles, facts


def _some(names):
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


MODULE = KubeVirt
main = MODULE.main


if __name__ == "__main__":
    main()
