#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module restore."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore
short_description: Restore virtual machines from snapshots
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Restores the disks and the specification of a virtual machine from a snapshot, by a VirtualMachineRestore of the
    KubeVirt API. If the machine doesn't exist, it is created as a copy with its own identity.
  - Each name stands for one restore. Once that is complete, running the task again changes nothing.
  - The machine is stopped afterwards; start it with M(turtles.kubevirt.vm).
options:
  state:
    description: Whether the restore should exist. Deleting a restore doesn't undo it; one in progress is abandoned.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the restore.
    type: str
    required: true
  namespace:
    description: Namespace of machine and snapshot. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  snapshot:
    description: Name of the VirtualMachineSnapshot. Required for a new restore.
    type: str
  vm:
    description: Name of the VirtualMachine to restore. Defaults to the machine of the snapshot.
    type: str
  target_readiness_policy:
    description:
      - What happens if the machine is running. V(StopTarget) stops it, V(WaitGracePeriod) waits up to five minutes for
        somebody to stop it, V(WaitEventually) waits for as long as it takes, and V(FailImmediate) fails.
      - The server's default is V(WaitGracePeriod).
    type: str
    choices: [StopTarget, WaitGracePeriod, WaitEventually, FailImmediate]
  volume_restore_policy:
    description:
      - How the restored claims are named. V(RandomizeNames) generates names and keeps the machine's previous claims,
        V(InPlace) deletes these and reuses their names, V(PrefixTargetName) names them after machine and volume.
      - The server's default is V(RandomizeNames).
    type: str
    choices: [RandomizeNames, InPlace, PrefixTargetName]
  volume_ownership_policy:
    description: Whether restored claims are deleted along with the machine; V(Vm) is the server's default.
    type: str
    choices: [Vm, None]
  volume_restore_overrides:
    description: Exceptions for the claims of individual volumes.
    type: list
    elements: dict
    suboptions:
      volume_name:
        description: Name of the volume in the machine.
        type: str
        required: true
      restore_name:
        description: Name of the claim.
        type: str
      labels:
        description: Labels of the claim, in addition to those that it had.
        type: dict
      annotations:
        description: Annotations of the claim, in addition to those that it had.
        type: dict
  patches:
    description: Operations of a JSON patch (RFC 6902) on a new machine, below C(/spec).
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
  - O(wait) waits until the restore is complete.
  - A restore can't be changed, except for its labels and annotations. Use another name for a new one.
seealso:
  - module: turtles.kubevirt.snapshot
  - module: turtles.kubevirt.restore_info
"""

EXAMPLES = r"""
- name: Roll a machine back to a snapshot
  turtles.kubevirt.restore:
    name: back
    snapshot: before-upgrade
    namespace: shop
    target_readiness_policy: StopTarget

- name: Start it
  turtles.kubevirt.vm:
    name: db
    namespace: shop
    state: running

- name: Create a copy of a machine from a snapshot, with less memory
  turtles.kubevirt.restore:
    name: copy
    snapshot: before-upgrade
    vm: db-copy
    namespace: shop
    volume_restore_policy: PrefixTargetName
    patches:
      - op: replace
        path: /spec/template/spec/domain/memory/guest
        value: 1Gi
