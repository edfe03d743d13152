#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module preference."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preference
short_description: Declare preferences, defaults and requirements of a kind of guest
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates, updates or deletes a VirtualMachineClusterPreference or a VirtualMachinePreference of the KubeVirt API.
    Virtual machines with this preference get its values for fields that they don't set.
  - A machine that has less than a preference requires is refused.
  - Machines keep a preference as it was when they were first started with it. A change applies to machines that are
    started with it for the first time, and deleting it affects none that has been started before.
options:
  state:
    description: Whether the preference should exist.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the preference, such as V(debian).
    type: str
    required: true
  cpu_topology:
    description: How the guest sees the vCPUs of an instance type. V(sockets) if nothing is declared.
    type: str
    choices: [sockets, cores, threads, spread, any]
  disk_bus:
    description: Bus of disks that don't name one.
    type: str
    choices: [virtio, sata, scsi, usb]
  interface_model:
    description: Model of network interfaces that don't name one, such as V(virtio) or V(e1000e).
    type: str
  machine_type:
    description: Type of machines that don't name one, such as V(q35).
    type: str
  required_cpus:
    description: Minimum number of vCPUs of a machine.
    type: int
  required_memory:
    description: Minimum memory of a machine, such as V(512Mi).
    type: str
  spec:
    description:
      - What else it declares, as C(spec) of the KubeVirt API has it, for instance C(features.preferredHyperv). The
        other options override it.
      - A key with the value V(null) is removed.
    type: dict
  labels:
    description: Labels of the preference itself.
    type: dict
  annotations:
    description: Annotations of the preference itself. Those of instances belong in O(spec).
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
  - module: turtles.kubevirt.preference_info
  - module: turtles.kubevirt.instancetype
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Say what Linux guests like
  turtles.kubevirt.preference:
    name: linux
    scope: cluster
    disk_bus: virtio
    interface_model: virtio
    spec:
      devices:
        preferredRng: {}

- name: Run a machine that gets it
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    state: running
    instancetype: small
    preference: linux
    spec:
      template:
        spec:
          domain:
            devices: {}
          volumes:
            - name: root
              containerDisk:
                image: registry.example.com/web:1.0

- name: Say what a large database of one namespace needs
  turtles.kubevirt.preference:
    name: database
    namespace: shop
    cpu_topology: cores
    required_cpus: 4
    required_memory: 8Gi

- name: Remove it
  turtles.kubevirt.preference:
    name: database
    namespace: shop
    state: absent
"""

RETURN = r"""
result:
  description: The preference as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: instancetype.kubevirt.io/v1beta1
    kind: VirtualMachineClusterPreference
    metadata: {name: linux}
    spec: {devices: {preferredDiskBus: virtio, preferredInterfaceModel: virtio, preferredRng: {}}}
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

# option -> where it is in the spec
_FIELDS = {
    "cpu_topology": ("cpu", "preferredCPUTopology"),
    "disk_bus": ("devices", "preferredDiskBus"),
    "interface_model": ("devices", "preferredInterfaceModel"),
    "machine_type": ("machine", "preferredMachineType"),
    "required_cpus": ("requirements", "cpu", "guest"),
    "required_memory": ("requirements", "memory", "guest"),
}


class Preference(ScopedModule):
    """A VirtualMachinePreference or a VirtualMachineClusterPreference."""

    KIND = "VirtualMachinePreference"
    CLUSTER_KIND = "VirtualMachineClusterPreference"
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "cpu_topology": {"type": "str", "choices": ["sockets", "cores", "threads", "spread", "any"]},
        "disk_bus": {"type": "str", "choices": ["virtio", "sata", "scsi", "usb"]},
        "interface_model": {"type": "str"},
        "machine_type": {"type": "str"},
        "required_cpus": {"type": "int"},
        "required_memory": {"type": "str"},
        "spec": {"type": "dict"},
    }

    def declare(self, live):
        spec = self._spec()
        # The KubeVirt API requires it, with or without anything in it.
        declaration = {"spec": spec} if spec or live is None else {}
        _shape.check_shape("preference %s" % self.name, declaration, self.resource.kind)
        return declaration

    def _spec(self):
        cpus, memory = self.params["required_cpus"], self.params["required_memory"]
        if cpus is not None and cpus < 0:
            raise KubeError("required_cpus: %d isn't a number of vCPUs. Give 0 or more." % cpus)
        if memory is not None:
            _vm_spec.check_quantity("required_memory", memory)
        return _merge.combine(plain(self.params["spec"]) or {}, *map(self._field, _FIELDS))

    def _field(self, option):
        """Return the part of the spec that an option declares."""
        part = self.params[option]
        if part is None:
            return {}
        for key in reversed(_FIELDS[option]):
            part = {key: part}
        return part


MODULE = Preference
main = MODULE.main


if __name__ == "__main__":
    main()
