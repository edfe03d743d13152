#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module preset."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preset
short_description: Declare presets for virtual machines, such as flavors
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates, updates or deletes a VirtualMachineInstancePreset of the KubeVirt API. New instances in its namespace that
    its selector matches by label get what it declares, as far as they don't declare it themselves.
  - These parts of a preset's domain are given, each as a whole where an instance has nothing of it - requested
    resources, C(cpu), C(firmware), the clock's offset, the clock's timers, C(features), the watchdog and
    C(ioThreadsPolicy). An instance is marked with the names of the presets applied to it.
  - A virtual machine (VirtualMachine) always gives its instances a firmware UUID, so C(firmware) of a preset only
    reaches instances that are declared themselves.
  - An instance that matches contradicting presets is refused; the error names them. The annotation
    C(virtualmachineinstancepresets.admission.kubevirt.io/exclude) with the value V("true") on an instance keeps all
    presets away from it.
  - Instances that exist already don't change; those of a virtual machine do with its next start.
  - KubeVirt has deprecated presets, and the server warns of that; they still work.
options:
  state:
    description: Whether the preset should exist.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the preset.
    type: str
    required: true
  namespace:
    description: Namespace of the preset. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  selector:
    description:
      - Which instances the preset is for, a label selector with C(matchLabels), C(matchExpressions) or both. It
        replaces the one that the preset has.
      - Required for a new preset. V({}) selects all instances of the namespace.
    type: dict
  domain:
    description: What they get, as C(spec.domain) of the KubeVirt API has it. A key with the value V(null) is removed.
    type: dict
  memory:
    description: Memory they get, such as V(512Mi) or V(4Gi). Shorthand for C(resources.requests.memory) of O(domain).
    type: str
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.metadata
  - turtles.kubevirt.machine.cpu
  - turtles.kubevirt.wait
seealso:
  - module: turtles.kubevirt.preset_info
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Have a small and a large flavor
  turtles.kubevirt.preset:
    name: "{{ item.name }}"
    namespace: shop
    selector:
      matchLabels:
        flavor: "{{ item.name }}"
    memory: "{{ item.memory }}"
    cpu:
      cores: "{{ item.cores }}"
  loop:
    - {name: small, memory: 128Mi, cores: 1}
    - {name: large, memory: 4Gi, cores: 4}

- name: Run a small virtual machine that gets its memory from the preset
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    state: running
    labels:
      flavor: small
    image: registry.example.com/web:1.0

- name: Give all instances of the namespace a watchdog
  turtles.kubevirt.preset:
    name: watched
    namespace: shop
    selector: {}
    domain:
      devices:
        watchdog:
          name: watchdog
          i6300esb:
            action: reset

- name: Remove the large flavor
  turtles.kubevirt.preset:
    name: large
    namespace: shop
    state: absent
"""

RETURN = r"""
result:
  description: The preset as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: kubevirt.io/v1
    kind: VirtualMachineInstancePreset
    metadata: {name: small, namespace: shop}
    spec:
      selector: {matchLabels: {flavor: small}}
      domain: {cpu: {cores: 1}, devices: {}, resources: {requests: {memory: 128Mi}}}
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 0.214
"""

from ..module_utils import _merge, _shape, _vm_spec
from ..module_utils._errors import KubeError
from ..module_utils._resource_module import ResourceModule
from ..module_utils._values import plain


class Preset(ResourceModule):
    """A VirtualMachineInstancePreset."""

    KIND = "VirtualMachineInstancePreset"
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "selector": {"type": "dict"},
        "domain": {"type": "dict"},
        **{option: _vm_spec.ARGUMENTS[option] for option in ("memory", "cpu")},
    }
    # A label that the selector doesn't name any more mustn't be left in it.
    EXACT = frozenset(("selector",))

    def declare(self, live):
        selector = plain(self.params["selector"])
        if selector is None and live is None:
            raise KubeError(
                "selector: missing for a new preset. Give the labels of the instances that it is for, or {} for all "
                "of the namespace."
            )
        declaration = {"spec": {"domain": self._domain(), **({} if selector is None else {"selector": selector})}}
        _shape.check_shape("preset %s" % self.name, declaration, self.KIND)
        return declaration

    def _domain(self):
        cpu, memory = _vm_spec.cpu_of(self.params), _vm_spec.memory_of(self.params)
        return _merge.combine(
            # The KubeVirt API requires it, with or without devices
            {"devices": {}},
            plain(self.params["domain"]) or {},
            {"cpu": cpu} if cpu else {},
            {"resources": {"requests": {"memory": memory}}} if memory else {},
        )


MODULE = Preset
main = MODULE.main


if __name__ == "__main__":
    main()
