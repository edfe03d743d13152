#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module clone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: clone
short_description: Copy virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Copies a virtual machine, or a snapshot of one, with its disks, by a VirtualMachineClone of the KubeVirt API. The
    copy gets its own MAC addresses, firmware UUID and serial number.
  - Each name stands for one copy. Once the clone has succeeded, running the task again changes nothing.
  - The copy is stopped; start it with M(turtles.kubevirt.vm). The machine to be copied may be running.
options:
  state:
    description: Whether the clone should exist. Deleting it doesn't delete the copy.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the clone.
    type: str
    required: true
  namespace:
    description: Namespace of clone, source and copy. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  vm:
    description: Name of the VirtualMachine to copy.
    type: str
  snapshot:
    description: Name of the VirtualMachineSnapshot to copy.
    type: str
  target:
    description: Name of the copy, which must not exist yet. The server generates a name if this isn't set.
    type: str
  label_filters:
    description:
      - Which labels the copy gets, by patterns of their keys. C(*) at the end matches anything, C(!) in front excludes.
    type: list
    elements: str
  annotation_filters:
    description: Which annotations the copy gets, in the form of O(label_filters).
    type: list
    elements: str
  template_label_filters:
    description: Which labels instances of the copy get, in the form of O(label_filters).
    type: list
    elements: str
  template_annotation_filters:
    description: Which annotations instances of the copy get, in the form of O(label_filters).
    type: list
    elements: str
  new_mac_addresses:
    description: MAC addresses of the copy by interface. Other interfaces get new ones.
    type: dict
  new_smbios_serial:
    description: Serial number of the copy's firmware.
    type: str
  volume_name_policy:
    description:
      - How the copy's claims are named. V(RandomizeNames), the server's default, generates names, V(PrefixTargetName)
        names them after machine and volume.
    type: str
    choices: [RandomizeNames, PrefixTargetName]
  patches:
    description: Operations of a JSON patch (RFC 6902) on the copy, below C(/spec).
    type: list
    elements: dict
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.metadata
  - turtles.kubevirt.wait
notes:
  - O(wait) waits until the copy exists.
  - A clone can't be changed, except for its labels and annotations. Use another name for a new one.
seealso:
  - module: turtles.kubevirt.snapshot
  - module: turtles.kubevirt.restore
  - module: turtles.kubevirt.clone_info
"""

EXAMPLES = r"""
- name: Copy a machine for a test
  turtles.kubevirt.clone:
    name: db-for-test
    vm: db
    target: db-test
    namespace: shop
    label_filters:
      - "*"
      - "!tier"

- name: Copy a machine as a snapshot has it, with the serial number that its licence requires
  turtles.kubevirt.clone:
    name: db-as-before
    snapshot: before-upgrade
    target: db-before
    namespace: shop
    new_smbios_serial: A-0815
"""

RETURN = r"""
result:
  description: The VirtualMachineClone as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: clone.kubevirt.io/v1beta1
    kind: VirtualMachineClone
    metadata: {name: db-for-test, namespace: shop}
    spec:
      source: {apiGroup: kubevirt.io, kind: VirtualMachine, name: db}
      target: {apiGroup: kubevirt.io, kind: VirtualMachine, name: db-test}
    status: {phase: Succeeded, targetName: db-test}
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 2.31
"""

import json

from ..module_utils import _resources
from ..module_utils._errors import KubeError
from ..module_utils._resource_module import ResourceModule
from ..module_utils._values import plain
from ..module_utils._vm_status import phase_of
from ..module_utils._wait import reasons

_VM = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine"}
_SNAPSHOT = {"apiGroup": "snapshot.kubevirt.io", "kind": "VirtualMachineSnapshot"}
_OPTIONS = {
    "source": "vm, snapshot",
    "labelFilters": "label_filters",
    "annotationFilters": "annotation_filters",
    "template": "template_label_filters, template_annotation_filters",
    "newMacAddresses": "new_mac_addresses",
    "newSMBiosSerial": "new_smbios_serial",
    "volumeNamePolicy": "volume_name_policy",
}
_FILTERS = ("label_filters", "annotation_filters")
_KEYS = {"label_filters": "labelFilters", "annotation_filters": "annotationFilters"}


class Clone(ResourceModule):
    """A VirtualMachineClone."""

    KIND = "VirtualMachineClone"
    API_VERSION = "clone.kubevirt.io/v1beta1"
    READY = "successful"
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "vm": {"type": "str"},
        "snapshot": {"type": "str"},
        "target": {"type": "str"},
        **{name: {"type": "list", "elements": "str"} for name in _FILTERS},
        **{"template_" + name: {"type": "list", "elements": "str"} for name in _FILTERS},
        "new_mac_addresses": {"type": "dict"},
        "new_smbios_serial": {"type": "str"},
        "volume_name_policy": {"type": "str", "choices": ["RandomizeNames", "PrefixTargetName"]},
        "patches": {"type": "list", "elements": "dict"},
    }
    RULES = {"mutually_exclusive": [("vm", "snapshot")]}

    def declare(self, live):
        wanted = self._wanted()
        if live is not None:
            self.refuse_change(live["spec"], wanted, _OPTIONS)
            return {"spec": {}}
        if "source" not in wanted:
            raise KubeError("vm, snapshot: missing for a new clone. Name one of them.")
        return {"spec": wanted}

    def _wanted(self):
        params = self.params
        for option in ("vm", "snapshot", "target"):
            if params[option]:
                _resources.check_name(option, params[option])
        source = {**_VM, "name": params["vm"]} if params["vm"] else {**_SNAPSHOT, "name": params["snapshot"]}
        template = {_KEYS[name]: params["template_" + name] for name in _FILTERS if params["template_" + name]}
        spec = {
            "source": source if source["name"] else None,
            "target": {**_VM, "name": params["target"]} if params["target"] else None,
            **{_KEYS[name]: params[name] for name in _FILTERS},
            "template": template,
            "newMacAddresses": plain(params["new_mac_addresses"]),
            "newSMBiosSerial": params["new_smbios_serial"],
            "volumeNamePolicy": params["volume_name_policy"],
            "patches": [json.dumps(plain(each), sort_keys=True) for each in params["patches"] or ()],
        }
        return {key: plain(value) for key, value in spec.items() if value}

    def is_ready(self, obj):
        return phase_of(obj) == "Succeeded"

    def hopeless(self, obj):
        return {"it failed": 0} if phase_of(obj) == "Failed" else {}

    def explain(self, obj):
        conditions = ((obj or {}).get("status") or {}).get("conditions") or ()
        messages = [each["message"] for each in conditions if each.get("type") == "Ready" and each.get("message")]
        return messages or reasons(obj), {}


MODULE = Clone
main = MODULE.main


if __name__ == "__main__":
    main()