"""

RETURN = r"""
result:
  description: The VirtualMachineRestore as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: snapshot.kubevirt.io/v1beta1
    kind: VirtualMachineRestore
    metadata: {name: back, namespace: shop}
    spec:
      target: {apiGroup: kubevirt.io, kind: VirtualMachine, name: db}
      virtualMachineSnapshotName: before-upgrade
    status:
      complete: true
      restoreTime: "2026-01-01T12:10:00Z"
      restores:
        - volumeName: data
          persistentVolumeClaim: restore-7c0a3f3e-5d6f-4b0e-9d5e-6a1f3c1b2a90-data
          volumeSnapshotName: vmsnapshot-0f9f7a52-9a35-4b0c-8a0d-2f6a5f1f6f11-volume-data
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 2.871
"""

import json

from ..module_utils import _resources
from ..module_utils._errors import KubeError
from ..module_utils._resource_module import ResourceModule
from ..module_utils._values import plain

SNAPSHOT = _resources.known("snapshot.kubevirt.io/v1beta1", "VirtualMachineSnapshot")
_POLICIES = {
    "targetReadinessPolicy": "target_readiness_policy",
    "volumeRestorePolicy": "volume_restore_policy",
    "volumeOwnershipPolicy": "volume_ownership_policy",
}
_OPTIONS = {
    "virtualMachineSnapshotName": "snapshot",
    "target": "vm",
    "volumeRestoreOverrides": "volume_restore_overrides",
    **_POLICIES,
}
# What a server that leaves these out goes by.
_DEFAULTS = {
    "targetReadinessPolicy": "WaitGracePeriod",
    "volumeRestorePolicy": "RandomizeNames",
    "volumeOwnershipPolicy": "Vm",
}
_OVERRIDE = {
    "volume_name": "volumeName",
    "restore_name": "restoreName",
    "labels": "labels",
    "annotations": "annotations",
}


class Restore(ResourceModule):
    """A VirtualMachineRestore."""

    KIND = "VirtualMachineRestore"
    API_VERSION = "snapshot.kubevirt.io/v1beta1"
    READY = "complete"
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "snapshot": {"type": "str"},
        "vm": {"type": "str"},
        "target_readiness_policy": {
            "type": "str",
            "choices": ["StopTarget", "WaitGracePeriod", "WaitEventually", "FailImmediate"],
        },
        "volume_restore_policy": {"type": "str", "choices": ["RandomizeNames", "InPlace", "PrefixTargetName"]},
        "volume_ownership_policy": {"type": "str", "choices": ["Vm", "None"]},
        "volume_restore_overrides": {
            "type": "list",
            "elements": "dict",
            "options": {
                "volume_name": {"type": "str", "required": True},
                "restore_name": {"type": "str"},
                "labels": {"type": "dict"},
                "annotations": {"type": "dict"},
            },
        },
        "patches": {"type": "list", "elements": "dict"},
    }

    def declare(self, live):
        wanted = self._wanted()
        if live is not None:
            have = {**_DEFAULTS, **live["spec"], "target": live["spec"]["target"]["name"]}
            self.refuse_change(have, {**wanted, "target": self.params["vm"] or have["target"]}, _OPTIONS)
            return {"spec": {}}
        if "virtualMachineSnapshotName" not in wanted:
            raise KubeError("snapshot: missing for a new restore. Name the snapshot to restore.")
        source = self._source(wanted["virtualMachineSnapshotName"])
        vm = self.params["vm"] or source
        return {"spec": {**wanted, "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": vm}}}

    def _wanted(self):
        """Return the spec that is declared, without the target."""
        for option in ("snapshot", "vm"):
            if self.params[option]:
                _resources.check_name(option, self.params[option])
        overrides = [
            {key: plain(each[option]) for option, key in _OVERRIDE.items() if each.get(option)}
            for each in self.params["volume_restore_overrides"] or ()
        ]
        spec = {
            "virtualMachineSnapshotName": self.params["snapshot"],
            **{key: self.params[option] for key, option in _POLICIES.items()},
            "volumeRestoreOverrides": overrides or None,
            "patches": [json.dumps(plain(each), sort_keys=True) for each in self.params["patches"] or ()] or None,
        }
        return {key: value for key, value in spec.items() if value}

    def _source(self, name):
        """Return the machine that a snapshot is of. The API takes a restore whose snapshot is still to come."""
        snapshot = self.client.get(_resources.path(SNAPSHOT, self.namespace, name))
        if snapshot is None:
            if self.check_mode and self.params["vm"]:
                # An earlier task would make it.
                return self.params["vm"]
            raise KubeError(
                "snapshot: %s doesn't exist. Check snapshot and namespace."
                % _resources.name_of(SNAPSHOT, self.namespace, name)
            )
        return snapshot["spec"]["source"]["name"]

    def is_ready(self, obj):
        return bool(((obj or {}).get("status") or {}).get("complete"))

    def hopeless(self, obj):
        failure = _condition(obj, "Failure")
        return {failure.get("message") or "it failed": 0} if failure.get("status") == "True" else {}

    def explain(self, obj):
        ready = _condition(obj, "Ready")
        message = ": ".join(text for text in (ready.get("reason"), ready.get("message")) if text)
        return ([message] if message else []), {}


def _condition(obj, kind):
    conditions = ((obj or {}).get("status") or {}).get("conditions") or ()
    return next((entry for entry in conditions if entry.get("type") == kind), {})


MODULE = Restore
main = MODULE.main


if __name__ == "__main__":
    main()
