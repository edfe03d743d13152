#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet
short_description: Declare and roll out any number of virtual machines in one task
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates, changes, starts, stops and deletes VirtualMachines side by side, as a list (O(vms)), by a O(template) with
    values for each machine, or both. Each of them is handled as by M(turtles.kubevirt.vm).
  - Changes can be rolled out in batches, canaries first, with health checks and a roll-back; see O(rollout).
  - The current state of all machines is read at once, and one watch per kind tracks their progress, so the duration of
    the task hardly depends on their number.
  - An interrupted task continues when it is run again. Machines that already match are checked first.
  - Machines that exist but aren't declared are left alone, unless O(prune) says otherwise.
options:
  vms:
    description:
      - The machines. Each takes the options of M(turtles.kubevirt.vm) except those about the connection, C(wait),
        C(wait_sleep) and C(wait_timeout).
      - One of O(vms), O(template) and O(prune) is required.
    type: list
    elements: dict
  template:
    description:
      - Options of M(turtles.kubevirt.vm) for each of the machines that O(count) or O(items) call for, with Jinja
        templates in their values. In these, C(item) is the entry of O(items), or the number of the machine if there is
        only O(count), and C(index) is the number of the machine, from 1. All other variables can be used as well.
      - With ansible-core 2.17 and 2.18, which would evaluate the templates too early, mark each value that contains
        one with C(!unsafe), as in C(name) C(!unsafe "web-{{ index }}"). Later versions accept that, too. The mark has
        to be in the task itself.
      - The templates are evaluated on the controller, wherever the module runs.
    type: dict
  count:
    description: How many machines the O(template) stands for.
    type: int
  items:
    description: A list with a value for each machine that the O(template) stands for.
    type: list
    elements: raw
  namespace:
    description:
      - Namespace of machines that don't name one. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  state:
    description:
      - State of machines that don't name one; see O(turtles.kubevirt.vm#module:state). V(restarted) in batches is a
        rolling restart, V(absent) removes the fleet.
    type: str
    choices: [present, running, started, stopped, restarted, paused, unpaused, soft_rebooted, reset, absent]
    default: running
  labels:
    description: Labels of all machines and their instances. A machine's own labels are added.
    type: dict
  wait_for:
    description: What to wait for, for machines that don't specify it; see O(turtles.kubevirt.vm#module:wait_for).
    type: str
    choices: [running, address, agent, ssh, cloud_init]
    default: running
  forks:
    description:
      - Requests that are in flight at once, from 1 to 100. O(rollout.batch) limits how many machines are changed at
        once.
    type: int
    default: 20
  rollout:
    description:
      - How changes reach the machines. Without it, all at once. Machines that need no change are waited for and probed
        first, and nothing is changed if one of them isn't healthy, unless O(rollout.on_failure=continue).
      - A machine is healthy when it fulfils O(wait_for) and its O(probe) succeeds.
      - Deletions come last, and only if everything else succeeded.
    type: dict
    suboptions:
      batch:
        description: Machines that are changed at once, a number or a percentage of all that are declared.
        type: str
        default: 100%
      canary:
        description: Machines that are changed before all others, in the order in which they are declared.
        type: int
        default: 0
      on_failure:
        description:
          - V(stop) ends the task after the batch in which a machine fails; what hasn't been changed stays as it is.
          - V(rollback) also gives all machines that the task has changed the declaration that they had, restarts those
            that need it, and deletes those that the task has created.
          - V(continue) continues with the next batch, and fails at the end.
        type: str
        choices: [stop, rollback, continue]
        default: stop
      restart:
        description:
          - Whether guests are restarted that wouldn't see their changed declaration otherwise (C(RestartRequired)).
            Otherwise they get it at their next start.
          - In check mode, every change of a running guest's template is assumed to need it.
        type: bool
        default: false
  probe:
    description: A command that must succeed for each machine that should run, once it fulfils O(wait_for).
    type: dict
    suboptions:
      command:
        description:
          - Program and arguments, run on the machine where the module runs, not by a shell. C({name}), C({namespace})
            and C({address}) in them are replaced by those of the machine.
        type: list
        elements: str
        required: true
      timeout:
        description: Time limit in seconds. It is tried again every second.
        type: int
        default: 60
  prune:
    description: Deletion of machines that aren't declared.
    type: dict
    suboptions:
      label_selector:
        description: Label selector of the machines to look at, in the namespaces of those declared and O(namespace).
        type: str
        required: true
      max:
        description: Machines that may be deleted. If there are more, the task fails before it changes anything.
        type: int
        required: true
  progress:
    description:
      - Seconds between progress lines, which report how many machines are done, and which are late and why; V(0) for
        none. They are only shown where the module runs in the controller's process, as with C(localhost).
    type: int
    default: 10
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.library
  - turtles.kubevirt.wait
