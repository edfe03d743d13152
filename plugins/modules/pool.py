#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module pool."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pool
short_description: Declare pools of virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates, updates, scales or deletes a VirtualMachinePool of the KubeVirt API, which keeps as many virtual machines
    of one template as wanted, and waits until all are ready.
  - Machines are named after the pool, with an index; an index that becomes free is used again.
  - The template can be given as a O(template), by high-level options such as O(memory) and O(image), or by both; the
    options win.
  - A change of the template reaches all machines. Their guests are restarted unless O(update_strategy) says otherwise,
    as many at a time as O(max_unavailable) allows. Fields that aren't declared stay unchanged on the server.
options:
  state:
    description: Whether the pool should exist. Its machines go with it.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the pool. Names of machines begin with it.
    type: str
    required: true
  namespace:
    description: Namespace of the pool. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  replicas:
    description:
      - How many machines there should be. Leave it out where an autoscaler decides.
      - A new pool without it has one.
    type: int
  selector:
    description:
      - Which machines belong to the pool, a label selector with C(matchLabels), C(matchExpressions) or both. It must
        match the labels of the machines, and can't be changed.
      - Defaults to O(labels) for a new pool.
    type: dict
  template:
    description: C(spec.virtualMachineTemplate) of the KubeVirt API, with C(metadata) and C(spec).
    type: dict
  run_strategy:
    description:
      - Whether KubeVirt starts the guests, and what it does when they end. Defaults to V(Always) for a new pool.
      - The task waits for guests only with V(Always), V(Once) and V(RerunOnFailure).
    type: str
    choices: [Always, Halted, Manual, Once, RerunOnFailure]
  paused:
    description:
      - Whether machines are neither created, changed nor deleted. The task then waits for none of them.
    type: bool
  max_unavailable:
    description:
      - How many machines may be unavailable while guests are restarted for an update, a number or a percentage of
        O(replicas) such as V(25%).
      - Without it, all guests are restarted at once.
    type: str
  update_strategy:
    description:
      - How a changed template reaches the machines, C(spec.updateStrategy) of the KubeVirt API. It replaces the one
        that the pool has.
      - With C(proactive), which is what a pool without a strategy does, guests are restarted. With C(opportunistic)
        they get the change at their next start. With C(unmanaged) only new machines get it.
    type: dict
  scale_in_strategy:
    description:
      - What happens if there are more machines than wanted, C(spec.scaleInStrategy) of the KubeVirt API. It replaces
        the one that the pool has.
      - With C(proactive), which is what a pool without a strategy does, machines are deleted. Those that aren't ready
        go first, then random ones, unless C(selectionPolicy) says otherwise. With C(opportunistic) and C(unmanaged)
        users delete them.
      - With C(statePreservation) V(Offline) claims that a machine owns outlive it.
    type: dict
  autohealing:
    description:
      - When a machine that fails to start is replaced, C(spec.autohealing) of the KubeVirt API. An empty dictionary
        means after three failures or five minutes. Without it, none is replaced.
    type: dict
  name_generation:
    description: References that get a machine's index appended, C(spec.nameGeneration) of the KubeVirt API.
    type: dict
  labels:
    description: Labels of the pool, of its machines and of their instances. The inventory plugin groups by them.
    type: dict
  annotations:
    description: Annotations of the pool, of its machines and of their instances.
    type: dict
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.machine
  - turtles.kubevirt.machine.cpu
  - turtles.kubevirt.machine.virtual_machine
  - turtles.kubevirt.wait
seealso:
  - module: turtles.kubevirt.pool_info
  - module: turtles.kubevirt.replicaset
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Run three desktops, and restart one at a time when their image changes
  turtles.kubevirt.pool:
    name: desk
    namespace: office
    replicas: 3
    max_unavailable: 1
    labels:
      app: desk
    image: registry.example.com/desktop:1.0
    memory: 2Gi

- name: Scale in to two, the newest first
  turtles.kubevirt.pool:
    name: desk
    namespace: office
    replicas: 2
    scale_in_strategy:
      proactive:
        selectionPolicy:
          sortPolicy: Newest

- name: Give each machine its own cloud-init Secret, named web-init-0, web-init-1 and so on
  turtles.kubevirt.pool:
    name: web
    namespace: shop
    replicas: 2
    labels:
      app: web
    image: registry.example.com/web:1.0
    memory: 512Mi
    cloud_init:
      user_data_secret: web-init
    name_generation:
      appendIndexToSecretRefs: true

