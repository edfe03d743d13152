#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module snapshot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot
short_description: Take and delete snapshots of virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Takes a snapshot of a virtual machine and of the claims with its disks, by a VirtualMachineSnapshot of the KubeVirt
    API. The machine may be running; if its guest agent is connected, the guest's file systems are frozen for that
    moment.
  - An existing snapshot is left as it is, whatever has happened to the machine since.
options:
  state:
    description: Whether the snapshot should exist.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the snapshot.
    type: str
    required: true
  namespace:
    description: Namespace of machine and snapshot. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  vm:
    description: Name of the VirtualMachine. Required for a snapshot that doesn't exist.
    type: str
  deletion_policy:
    description:
      - Whether the content of the snapshot is deleted along with it, or kept.
      - The server's default is V(Delete).
    type: str
    choices: [Delete, Retain]
  failure_deadline:
    description: How long taking the snapshot may last, such as V(5m), before it fails. V(0s) means no limit.
    type: str
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.metadata
  - turtles.kubevirt.wait
notes:
  - O(wait) waits until the snapshot can be restored.
  - A snapshot can't be changed, except for its labels and annotations. A task that declares another
    machine or policy for an existing one fails.
  - Volumes whose StorageClass doesn't support snapshots are left out; C(status.snapshotVolumes) lists which are
    included and which aren't.
seealso:
  - module: turtles.kubevirt.restore
  - module: turtles.kubevirt.snapshot_info
"""

EXAMPLES = r"""
- name: Take a snapshot before an upgrade
  turtles.kubevirt.snapshot:
    name: before-upgrade
    vm: db
    namespace: shop
  register: snapshot

- name: Check that the guest's file systems were frozen
  ansible.builtin.assert:
    that: "'GuestAgent' in snapshot.result.status.indications"

- name: Delete it
  turtles.kubevirt.snapshot:
    name: before-upgrade
    namespace: shop
    state: absent
"""

RETURN = r"""
result:
  description: The VirtualMachineSnapshot as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: snapshot.kubevirt.io/v1beta1
    kind: VirtualMachineSnapshot
    metadata: {name: before-upgrade, namespace: shop}
    spec:
      source: {apiGroup: kubevirt.io, kind: VirtualMachine, name: db}
    status:
      phase: Succeeded
      readyToUse: true
      creationTime: "2026-01-01T12:00:00Z"
      indications: [Online, GuestAgent]
      snapshotVolumes: {includedVolumes: [data], excludedVolumes: [root]}
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 1.204
"""

from ..module_utils import _resources
from ..module_utils._errors import KubeError
from ..module_utils._resource_module import ResourceModule
from ..module_utils._wait import reasons

_OPTIONS = {"source": "vm", "deletionPolicy": "deletion_policy", "failureDeadline": "failure_deadline"}
# What a server that leaves these out goes by.
_DEFAULTS = {"deletionPolicy": "Delete", "failureDeadline": "5m"}


class Snapshot(ResourceModule):
    """A VirtualMachineSnapshot."""

    KIND = "VirtualMachineSnapshot"
    API_VERSION = "snapshot.kubevirt.io/v1beta1"
    READY = "ready to use"
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "vm": {"type": "str"},
        "deletion_policy": {"type": "str", "choices": ["Delete", "Retain"]},
        "failure_deadline": {"type": "str"},
    }

    def declare(self, live):
        vm = self.params["vm"]
        if vm:
            _resources.check_name("vm", vm)
        elif live is None:
            raise KubeError("vm: missing for a new snapshot. Name the machine to snapshot.")
        wanted = {key: self.params[option] for key, option in _OPTIONS.items() if self.params[option]}
        if live is not None:
            self.refuse_change(
                {**_DEFAULTS, **live["spec"], "source": live["spec"]["source"]["name"]}, wanted, _OPTIONS
            )
            return {"spec": {}}
        return {"spec": {**wanted, "source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": vm}}}

    def is_ready(self, obj):
        return bool(((obj or {}).get("status") or {}).get("readyToUse"))

    def hopeless(self, obj):
        return {"it failed": 0} if ((obj or {}).get("status") or {}).get("phase") == "Failed" else {}

    def explain(self, obj):
        error = (((obj or {}).get("status") or {}).get("error") or {}).get("message")
        return ([error] if error else reasons(obj)), {}


MODULE = Snapshot
main = MODULE.main


if __name__ == "__main__":
    main()