attributes:
  diff_mode:
    details: Has a part for each machine that changes.
  idempotent:
    support: partial
    details: The states V(restarted), V(soft_rebooted) and V(reset) act each time.
notes:
  - O(wait_timeout) counts for each machine, from the start of its batch.
seealso:
  - module: turtles.kubevirt.vm
  - module: turtles.kubevirt.fleet_file
  - module: turtles.kubevirt.pool
"""

EXAMPLES = r"""
- name: Run three web servers with individual addresses and cloud-init data
  turtles.kubevirt.fleet:
    namespace: shop
    labels:
      app: web
    template:
      name: web-{{ index }}
      image: quay.io/containerdisks/debian:12
      memory: 1Gi
      cloud_init:
        user_data:
          hostname: "{{ item.host }}"
          write_files:
            - path: /etc/motd
              content: Number {{ index }}, {{ item.host }}
    items:
      - host: kermit
      - host: piggy
      - host: gonzo

- name: Declare machines one by one, and delete those of the application that aren't in the list, but not more than two
  turtles.kubevirt.fleet:
    namespace: shop
    labels:
      app: backend
    vms:
      - name: db
        image: quay.io/containerdisks/debian:12
        memory: 4Gi
        cpu:
          cores: 2
      - name: cache
        image: quay.io/containerdisks/debian:12
        memory: 2Gi
    prune:
      label_selector: app=backend
      max: 2

- name: Roll out a new image, one canary first, then a quarter at a time, and go back if a machine doesn't answer
  turtles.kubevirt.fleet:
    namespace: shop
    wait_for: ssh
    template:
      name: web-{{ index }}
      image: quay.io/containerdisks/debian:13
    count: 20
    rollout:
      canary: 1
      batch: 25%
      on_failure: rollback
      restart: true
    probe:
      command: [curl, --fail, --silent, --output, /dev/null, "http://{address}/health"]

- name: Restart a fleet, two machines at a time
  turtles.kubevirt.fleet:
    namespace: shop
    state: restarted
    template:
      name: web-{{ index }}
    count: 20
    rollout:
      batch: 2

- name: Remove it
  turtles.kubevirt.fleet:
    namespace: shop
    state: absent
    template:
      name: web-{{ index }}
    count: 20
"""

RETURN = r"""
vms:
  description: What happened to each machine, in the order in which they are declared.
  returned: success, and failure after the declarations were found good
  type: list
  elements: dict
  contains:
    name:
      description: Name.
      type: str
    namespace:
      description: Namespace.
      type: str
    status:
      description: >-
        V(created), V(changed), V(unchanged), V(deleted), V(failed), V(restored) (rolled back), or V(pending) if nothing
        was done to it because the task failed before.
      type: str
    actions:
      description: Subresources that were called, such as V(start), V(stop) or V(restart).
      type: list
      elements: str
    address:
      description: First known IP address of the guest, or empty.
      type: str
    restart_required:
      description: Whether the running guest needs a restart to see the declaration.
      type: bool
    duration:
      description: Seconds that it took.
      type: float
    msg:
      description: Why it failed, or empty.
      type: str
  sample:
    - {name: web-1, namespace: shop, status: created, actions: [], address: 10.244.0.12, restart_required: false,
       duration: 2.4, msg: ""}
pruned:
  description: Machines that were deleted because they aren't declared, as namespace/name.
  returned: success
  type: list
  elements: str
  sample: [shop/web-4]
summary:
  description: How many machines have each status, and how many were pruned.
  returned: success, and failure after the declarations were found good
  type: dict
  sample: {created: 1, unchanged: 2, pruned: 1}
duration:
  description: Seconds that the task took.
  returned: success
  type: float
  sample: 3.1
"""

from ..module_utils._fleet_task import FleetTask

MODULE = FleetTask
main = MODULE.main


if __name__ == "__main__":
    main()