- name: Run two databases of a common size, each created with its own disk
  turtles.kubevirt.pool:
    name: db
    namespace: shop
    replicas: 2
    labels:
      app: db
    instancetype: u1.medium
    preference: debian
    disks:
      - {name: root, data_volume: db-root}
    data_volume_templates:
      - metadata: {name: db-root}
        spec:
          sourceRef: {kind: DataSource, name: debian, namespace: images}
          storage: {resources: {requests: {storage: 20Gi}}}

- name: Remove them
  turtles.kubevirt.pool:
    name: web
    namespace: shop
    state: absent
"""

RETURN = r"""
result:
  description: The pool as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: pool.kubevirt.io/v1beta1
    kind: VirtualMachinePool
    metadata: {name: web, namespace: shop}
    spec: {replicas: 3, selector: {matchLabels: {app: web}}}
    status: {replicas: 3, readyReplicas: 3, labelSelector: app=web}
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 4.871
"""

import re

from ..module_utils import _merge, _shape, _vm_spec
from ..module_utils._errors import KubeError
from ..module_utils._replicated import ReplicatedModule
from ..module_utils._values import plain
from ..module_utils._vm_strategy import RUN_STRATEGIES

# Guests of these run by themselves.
STARTED = ("Always", "Once", "RerunOnFailure")
PART = re.compile(r"^[0-9]+%?$")


class Pool(ReplicatedModule):
    """A VirtualMachinePool."""

    KIND = "VirtualMachinePool"
    API_VERSION = "pool.kubevirt.io/v1beta1"
    TITLE = "pool"
    MEMBERS = "machines"
    MEMBER_KIND = "VirtualMachine"
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "replicas": {"type": "int"},
        "selector": {"type": "dict"},
        "template": {"type": "dict"},
        "run_strategy": {"type": "str", "choices": list(RUN_STRATEGIES)},
        "paused": {"type": "bool"},
        "max_unavailable": {"type": "str"},
        "update_strategy": {"type": "dict"},
        "scale_in_strategy": {"type": "dict"},
        "autohealing": {"type": "dict"},
        "name_generation": {"type": "dict"},
        **_vm_spec.VIRTUAL_MACHINE_ARGUMENTS,
        **_vm_spec.MACHINE_ARGUMENTS,
    }
    # One strategy takes the place of another.
    EXACT = frozenset(("selector", "updateStrategy", "scaleInStrategy", "autohealing"))

    def declare(self, live):
        template = self._template(live)
        options = (
            ("updateStrategy", "update_strategy"),
            ("scaleInStrategy", "scale_in_strategy"),
            ("autohealing", "autohealing"),
            ("nameGeneration", "name_generation"),
        )
        spec = {
            **self.counted(live, template),
            "virtualMachineTemplate": template or None,
            "maxUnavailable": self._max_unavailable(),
            **{key: plain(self.params[option]) for key, option in options},
        }
        metadata = _vm_spec.declare(self.params).get("metadata") or {}
        declaration = {
            "metadata": metadata,
            "spec": {key: value for key, value in spec.items() if value is not None},
        }
        _shape.check_shape("pool %s" % self.name, declaration, self.KIND)
        return declaration

    def _template(self, live):
        """Return the declared spec.virtualMachineTemplate, checked as a VirtualMachine is."""
        template = _merge.combine(plain(self.params["template"]) or {}, _vm_spec.declare(self.params))
        _shape.check_shape("template", template, "VirtualMachine")
        spec = template.get("spec") or {}
        if live is None and spec and "running" not in spec and "runStrategy" not in spec:
            template["spec"] = {**spec, "runStrategy": "Always"}
        return template

    def _max_unavailable(self):
        text = self.params["max_unavailable"]
        if text is None:
            return None
        if not PART.match(text):
            raise KubeError("max_unavailable: %r is neither a number nor a percentage such as 25%%" % text)
        return text if text.endswith("%") else int(text)

    def starts(self, obj):
        spec = obj["spec"]["virtualMachineTemplate"].get("spec") or {}
        return bool(spec.get("running")) or spec.get("runStrategy") in STARTED


MODULE = Pool
main = MODULE.main


if __name__ == "__main__":
    main()
