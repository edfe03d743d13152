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
  - What isn't declared stays as it is on the server, so defaults and other people's labels don't count as a change.
    Disks, volumes, interfaces and networks are matched by name. Lists are complete, so what a list doesn't name is
    removed. A key with the value V(null) removes that key.
options:
  state:
    description:
      - V(present) creates or updates the VirtualMachine. It starts or stops nothing unless a run strategy says so; a
        new VirtualMachine without a run strategy is stopped (V(Halted)).
      - V(running) also starts the guest. A C(running) or C(runStrategy) in the declaration that says otherwise is
        ignored. A guest that is shutting down is started once it has stopped; with the run strategies V(Manual) and
        V(RerunOnFailure) the task waits for that regardless of O(wait).
      - V(stopped) also stops the guest. A VirtualMachine that doesn't exist is created stopped if the declaration has a
        template, otherwise the task fails.
      - V(restarted) also restarts the guest, or starts it if it isn't running.
      - V(paused) also stops the processors of the guest, which keeps its memory. A guest that isn't running is started
        paused if its run strategy needs a start; otherwise it is paused as soon as it runs.
      - V(unpaused) also lets a paused guest go on, or starts it if it isn't running.
      - V(soft_rebooted) also has the guest reboot itself, by its guest agent or else its power button, or starts it if
        it isn't running. The instance stays the same, and the API doesn't say when the guest is up again.
      - V(reset) also presses the reset button of the guest, which doesn't shut down, or starts it if it isn't
        running. The instance stays the same.
      - V(absent) deletes the VirtualMachine.
      - An instance that is to run but never did, for instance because its image doesn't exist, is replaced when the
        template has changed since. A guest that runs is never restarted for a change, see RV(restart_required).
    type: str
    choices: [present, running, stopped, restarted, paused, unpaused, soft_rebooted, reset, absent]
    default: present
  name:
    description: Name of the VirtualMachine. Required unless the manifest has a name or C(generateName).
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
    description: C(spec) of the VirtualMachine, as the KubeVirt API has it.
    type: dict
  run_strategy:
    description:
      - Whether KubeVirt starts the guest, and what it does when the guest ends.
      - Must not contradict O(state).
    type: str
    choices: [Always, Halted, Manual, Once, RerunOnFailure]
  instancetype:
    description:
      - The instance type that the machine takes its size from, a name such as V(u1.small), or a dictionary with
        C(name) and C(kind). A bare name means a VirtualMachineClusterInstancetype.
      - Further keys are C(revision_name), the ControllerRevision that counts instead of the object itself, and instead
        of C(name) C(infer_from_volume), a volume whose claim names the instance type in its labels, with
        C(infer_from_volume_failure_policy), V(Reject) or V(Ignore).
      - The machine can't have O(memory) or O(cpu) of its own in addition. It keeps the instance type as it was when it
        was first started with it.
    type: raw
  preference:
    description:
      - The preference from which the machine takes what it leaves open, such as the bus of its disks. A name, which
        means a VirtualMachineClusterPreference, or a dictionary as for O(instancetype).
    type: raw
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
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.library
  - turtles.kubevirt.machine
  - turtles.kubevirt.machine.cpu
  - turtles.kubevirt.wait
attributes:
  idempotent:
    support: partial
    details: >-
      The states V(restarted), V(soft_rebooted) and V(reset) act each time. A manifest with C(generateName) creates each
      time.
notes:
  - A server refuses what it doesn't implement and names the field. The engine of this collection refuses, among others,
    O(interfaces[].network).
seealso:
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

import contextlib
import copy

from ..module_utils import _merge, _vm_status, _wait
from ..module_utils._base import ResourceModule, run_module
from ..module_utils._client import KubeError
from ..module_utils._vm_declaration import DECLARATION_ARGUMENTS, declaration
from ..module_utils._vm_machine import GUEST_ACTIONS, Machine
from ..module_utils._vm_status import is_active, is_final, is_leaving
from ..module_utils._vm_strategy import after_action, resolve_strategy, set_strategy, strategy_of

# Seconds the controller has to say what a change means for the guest that runs.
CONTROLLER_LOOK = 5
# What the guest is before and after a subresource, for the diff.
GUEST = {
    "start": ("stopped", "running"),
    "stop": ("running", "stopped"),
    "restart": ("running", "restarted"),
    "replace": ("not started", "running"),
    "pause": ("running", "paused"),
    "unpause": ("paused", "running"),
    "softreboot": ("running", "rebooted"),
    "reset": ("running", "reset"),
}


