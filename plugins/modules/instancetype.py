#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module instancetype."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instancetype
short_description: Declare instance types, sizes that virtual machines name
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates, updates or deletes a VirtualMachineClusterInstancetype or a VirtualMachineInstancetype of the KubeVirt API.
    Virtual machines that name it as their instance type get its processors, its memory and what else it declares.
  - A machine that has any of that itself is refused, and the error names the fields. Whether the guest sees the
    processors as sockets, cores or threads is up to a preference, see M(turtles.kubevirt.preference).
  - Machines keep an instance type as it was when they were first started with it. A change applies to machines that are
    started with it for the first time, and deleting it affects none that has been started before.
options:
  state:
    description: Whether the instance type should exist.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the instance type, such as V(u1.small).
    type: str
    required: true
  cpus:
    description: Number of vCPUs, C(cpu.guest) of the KubeVirt API. Required for a new instance type.
    type: int
  memory:
    description: Memory the guest sees, such as V(512Mi) or V(4Gi). Required for a new instance type.
    type: str
  spec:
    description:
      - What else it declares, as C(spec) of the KubeVirt API has it, for instance C(memory.overcommitPercent) or
        C(nodeSelector). O(cpus) and O(memory) override it.
      - A key with the value V(null) is removed.
    type: dict
  labels:
    description: Labels of the instance type itself.
    type: dict
  annotations:
    description: Annotations of the instance type itself. Those of instances belong in O(spec).
    type: dict
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.scope
  - turtles.kubevirt.wait
seealso:
  - module: turtles.kubevirt.instancetype_info
  - module: turtles.kubevirt.preference
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Have two sizes for the machines of all namespaces
  turtles.kubevirt.instancetype:
    name: "{{ item.name }}"
    scope: cluster
    cpus: "{{ item.cpus }}"
    memory: "{{ item.memory }}"
  loop:
    - {name: small, cpus: 1, memory: 1Gi}
    - {name: large, cpus: 4, memory: 8Gi}

- name: Run a machine of one of them
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    state: running
    image: registry.example.com/web:1.0
    instancetype: small

- name: Have a size in a namespace, on nodes with fast disks, that requests half of its memory
  turtles.kubevirt.instancetype:
    name: database
    namespace: shop
    cpus: 2
    memory: 4Gi
    spec:
      memory:
        overcommitPercent: 50
      nodeSelector:
        disks: fast

- name: Remove it
  turtles.kubevirt.instancetype:
    name: database
    namespace: shop
    state: absent
"""

RETURN = r"""
result:
  description: The instance type as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: instancetype.kubevirt.io/v1beta1
    kind: VirtualMachineClusterInstancetype
    metadata: {name: small}
    spec: {cpu: {guest: 1}, memory: {guest: 1Gi}}
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 0.214
"""

from ..module_utils import _merge, _shape, _vm_spec
from ..module_utils._errors import KubeError
from ..module_utils._scope import ScopedModule
from ..module_utils._values import plain


class Instancetype(ScopedModule):
    """A VirtualMachineInstancetype or a VirtualMachineClusterInstancetype."""

    KIND = "VirtualMachineInstancetype"
    CLUSTER_KIND = "VirtualMachineClusterInstancetype"
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "cpus": {"type": "int"},
        "spec": {"type": "dict"},
        "memory": _vm_spec.ARGUMENTS["memory"],
    }

    def declare(self, live):
        spec = self._spec()
        if live is None:
            for option, part in (("cpus", "cpu"), ("memory", "memory")):
                section = spec.get(part)
                if section is None or (isinstance(section, dict) and section.get("guest") is None):
                    raise KubeError(
                        "%s: missing for a new instance type. Give it, or %s.guest in spec." % (option, part)
                    )
        declaration = {"spec": spec} if spec else {}
        _shape.check_shape("instance type %s" % self.name, declaration, self.resource.kind)
        return declaration

    def _spec(self):
        cpus, memory = self.params["cpus"], _vm_spec.memory_of(self.params)
        if cpus is not None and cpus < 1:
            raise KubeError("cpus: %d isn't a number of vCPUs. Give 1 or more." % cpus)
        return _merge.combine(
            plain(self.params["spec"]) or {},
            {"cpu": {"guest": cpus}} if cpus else {},
            {"memory": {"guest": memory}} if memory else {},
        )


MODULE = Instancetype
main = MODULE.main


if __name__ == "__main__":
    main()
