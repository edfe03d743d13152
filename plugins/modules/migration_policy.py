#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module migration_policy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_policy
short_description: Declare how some virtual machines are migrated
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates, updates or deletes a MigrationPolicy of the KubeVirt API. Its settings apply to the migrations of the
    machines that it selects, instead of those of the KubeVirt object.
  - Policies apply to the whole cluster. If several match a machine, the one that matches most labels is used.
  - Options that aren't given stay as they are; migrations that have begun don't change.
options:
  state:
    description: Whether the policy should exist.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the policy.
    type: str
    required: true
  instance_labels:
    description: Labels that a machine's instance must have. They replace those that the policy has.
    type: dict
  namespace_labels:
    description: Labels that its namespace must have. They replace those that the policy has.
    type: dict
  bandwidth:
    description: Bytes per second that each migration may take, such as V(64Mi). V(0) means no limit.
    type: str
  completion_timeout_per_gib:
    description: Seconds allowed per GiB of memory and of copied disks.
    type: int
  allow_auto_converge:
    description: Whether to slow down guests whose memory changes faster than it is copied.
    type: bool
  allow_post_copy:
    description: Whether guests may be switched to the target before all of their memory has arrived, once the time is
      up. If the connection breaks after that, the guest is lost.
    type: bool
  allow_workload_disruption:
    description: Whether guests may be paused for the rest of the migration once the time is up. Follows
      O(allow_post_copy) if not set.
    type: bool
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.metadata
  - turtles.kubevirt.wait
notes:
  - A policy without labels selects nothing, so a new one needs O(instance_labels) or O(namespace_labels).
seealso:
  - module: turtles.kubevirt.migration
"""

EXAMPLES = r"""
- name: Give databases more time, and slow them down if they write too fast
  turtles.kubevirt.migration_policy:
    name: databases
    instance_labels:
      tier: database
    bandwidth: 256Mi
    completion_timeout_per_gib: 600
    allow_auto_converge: true

- name: Keep the migrations of development from taking the network
  turtles.kubevirt.migration_policy:
    name: development
    namespace_labels:
      stage: development
    bandwidth: 16Mi

- name: Remove a policy
  turtles.kubevirt.migration_policy:
    name: development
    state: absent
"""

RETURN = r"""
result:
  description: The policy as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: migrations.kubevirt.io/v1alpha1
    kind: MigrationPolicy
    metadata: {name: databases}
    spec:
      selectors: {virtualMachineInstanceSelector: {tier: database}}
      bandwidthPerMigration: 256Mi
      completionTimeoutPerGiB: 600
      allowAutoConverge: true
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 0.187
"""

from ..module_utils import _metadata
from ..module_utils._errors import KubeError
from ..module_utils._resource_module import ResourceModule
from ..module_utils._values import plain

# Options and where they go in a policy's selectors, and in its spec.
_SELECTORS = {"instance_labels": "virtualMachineInstanceSelector", "namespace_labels": "namespaceSelector"}
_SETTINGS = {
    "bandwidth": "bandwidthPerMigration",
    "completion_timeout_per_gib": "completionTimeoutPerGiB",
    "allow_auto_converge": "allowAutoConverge",
    "allow_post_copy": "allowPostCopy",
    "allow_workload_disruption": "allowWorkloadDisruption",
}


class MigrationPolicy(ResourceModule):
    """A MigrationPolicy."""

    KIND = "MigrationPolicy"
    API_VERSION = "migrations.kubevirt.io/v1alpha1"
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        **{option: {"type": "dict"} for option in _SELECTORS},
        "bandwidth": {"type": "str"},
        "completion_timeout_per_gib": {"type": "int"},
        **{option: {"type": "bool"} for option in _SETTINGS if option.startswith("allow_")},
    }
    EXACT = frozenset(_SELECTORS.values())

    def declare(self, live):
        texts = {key: _metadata.texts_of(self.params, option) for option, key in _SELECTORS.items()}
        selectors = {key: value for key, value in texts.items() if value is not None}
        if live is None and not any(selectors.values()):
            raise KubeError(
                "instance_labels, namespace_labels: missing for a new policy. Give the labels of the machines or "
                "namespaces that it is for."
            )
        settings = {key: plain(self.params[option]) for option, key in _SETTINGS.items()}
        spec = {key: value for key, value in settings.items() if value is not None}
        return {"spec": {**({"selectors": selectors} if selectors else {}), **spec}}


MODULE = MigrationPolicy
main = MODULE.main


if __name__ == "__main__":
    main()