class VirtualMachine(ResourceModule):
    """One VirtualMachine."""

    KIND = "VirtualMachine"
    STATES = ("present", "running", "stopped", "restarted", *GUEST_ACTIONS, "absent")
    ARGUMENTS = {"force": {"type": "bool", "default": False}, **DECLARATION_ARGUMENTS}
    RULES = {"mutually_exclusive": [("definition", "src")]}

    def identify(self):
        self.state, self.force = self.params["state"], self.params["force"]
        # What the machine is to be; what is done to its guest comes on top.
        self.machine_state = "running" if self.state in GUEST_ACTIONS else self.state
        self.declaration = declaration(self.params)
        metadata = self.declaration["metadata"]
        metadata["namespace"] = metadata.get("namespace") or self.client.default_namespace
        self._name_machine(metadata["namespace"], metadata.get("name"))
        self.vmi = None
        self.action = self.guest_action = None
        # uid of the instance that this task has replaced.
        self.former = None
        self.fresh = self.created = False

    def _name_machine(self, namespace, name):
        self.namespace, self.name = namespace, name
        self.machine = Machine(self.client, self.declaration["apiVersion"], namespace, name)
        self.resource = self.machine.resource

    def declare(self, live):
        wanted = copy.deepcopy(self.declaration)
        if live is None:
            self._check_creatable(wanted)
        resolve_strategy(wanted["spec"], (live.get("spec") or {}) if live is not None else None, self.machine_state)
        self.created = live is None
        self.fresh = self.created or strategy_of(wanted["spec"]) is not None
        if not wanted["spec"]:
            wanted.pop("spec")
        return wanted

    def _check_creatable(self, wanted):
        if (wanted["spec"].get("template") or {}).get("spec"):
            return
        if self.state in ("stopped", "restarted", *GUEST_ACTIONS):
            raise KubeError(
                "%s doesn't exist, so it can't be %s. Declare it (spec, definition or image and memory) to create it, "
                "or check name and namespace." % (self.machine, self.state.replace("_", " "))
            )
        raise KubeError(
            "%s doesn't exist, and nothing says what it is. Declare it by spec, definition, src, or options such as "
            "image and memory; or check name and namespace." % self.machine
        )

    # -- states -----------------------------------------------------------------------------------------------------

    def absent(self):
        if self.force and not self.check_mode and is_active(self.machine.instance()) and self.machine.get():
            self._act("stop")
        return super().absent()

    def present(self):
        outcome = self.apply(*self.where, self.declare)
        after = outcome.after
        self._name_machine(self.namespace, after["metadata"].get("name", self.name))
        self.vmi = None if self.created or not self.name else self.machine.instance()
        if not (self.created and self.state == "stopped"):
            self.action = self.machine.action_for(self.machine_state, after, self.vmi, self.fresh, self.force)
        if self.action is None and self._is_useless(outcome):
            self.action = "replace"
        self.guest_action = self._guest_action()
        if self.check_mode:
            if self.action:
                after = after_action(after, self.action)
            elif not is_active(self.vmi):
                self.vmi = None
        else:
            if self.action == "start" and is_leaving(self.vmi):
                self._start_again(after)
            elif self.action:
                self._act(self.action)
            if self.guest_action:
                self._act_on_guest()
            if self.waits:
                self._settle(after)
            after, self.vmi = self.machine.get() or after, self.machine.instance()
        changed = outcome.changed or bool(self.action or self.guest_action)
        return outcome._replace(changed=changed, after=after)

    def _guest_action(self):
        """Return what is to be done to the guest itself, or None."""
        if self.state == "paused" and self.action == "start" and not is_leaving(self.vmi):
            # It is started paused.
            return None
        if is_active(self.vmi) and self.action is None:
            return self.machine.guest_action_for(self.state, self.vmi)
        # What has just been started needs no reboot.
        return "pause" if self.state == "paused" else None

    def _act_on_guest(self):
        """Pause, unpause, reboot or reset the guest, once it runs."""
        former = self.vmi["metadata"].get("uid") if self.action == "replace" else None

        def runs(_vm):
            vmi = self.machine.instance()
            return is_active(vmi) and vmi["metadata"].get("uid") != former and vmi["status"].get("phase") == "Running"

        self.until(runs, "running", self.hopeless)
        if self.machine.act_on_guest(self.guest_action):
            self.changed = True

    def _is_useless(self, outcome):
        """Return whether the instance never ran and, made from another template, won't run as declared.

        KubeVirt leaves it as it is for good, and there is no guest that a restart would interrupt.
        """
        vm = outcome.after
        if not is_active(self.vmi) or _vm_status.has_run(self.vmi) or self._goal(vm) not in ("running", "paused"):
            return False
        if strategy_of(vm.get("spec") or {}) == "Once":
            # Can't be restarted.
            return False
        if _vm_status.is_outdated(vm, self.vmi):
            return True
        # In check mode the controller sees nothing, so it replaces nothing.
        return self._changes_template(outcome) and (self.check_mode or not self._is_renewed(vm))

    @staticmethod
    def _changes_template(outcome):
        """Return whether the task changes what instances are made from."""
        before, after = (
            ((obj or {}).get("spec") or {}).get("template") or {} for obj in (outcome.before, outcome.after)
        )
        return outcome.changed and not _merge.same(before.get("spec"), after.get("spec"))

    def _is_renewed(self, vm):
        """Return whether the controller has replaced the instance by itself."""
        started = (self.vmi["metadata"].get("annotations") or {}).get(_vm_status.STARTED_FROM) or ""
        return started.isdigit() and int(started) >= (vm["metadata"].get("generation") or 0) > 0

    def _act(self, action):
        if self.machine.act(action, self.force, paused=self.state == "paused"):
            self.changed = True

    def _start_again(self, vm):
        """Start a machine whose previous instance is still ending, during which KubeVirt refuses a start."""
        if strategy_of(vm["spec"]) != "Halted":
            self._until_replaced("stopped")
            self._act("start")
            return

        def started(live):
            spec = {}
            set_strategy(spec, live["spec"] if live else {}, "Always")
            return {"spec": spec}

        self.apply(*self.where, started)

    # -- waiting ----------------------------------------------------------------------------------------------------

    def _settle(self, vm):
        """Wait until the guest is as declared."""
        if self.action in ("restart", "replace"):
            self._until_replaced("restarted")
            self.former = self.vmi["metadata"].get("uid")
        goal = self._goal(vm)
        if goal == "running":
            self.until(self._runs, goal, self.hopeless)
        elif goal == "stopped":
            self.until(self._rests, goal)
        elif goal == "paused":
            self.until(self._is_paused, goal, self.hopeless)
        self._until_looked_at()

    def _goal(self, vm):
        """Return what the guest is to be: running, paused, stopped, or None if nothing says so."""
        if self.state == "paused":
            return "paused"
        if self.state != "present":
            return "stopped" if self.state == "stopped" else "running"
        strategy = strategy_of(vm.get("spec") or {})
        if strategy == "Always" or (self.fresh and strategy in ("Once", "RerunOnFailure")):
            return "running"
        return "stopped" if strategy == "Halted" else None

    def _until_replaced(self, goal):
        uid = self.vmi["metadata"].get("uid")
        self.wait_until(
            self.machine.instance_resource,
            self.namespace,
            self.name,
            lambda vmi: vmi is None or vmi["metadata"].get("uid") != uid,
            goal,
            explain=self.explain,
        )

    def _until_looked_at(self):
        """Give the controller time to see the declaration: only then it says whether the guest needs a restart."""

        def seen(vm):
            desired = ((vm or {}).get("status") or {}).get("desiredGeneration")
            return not desired or desired >= vm["metadata"].get("generation", 0)

        # The state has been reached; what would be missing is a hint.
        with contextlib.suppress(_wait.GaveUp):
            _wait.until(self.client, *self.where, CONTROLLER_LOOK, seen)

    def _runs(self, vm):
        if self.state == "present" and _wait.is_true(vm, "Paused"):
            return True
        if not _vm_status.is_ready(vm):
            return False
        # Ready may still speak of an instance that has just been told to go.
        vmi = self.machine.instance()
        return is_active(vmi) and vmi["status"].get("phase") == "Running"

    def _rests(self, vm):
        if vm is None:
            return False
        # A new and halted one that no controller has looked at yet has nothing to come down.
        if not _vm_status.is_stopped(vm) and vm.get("status"):
            return False
        vmi = self.machine.instance()
        return vmi is None or is_final(vmi)

    def _is_paused(self, vm):
        return _wait.is_true(vm, "Paused") and _wait.is_true(self.machine.instance(), "Paused")

    def hopeless(self, vm):
        vmi = self.machine.instance() if _vm_status.is_troubled(vm) else None
        reasons = _vm_status.hopeless(vm, vmi, self.former)
        if _wait.is_true(vm, "Paused") and self.state not in ("paused", "unpaused"):
            reasons["it is paused; unpause it (state=unpaused)"] = 0
        return reasons

    def explain(self, vm):
        said, facts = _vm_status.diagnose(self.client, self.namespace, self.name, renewed=self.former is not None)
        return said, {"diagnosis": facts}

    # -- results ----------------------------------------------------------------------------------------------------

    def result(self, outcome):
        interfaces = ((self.vmi or {}).get("status") or {}).get("interfaces") or []
        result = {
            **super().result(outcome),
            "vmi": self.vmi or {},
            "address": next((i["ipAddress"] for i in interfaces if i.get("ipAddress")), ""),
            "restart_required": _wait.is_true(outcome.after, "RestartRequired"),
        }
        if result["restart_required"]:
            self.module.warn(
                "%s still runs as it was started; restart it (state=restarted) to apply the declaration." % self.machine
            )
        for action in filter(None, (self.action, self.guest_action)):
            before, result["diff"]["after"]["guest"] = GUEST[action]
            result["diff"]["before"].setdefault("guest", before)
        return result


MODULE = VirtualMachine


def main():
    """Entry point."""
    run_module(VirtualMachine)


if __name__ == "__main__":
    main()
