#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module vm."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vm
short_description: Declare, start, stop, pause, restart and delete virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates or updates a VirtualMachine of the KubeVirt API and controls whether it runs.
  - The declaration can be a whole manifest (O(definition), O(src)), a O(spec), high-level options such as O(memory) and
    O(disks), or any combination of these. High-level options override O(spec), which overrides the manifest.
  - Fields that aren't declared stay unchanged on the server, so defaults and labels set by others don't count as a
    change. Disks, volumes, interfaces and networks are matched by name. Lists are complete, so entries that a list
    doesn't have are removed. A key with the value V(null) is removed.
options:
  state:
    description:
      - V(present) creates or updates the VirtualMachine. It starts or stops nothing unless a run strategy says so; a
        new VirtualMachine without a run strategy is stopped (V(Halted)).
      - V(running) also starts the guest. A C(running) or C(runStrategy) in the declaration that says otherwise is
        ignored. A guest that is shutting down is started once it has stopped; with the run strategies V(Manual) and
        V(RerunOnFailure) the task waits for that regardless of O(wait).
      - V(started) is another name of V(running).
      - V(stopped) also stops the guest. A VirtualMachine that doesn't exist is created stopped if the declaration has a
        template, otherwise the task fails.
      - V(restarted) also restarts the guest, or starts it if it isn't running.
      - V(paused) also stops the processors of the guest, which keeps its memory. A guest that isn't running is started
        paused if its run strategy needs a start; otherwise it is paused as soon as it runs.
      - V(unpaused) also resumes a paused guest, or starts it if it isn't running.
      - V(soft_rebooted) also has the guest reboot itself, by its guest agent or else its power button, or starts it if
        it isn't running. The instance stays the same, and the API doesn't say when the guest is up again.
      - V(reset) also presses the reset button of the guest, which doesn't shut down, or starts it if it isn't
        running. The instance stays the same.
      - V(absent) deletes the VirtualMachine.
      - An instance that is to run but never did, for instance because its image doesn't exist, is replaced when the
        template has changed since. A running guest is never restarted for a change, see RV(restart_required).
    type: str
    choices: [present, running, started, stopped, restarted, paused, unpaused, soft_rebooted, reset, absent]
    default: present
  name:
    description:
      - Name of the VirtualMachine. Required unless there is O(generate_name), or the manifest has a name or
        C(generateName).
    type: str
  generate_name:
    description:
      - Beginning of a name that the server completes. Each run of the task creates another VirtualMachine, whose name
        is in RV(result).
    type: str
  namespace:
    description:
      - Namespace of the VirtualMachine. Defaults to that of the manifest, then that of the kubeconfig's context, then
        V(default).
    type: str
  api_version:
    description: Version of the KubeVirt API. Defaults to that of the manifest, then V(kubevirt.io/v1).
    type: str
    choices: [kubevirt.io/v1, kubevirt.io/v1alpha3]
  definition:
    description: The VirtualMachine as a whole manifest, as a dictionary or YAML text.
    type: raw
    aliases: [resource_definition, inline]
  src:
    description: File with the manifest, on the machine where the module runs.
    type: path
  spec:
    description:
      - C(spec) of the VirtualMachine, as the KubeVirt API has it.
      - The guest is described in its C(template.spec). (The O(spec) of C(kubevirt.core.kubevirt_vm) is that of the
        template.)
    type: dict
  run_strategy:
    description:
      - Whether KubeVirt starts the guest, and what it does when the guest ends.
      - Must not contradict O(state).
    type: str
    choices: [Always, Halted, Manual, Once, RerunOnFailure]
  running:
    description:
      - Short for O(run_strategy), V(true) for V(Always) and V(false) for V(Halted). O(state=running) and
        O(state=stopped) do more, they also wait for the guest of a machine that has another run strategy.
    type: bool
  labels:
    description: Labels of the VirtualMachine and of its instances. The inventory plugin groups by them.
    type: dict
  annotations:
    description: Annotations of the VirtualMachine and of its instances.
    type: dict
  force:
    description: Whether to power the guest off instead of shutting it down when it is stopped, restarted or deleted.
    type: bool
    default: false
  grace_period_seconds:
    description:
      - Seconds that the guest has to shut down when this task stops or deletes it, instead of
        O(termination_grace_period). V(0) is O(force=true).
      - With O(state=restarted), KubeVirt takes only V(0).
    type: int
  delete_options:
    description: How O(state=absent) deletes the VirtualMachine. Other states ignore it.
    type: dict
    suboptions:
      propagationPolicy:
        description:
          - What happens to what the machine owns. V(Background) and V(Foreground) delete it as well, V(Orphan) leaves
            the instance running. Defaults to V(Background).
        type: str
        choices: [Foreground, Background, Orphan]
      preconditions:
        description: What the VirtualMachine must have. The task fails if it differs.
        type: dict
        suboptions:
          resourceVersion:
            description: Its C(metadata.resourceVersion).
            type: str
          uid:
            description: Its C(metadata.uid).
            type: str
  wait_sleep:
    description: Has no effect, as nothing is polled. For tasks that were written for C(kubevirt.core).
    type: int
  wait_for:
    description:
      - What O(wait) waits for where the guest is to run. Paused and stopped guests aren't affected.
      - V(running) is the guest running and its probes succeeding (C(Ready)).
      - V(address) is also an IP address, which RV(address) then has.
      - V(agent) is running and connected to its guest agent (C(AgentConnected)).
      - V(ssh) is also an SSH server that answers at the address on port 22, as seen from the machine on which the
        module runs. Where the address doesn't answer for a quarter of a minute, like those of a cluster's Pod network
        from outside, one that answers through the API counts too, with a warning. That needs the right to C(get)
        C(virtualmachineinstances/portforward) of C(subresources.kubevirt.io).
      - V(cloud_init) is running and cloud-init having finished. If it ended with errors, the task fails and reports
        them (RV(cloud_init_errors)). The guest agent says so where it runs commands, which needs the rights that
        P(turtles.kubevirt.guest_agent#connection) names; else it is read from the log of the guest's console, which
        needs the right to C(get) C(pods/log) and C(logSerialConsole), KubeVirt's default.
    type: str
    choices: [running, address, agent, ssh, cloud_init]
    default: running
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.library
  - turtles.kubevirt.machine
  - turtles.kubevirt.machine.cpu
  - turtles.kubevirt.machine.virtual_machine
  - turtles.kubevirt.wait
  - turtles.kubevirt.hidden
attributes:
  idempotent:
    support: partial
    details: >-
      The states V(restarted), V(soft_rebooted) and V(reset) act each time. O(generate_name), and a manifest with
      C(generateName), create each time.
notes:
  - A server refuses unsupported fields and names them.
seealso:
  - module: turtles.kubevirt.fleet
  - module: turtles.kubevirt.vm_info
  - module: turtles.kubevirt.vmi_info
  - module: turtles.kubevirt.instancetype
  - module: turtles.kubevirt.preference
  - plugin: turtles.kubevirt.kubevirt
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Run a machine from a container image, with a key for its default user
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    state: running
    image: quay.io/containerdisks/debian:12
    memory: 1Gi
    cpu:
      cores: 2
    interfaces:
      - name: default
    ssh_keys:
      - "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
    labels:
      app: web

- name: Create and start a machine from a manifest
  turtles.kubevirt.vm:
    src: testvm.yaml
    state: running

- name: Give a machine more memory and leave the rest as it is
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    memory: 2Gi
  register: web

- name: Restart it if the change needs that
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    state: restarted
  when: web.restart_required

- name: Create a machine with a disk on a claim, an empty one, and structured cloud-init data
  turtles.kubevirt.vm:
    name: db
    namespace: shop
    run_strategy: RerunOnFailure
    memory: 4Gi
    disks:
      - name: root
        claim: db-root
        boot_order: 1
      - name: scratch
        capacity: 10Gi
    cloud_init:
      user_data:
        packages: [postgresql]
      network_data_secret: db-network
  register: db

- name: Plug an interface on the network storage into it while it runs
  turtles.kubevirt.vm:
    name: db
    namespace: shop
    interfaces:
      - name: default
      - name: storage
        binding: bridge
        network: storage

- name: Unplug it again
  turtles.kubevirt.vm:
    name: db
    namespace: shop
    interfaces:
      - name: default
      - name: storage
        binding: bridge
        network: storage
        state: absent

- name: Run a machine of a common size
  turtles.kubevirt.vm:
    name: cache
    namespace: shop
    state: running
    image: quay.io/containerdisks/debian:12
    instancetype: u1.small
    preference: debian

- name: Give it another size, one of its namespace, from its next start on
  turtles.kubevirt.vm:
    name: cache
    namespace: shop
    instancetype:
      name: large
      kind: VirtualMachineInstancetype

- name: Run a machine and wait until SSH is available
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    state: running
    wait_for: ssh

- name: Run a machine and wait until cloud-init has finished
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    state: running
    wait_for: cloud_init
    wait_timeout: 600

- name: Power it off
  turtles.kubevirt.vm:
    name: db
    namespace: shop
    state: stopped
    force: true

- name: Pause a machine, and let it go on
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    state: "{{ item }}"
  loop: [paused, unpaused]

- name: Have the guest reboot itself, without another instance
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    state: soft_rebooted

- name: Shut its guest down within a minute, and delete it unless it was replaced
  turtles.kubevirt.vm:
    name: db
    namespace: shop
    state: absent
    grace_period_seconds: 60
    delete_options:
      preconditions:
        uid: "{{ db.result.metadata.uid }}"

- name: Create a machine with a generated name
  turtles.kubevirt.vm:
    generate_name: worker-
    namespace: shop
    state: running
    image: quay.io/containerdisks/debian:12
    memory: 1Gi
  register: worker

- name: Delete it
  turtles.kubevirt.vm:
    name: db
    namespace: shop
    state: absent
"""

RETURN = r"""
result:
  description: The VirtualMachine as it is after the task; as it would be in check mode. Empty if it is absent.
  returned: success
  type: dict
  sample:
    apiVersion: kubevirt.io/v1
    kind: VirtualMachine
    metadata: {name: web, namespace: shop}
    spec: {runStrategy: Always}
    status: {printableStatus: Running, ready: true}
vmi:
  description: The running VirtualMachineInstance. Empty if there is none.
  returned: success
  type: dict
  sample:
    metadata: {name: web, namespace: shop}
    status: {phase: Running, interfaces: [{name: default, ipAddress: 10.244.0.12}]}
address:
  description: First known IP address of the guest. Empty if there is none.
  returned: success
  type: str
  sample: 10.244.0.12
restart_required:
  description: Whether the running guest needs a restart to see the declaration. The task warns about it, too.
  returned: success
  type: bool
  sample: false
duration:
  description: Seconds that the task waited for the state.
  returned: success
  type: float
  sample: 1.2
cloud_init_errors:
  description: Errors with which cloud-init ended in the guest.
  returned: when O(wait_for=cloud_init) and there are any
  type: list
  elements: str
  sample: ["('scripts_user', RuntimeError('Runparts: 1 failures (runcmd) in 1 attempted commands'))"]
diagnosis:
  description: What is known about why the state wasn't reached.
  returned: when waiting failed
  type: dict
  sample:
    printable_status: ImagePullBackOff
    phase: Scheduling
    conditions: []
    events: [{object: Pod virt-launcher-web-x7f2p, reason: Failed, message: manifest unknown, count: 3}]
"""

from ..module_utils._vm_task import MachineTask

MODULE = MachineTask
main = MODULE.main


if __name__ == "__main__":
    main()
