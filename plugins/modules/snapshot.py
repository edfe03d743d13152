#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module snapshot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot
short_description: Make and delete snapshots of virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Makes a snapshot of a virtual machine and of the claims that its disks are on, by an object of kind
    VirtualMachineSnapshot of the KubeVirt API. The machine may run meanwhile; if its guest agent is connected, its file
    systems are frozen for that moment.
  - A snapshot of that name is there already if there is one, whatever the machine did since.
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
      - Whether what is in the snapshot goes with it, or stays.
      - On KubeVirt and this engine a new snapshot has V(Delete) if this isn't set.
    type: str
    choices: [Delete, Retain]
  failure_deadline:
    description: How long making it may take, such as V(5m), before it fails. V(0s) is no limit.
    type: str
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.library
  - turtles.kubevirt.wait
notes:
  - O(wait) waits until the snapshot can be restored.
  - A snapshot can't be changed. A task that declares another machine or policy for one that exists fails.
  - Volumes whose StorageClass has no snapshots aren't in it; C(status.snapshotVolumes) names those that are.
seealso:
  - module: turtles.kubevirt.restore
  - module: turtles.kubevirt.snapshot_info
"""

EXAMPLES = r"""
- name: Make a snapshot before an upgrade
  turtles.kubevirt.snapshot:
    name: before-upgrade
    vm: db
    namespace: shop
  register: snapshot

- name: Make sure that the guest's file systems were frozen
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
from ..module_utils._base import ResourceModule, run_module
from ..module_utils._errors import KubeError
from ..module_utils._wait import reasons

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
            raise KubeError("vm: missing for a new snapshot. Name the machine that it is of.")
        spec = {
            "source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": vm} if vm else None,
            "deletionPolicy": self.params["deletion_policy"],
            "failureDeadline": self.params["failure_deadline"],
        }
        wanted = {key: value for key, value in spec.items() if value is not None}
        return {"spec": wanted if live is None else self._unchanged(wanted, live["spec"])}

    def _unchanged(self, wanted, spec):
        """Return what is declared of a snapshot that exists: what it is.

        :param spec: the snapshot's.
        :raises KubeError: something else is wanted.
        """
        options = {"vm": "source", "deletion_policy": "deletionPolicy", "failure_deadline": "failureDeadline"}
        for option, key in options.items():
            value, have = wanted.get(key), spec.get(key, _DEFAULTS.get(key))
            if value is not None and value != have:
                value, have = (each["name"] if key == "source" else each for each in (value, have))
                raise KubeError(
                    "%s: snapshot %s/%s has %s, not %s, and can't be changed. Choose another name, or delete it first."
                    % (option, self.namespace, self.name, have, value)
                )
        return {}

    def is_ready(self, obj):
        return bool(((obj or {}).get("status") or {}).get("readyToUse"))

    def hopeless(self, obj):
        return {"it failed": 0} if ((obj or {}).get("status") or {}).get("phase") == "Failed" else {}

    def explain(self, obj):
        error = (((obj or {}).get("status") or {}).get("error") or {}).get("message")
        return ([error] if error else reasons(obj)), {}


MODULE = Snapshot


def main():
    """Entry point."""
    run_module(Snapshot)


if __name__ == "__main__":
    main()
