#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module vm."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vm
short_description: Declare, start, stop, restart and delete virtual machines
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Makes a VirtualMachine of the KubeVirt API be as declared, and its guest run or not.
  - The declaration can be a whole manifest (O(definition), O(src)), a O(spec), high-level options like O(memory) and
    O(disks), or any of these together. High-level options win over O(spec), and that over the manifest.
  - What isn't declared stays as it is on the server, so defaults and other people's labels are no change. Disks,
    volumes, interfaces and networks are matched by their names; a list given is complete, so what it doesn't name is
    removed. A key with the value V(null) removes that key.
options:
  state:
    description:
      - V(present) makes the object be as declared. It starts or stops nothing unless a run strategy says so; a new
        VirtualMachine without a run strategy is stopped (V(Halted)).
      - V(running) makes it be as declared and the guest run. A C(running) or C(runStrategy) that says otherwise in the
        declaration counts for nothing. One that is on its way down is started when it has stopped; under the run
        strategies V(Manual) and V(RerunOnFailure) the task waits for that whatever O(wait) says.
      - V(stopped) makes it be as declared and no guest run. One that doesn't exist is created stopped if the
        declaration has a template, else the task fails.
      - V(restarted) makes it be as declared and restarts the guest; starts it if it doesn't run.
      - V(absent) deletes it.
    type: str
    choices: [present, running, stopped, restarted, absent]
    default: present
  name:
    description: Name of the VirtualMachine. Needed unless the manifest names it, or has C(generateName).
    type: str
  namespace:
    description:
      - Namespace of the VirtualMachine. If not given, that of the manifest, else that of the kubeconfig's context, else
        V(default).
    type: str
  api_version:
    description: Version of the KubeVirt API. If not given, that of the manifest, else V(kubevirt.io/v1).
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
      - What KubeVirt does with the guest when it ends, and whether it starts it.
      - Must not contradict O(state).
    type: str
    choices: [Always, Halted, Manual, Once, RerunOnFailure]
  labels:
    description: Labels of the VirtualMachine and of its instances. The inventory plugin groups by them.
    type: dict
  annotations:
    description: Annotations of the VirtualMachine and of its instances.
    type: dict
  memory:
    description: Memory the guest sees, such as V(512Mi) or V(4Gi).
    type: str
  cpu:
    description: Processors the guest sees.
    type: dict
    suboptions:
      cores:
        description: Cores a socket.
        type: int
      sockets:
        description: Sockets.
        type: int
      threads:
        description: Threads a core.
        type: int
      model:
        description: CPU model of libvirt, V(host-model) or V(host-passthrough).
        type: str
  image:
    description:
      - Container image with one disk file under C(/disk). Short for an entry of O(disks) named C(containerdisk).
      - What the guest writes to it is lost when it stops.
    type: str
  disks:
    description: Disks, in the order in which the guest sees them. O(image) comes first, the cloud-init seed last.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the disk and its volume.
        type: str
        required: true
      image:
        description: Container image with one disk file under C(/disk).
        type: str
      claim:
        description: PersistentVolumeClaim that holds the disk.
        type: str
      capacity:
        description: Size of an empty disk that lives as long as the guest, such as V(2Gi).
        type: str
      type:
        description: What the guest sees.
        type: str
        choices: [disk, cdrom, lun]
        default: disk
      bus:
        description: Bus of the disk. V(virtio) if not given, V(sata) for a CD-ROM.
        type: str
        choices: [virtio, sata, scsi, usb]
      boot_order:
        description: Place in the boot order, from 1.
        type: int
      serial:
        description: Serial number the guest sees.
        type: str
      read_only:
        description: Whether the guest may only read it.
        type: bool
  interfaces:
    description: Network interfaces. If not given, one on the Pod's network with the server's default binding.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the interface and its network.
        type: str
        required: true
      binding:
        description: How the guest is joined to the network.
        type: str
        choices: [bridge, masquerade]
        default: masquerade
      network:
        description: NetworkAttachmentDefinition (name, or namespace/name). The Pod's own network if not given.
        type: str
      model:
        description: Model of the network card.
        type: str
      mac_address:
        description: MAC address of the guest's card.
        type: str
      boot_order:
        description: Place in the boot order, from 1.
        type: int
      ports:
        description: TCP ports that reach the guest under V(masquerade). All if not given.
        type: list
        elements: int
  cloud_init:
    description: Data for cloud-init in the guest.
    type: dict
    suboptions:
      type:
        description: How the guest finds the data.
        type: str
        choices: [nocloud, configdrive]
        default: nocloud
      user_data:
        description:
          - Text, or a mapping that becomes cloud-config.
          - It is stored in the VirtualMachine for everybody to read who may read that. Secrets belong into a Secret
            (O(cloud_init.user_data_secret)).
        type: raw
      user_data_secret:
        description: Name of a Secret whose key C(userdata) has the user data.
        type: str
      network_data:
        description: Text, or a mapping.
        type: raw
      network_data_secret:
        description: Name of a Secret whose key C(networkdata) has the network data.
        type: str
  ssh_keys:
    description: Public keys for the guest's default user; added to O(cloud_init.user_data) as C(ssh_authorized_keys).
    type: list
    elements: str
  hostname:
    description: Host name of the guest. Its VirtualMachine's name if not given.
    type: str
  termination_grace_period:
    description: Seconds a guest has for its shutdown before it is switched off.
    type: int
  node_selector:
    description: Labels a node must have.
    type: dict
  force:
    description: Whether to switch the guest off instead of shutting it down, when it is stopped, restarted or deleted.
    type: bool
    default: false
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.library
  - turtles.kubevirt.wait
attributes:
  check_mode:
    support: full
    details: The server does everything but store the result (dry run), so its validation counts in check mode too.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: O(state=restarted) restarts each time. A manifest with C(generateName) creates each time.
  action_group:
    support: full
notes:
  - What a server doesn't implement it refuses, naming the field. The engine of this collection refuses, among others,
    O(disks[].type=lun) and O(interfaces[].network).
seealso:
  - module: turtles.kubevirt.vm_info
  - module: turtles.kubevirt.vmi_info
  - plugin: turtles.kubevirt.kubevirt
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: A machine from a container image, with a key for its default user
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

- name: A manifest as kubectl takes it, started
  turtles.kubevirt.vm:
    src: testvm.yaml
    state: running

- name: More memory for a machine; everything else stays
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    memory: 2Gi
  register: web

- name: Restart it if it can't take the change while it runs
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    state: restarted
  when: web.restart_required

- name: A disk on a claim, an empty one, and structured cloud-init data
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

- name: Stop it, at once
  turtles.kubevirt.vm:
    name: db
    namespace: shop
    state: stopped
    force: true

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
  description: First IP address of the guest that is known. Empty if there is none.
  returned: success
  type: str
  sample: 10.244.0.12
restart_required:
  description: Whether the running guest needs a restart to see the declaration. The task warns of it, too.
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
import time

from ansible_collections.turtles.kubevirt.plugins.module_utils import merge, resources, vm_spec, wait
from ansible_collections.turtles.kubevirt.plugins.module_utils.base import KubeModule, load_definitions, run_module
from ansible_collections.turtles.kubevirt.plugins.module_utils.client import ApiError, KubeError

FINAL = ("Succeeded", "Failed")
# Seconds the controller has to say what a change means for the guest that runs.
CONTROLLER_LOOK = 5


def strategy_of(spec):
    """The run strategy a VirtualMachine's spec says, of runStrategy or the older running; None where it says none."""
    if spec.get("runStrategy"):
        return spec["runStrategy"]
    if spec.get("running") is None:
        return None
    return "Always" if spec["running"] else "Halted"


def set_strategy(spec, live_spec, strategy):
    """Declares the run strategy in spec, in the form that spec or the live object uses, and only in that form."""
    older = spec.get("running") is not None or (not spec.get("runStrategy") and live_spec.get("running") is not None)
    spec.pop("running", None)
    spec.pop("runStrategy", None)
    if older and strategy in ("Always", "Halted"):
        spec["running"] = strategy == "Always"
        if live_spec.get("runStrategy"):
            spec["runStrategy"] = None
    else:
        spec["runStrategy"] = strategy
        if live_spec.get("running") is not None:
            spec["running"] = None


def resolve_strategy(spec, live_spec, state):
    """Changes spec so that its run state is what state asks for. live_spec is None for an object that is new.

    Leaves the run strategy out where it isn't to change: a start, stop or restart is then done by its subresource.
    """
    declared = strategy_of(spec)
    live = strategy_of(live_spec) if live_spec is not None else None
    wanted = declared
    if state in ("running", "restarted"):
        wanted = declared if declared not in (None, "Halted") else None
        if wanted is None and live_spec is None:
            wanted = "Always"
    elif state == "stopped":
        # Manual is the only strategy besides Halted under which a new machine doesn't start by itself.
        wanted = None if live_spec is not None else ("Manual" if declared == "Manual" else "Halted")
    elif wanted is None and live_spec is None:
        wanted = "Halted"
    if wanted is None or wanted == live:
        spec.pop("running", None)
        spec.pop("runStrategy", None)
    else:
        set_strategy(spec, live_spec or {}, wanted)


class VirtualMachine(KubeModule):
    """One VirtualMachine."""

    ARGUMENTS = {
        "state": {
            "type": "str",
            "choices": ["present", "running", "stopped", "restarted", "absent"],
            "default": "present",
        },
        "name": {"type": "str"},
        "namespace": {"type": "str"},
        "api_version": {"type": "str", "choices": ["kubevirt.io/v1", "kubevirt.io/v1alpha3"]},
        "definition": {"type": "raw", "aliases": ["resource_definition", "inline"]},
        "src": {"type": "path"},
        "spec": {"type": "dict"},
        "force": {"type": "bool", "default": False},
        "wait": {"type": "bool", "default": True},
        "wait_timeout": {"type": "int", "default": 300},
        **vm_spec.ARGUMENTS,
    }
    RULES = {"mutually_exclusive": [("definition", "src")]}

    def run(self):
        self.state = self.params["state"]
        self.declaration = self._declaration()
        metadata = self.declaration["metadata"]
        self.namespace, self.name = metadata["namespace"], metadata.get("name")
        self.resource = resources.known(self.declaration["apiVersion"], "VirtualMachine")
        self.instance = resources.known(self.declaration["apiVersion"], "VirtualMachineInstance")
        self.began = time.monotonic()
        if self.state == "absent":
            return self._absent()
        return self._present()

    # -- the declaration --------------------------------------------------------------------------------------------

    def _declaration(self):
        params = self.params
        manifests = load_definitions(params["definition"], params["src"])
        if len(manifests) > 1:
            raise KubeError(
                "definition has %d objects, but this module manages one VirtualMachine. Use turtles.kubevirt.manifest, "
                "or a loop." % len(manifests)
            )
        manifest = copy.deepcopy(manifests[0]) if manifests else {}
        kind = manifest.get("kind", "VirtualMachine")
        if kind != "VirtualMachine":
            raise KubeError(
                "definition.kind: %r isn't VirtualMachine. Use turtles.kubevirt.manifest for other kinds." % (kind,)
            )
        api_version = params["api_version"] or manifest.get("apiVersion") or "kubevirt.io/v1"
        if not resources.known(api_version, "VirtualMachine"):
            raise KubeError(
                "definition.apiVersion: %r has no VirtualMachine. Use kubevirt.io/v1 or kubevirt.io/v1alpha3."
                % api_version
            )
        for member in ("metadata", "spec"):
            if not isinstance(manifest.get(member) or {}, dict):
                raise KubeError("definition.%s: must be a mapping, but is %r" % (member, manifest[member]))
        manifest.pop("status", None)
        own_spec = copy.deepcopy(params["spec"]) or {}
        for source, spec in (("definition.spec", manifest.get("spec") or {}), ("spec", own_spec)):
            if spec.get("running") is not None and spec.get("runStrategy") is not None:
                raise KubeError(
                    "%s: running and runStrategy exclude each other. Leave out running, the older of them." % source
                )
        if strategy_of(own_spec) and manifest.get("spec"):
            # They are two forms of one declaration, of which spec has the last word.
            manifest["spec"].pop("running", None)
            manifest["spec"].pop("runStrategy", None)
        high_level = vm_spec.declare(params)
        result = merge.combine(
            {"metadata": manifest.pop("metadata", None) or {}, "spec": manifest.pop("spec", None) or {}},
            {"spec": own_spec},
            high_level,
        )
        result.update(apiVersion=api_version, kind="VirtualMachine")
        self._identify(result["metadata"])
        self._check_strategy(result["spec"])
        return result

    def _identify(self, metadata):
        for option in ("name", "namespace"):
            given, named = self.params[option], metadata.get(option)
            if given and named and given != named:
                raise KubeError("%s: %r contradicts metadata.%s %r of the definition" % (option, given, option, named))
            if given:
                metadata[option] = given
        if not metadata.get("namespace"):
            metadata["namespace"] = self.client.default_namespace
        if not metadata.get("name") and (
            not metadata.get("generateName") or self.state in ("stopped", "restarted", "absent")
        ):
            raise KubeError("name: missing. Give the option name, or metadata.name in the definition.")
        for option in ("name", "namespace"):
            if metadata.get(option):
                resources.check_name(option, metadata[option])

    def _check_strategy(self, spec):
        if spec.get("running") is not None and not isinstance(spec["running"], bool):
            raise KubeError("spec.running: %r isn't true or false" % (spec["running"],))
        strategy = self.params["run_strategy"]
        if strategy:
            spec.pop("running", None)
        if (self.state == "running" and strategy == "Halted") or (
            self.state == "stopped" and strategy in ("Always", "Once")
        ):
            raise KubeError("run_strategy=%s contradicts state=%s. Leave one of them out." % (strategy, self.state))

    # -- states -----------------------------------------------------------------------------------------------------

    def _absent(self):
        outcome = self.delete_with_force() if self.params["force"] else self._delete()
        if self.params["wait"] and not self.check_mode and outcome.before is not None:
            self._until(lambda vm: vm is None, "deleted", None)
        # An object whose deletion was already under way is still there without waiting.
        left = None if outcome.changed or self.params["wait"] else outcome.after
        return self._result(outcome.changed, outcome.before, left, None)

    def _delete(self):
        return self.delete(self.resource, self.namespace, self.name)

    def delete_with_force(self):
        """Switches the guest off and deletes the object."""
        live = self.client.get(resources.path(self.resource, self.namespace, self.name))
        if live is not None and not self.check_mode and self._active(self._vmi()):
            self._act("stop", {"gracePeriod": 0})
        return self._delete()

    def _present(self):
        created = False
        switched = False
        seen = {}

        def desired(live):
            nonlocal created, switched
            declaration = copy.deepcopy(self.declaration)
            if live is None:
                self._check_creatable(declaration)
            seen["before"] = live
            live_spec = (live.get("spec") or {}) if live is not None else None
            resolve_strategy(declaration["spec"], live_spec, self.state)
            created = live is None
            switched = strategy_of(declaration["spec"]) is not None
            if not declaration["spec"]:
                declaration.pop("spec")
            return declaration

        outcome = self.apply(self.resource, self.namespace, self.name, desired)
        self.name = outcome.after["metadata"].get("name", self.name)
        vmi = None if created or not self.name else self._vmi()
        action = self._action(outcome.after, vmi, created, switched)
        after = outcome.after
        if action:
            if self.check_mode:
                after = self._predicted(after, action)
            elif action == "start" and self._leaving(vmi):
                self._start_again(after, vmi)
            else:
                self._act(action, self._action_body(action))
        if not self.check_mode:
            after, vmi = self._settle(after, vmi, action, created or switched)
        running = self._active(vmi)
        diff_extra = None
        if action:
            diff_extra = {
                "start": ("stopped", "running"),
                "stop": ("running", "stopped"),
                "restart": ("running", "restarted"),
            }[action]
        elif self.check_mode and not running:
            vmi = None
        return self._result(outcome.changed or bool(action), outcome.before, after, vmi, diff_extra)

    def _check_creatable(self, declaration):
        if (declaration["spec"].get("template") or {}).get("spec"):
            return
        if self.state in ("stopped", "restarted"):
            raise KubeError(
                "VirtualMachine %s/%s doesn't exist, so it can't be %s. Declare it (spec, definition or image and "
                "memory) to create it, or check name and namespace." % (self.namespace, self.name, self.state)
            )
        raise KubeError(
            "VirtualMachine %s/%s doesn't exist, and nothing says what it is. Declare it by spec, definition, src, or "
            "options such as image and memory; or check name and namespace." % (self.namespace, self.name)
        )

    def _action(self, vm, vmi, created, switched):
        """The subresource to call so that the guest is as state says, or None."""
        strategy = strategy_of(vm.get("spec") or {})
        active = self._active(vmi)
        if self.state == "stopped":
            if created:
                return None
            if strategy in ("Always", "Once"):
                return "stop"
            if strategy == "Halted":
                # Already on its way down; force makes it quick.
                return "stop" if active and self.params["force"] else None
            return "stop" if active else None
        if self.state not in ("running", "restarted"):
            return None
        if self.state == "restarted" and active:
            return "restart"
        if strategy == "Halted" or (strategy == "Manual" and not active):
            return "start"
        if strategy == "RerunOnFailure" and not active and not (created or switched):
            return "start"
        if strategy == "Once" and vmi and not active:
            raise KubeError(
                "VirtualMachine %s/%s has run once (phase %s), and its runStrategy Once doesn't start it again. Choose "
                "another run_strategy, or delete it first." % (self.namespace, self.name, vmi["status"].get("phase"))
            )
        return None

    def _action_body(self, action):
        if self.params["force"] and action == "stop":
            return {"gracePeriod": 0}
        if self.params["force"] and action == "restart":
            return {"gracePeriodSeconds": 0}
        return {}

    def _act(self, action, body):
        """Calls the subresource. "Already so" is no error: what counts is the state waited for afterwards."""
        subresources = resources.Resource("subresources.kubevirt.io/v1", "VirtualMachine", "virtualmachines", True)
        url = resources.path(subresources, self.namespace, self.name, action)
        try:
            self.client.request("PUT", url, body=body)
        except ApiError as exc:
            already = ("already running", "is not running", "already underway", "does not support manual")
            if exc.status == 409 and action != "restart" and any(words in exc.message for words in already):
                return
            remedy = ""
            if exc.status in (404, 503):
                remedy = ". Check that virt-api runs and that its APIService v1.subresources.kubevirt.io is available."
            raise KubeError(
                "VirtualMachine %s/%s: %s refused: %s%s"
                % (self.namespace, self.name, action, exc.message.rstrip("."), remedy),
                **exc.facts,
            ) from exc

    def _start_again(self, vm, vmi):
        """Starts a machine whose former instance is on its way out, during which KubeVirt refuses a start."""
        if strategy_of(vm["spec"]) != "Halted":
            self._until_replaced(vmi, "stopped")
            self._act("start", {})
            return

        def started(live):
            spec = {}
            set_strategy(spec, live["spec"] if live else {}, "Always")
            return {"spec": spec}

        self.apply(self.resource, self.namespace, self.name, started)

    def _predicted(self, vm, action):
        """The object in check mode after an action that the server didn't do."""
        vm = copy.deepcopy(vm)
        strategy = strategy_of(vm["spec"])
        if action == "start" and strategy == "Halted":
            vm["spec"].update({"running": True} if vm["spec"].get("running") is not None else {"runStrategy": "Always"})
        if action == "stop" and strategy in ("Always", "Once"):
            vm["spec"].update(
                {"running": False} if vm["spec"].get("running") is not None else {"runStrategy": "Halted"}
            )
        return vm

    # -- waiting ----------------------------------------------------------------------------------------------------

    def _settle(self, vm, vmi, action, fresh):
        """Waits for the state if asked to, and gives the VM and VMI as they are then."""
        if self.params["wait"]:
            if action == "restart":
                self._until_replaced(vmi, "restarted")
            target = self._target(vm, action, fresh)
            if target == "running":
                self._until(self._runs, "running", self._hopeless)
            elif target == "stopped":
                self._until(self._rests, "stopped", None)
            self._until_looked_at()
        return self.client.get(resources.path(self.resource, self.namespace, self.name)) or vm, self._vmi()

    def _until_replaced(self, vmi, goal):
        uid = vmi["metadata"].get("uid")
        self._until(lambda i: i is None or i["metadata"].get("uid") != uid, goal, None, resource=self.instance)

    def _until_looked_at(self):
        """Gives the controller time to see the declaration: only then it says whether the guest needs a restart."""

        def seen(vm):
            desired = ((vm or {}).get("status") or {}).get("desiredGeneration")
            return not desired or desired >= vm["metadata"].get("generation", 0)

        # The state has been reached; what would be missing is a hint.
        with contextlib.suppress(wait.GaveUp):
            wait.until(self.client, self.resource, self.namespace, self.name, CONTROLLER_LOOK, seen)

    def _target(self, vm, action, fresh):
        if self.state in ("running", "restarted"):
            return "running"
        if self.state == "stopped":
            return "stopped"
        strategy = strategy_of(vm.get("spec") or {})
        if strategy == "Always" or (fresh and strategy in ("Once", "RerunOnFailure")):
            return "running"
        return "stopped" if strategy == "Halted" else None

    def _runs(self, vm):
        if self.state == "present" and wait.condition(vm, "Paused").get("status") == "True":
            return True
        if not wait.vm_ready(vm):
            return False
        # Ready may still speak of an instance that has just been told to go.
        vmi = self._vmi()
        return self._active(vmi) and vmi["status"].get("phase") == "Running"

    def _hopeless(self, vm):
        found = wait.vm_hopeless(vm)
        if wait.condition(vm, "Paused").get("status") == "True":
            found["it is paused; unpause it"] = 0
        return found

    def _rests(self, vm):
        if vm is None:
            return False
        # A new and halted one that no controller has looked at yet has nothing to come down.
        return (wait.vm_stopped(vm) or not vm.get("status")) and self._vmi_final()

    def _vmi_final(self):
        vmi = self._vmi()
        return vmi is None or (vmi.get("status") or {}).get("phase") in FINAL

    def _until(self, done, goal, hopeless, resource=None):
        timeout = self.params["wait_timeout"]
        left = max(1, timeout - (time.monotonic() - self.began))
        try:
            return wait.until(self.client, resource or self.resource, self.namespace, self.name, left, done, hopeless)
        except wait.GaveUp as exc:
            said, facts = wait.diagnose(self.client, self.namespace, self.name)
            why = ": %s" % exc.why
            if exc.why.startswith("not within"):
                why = " within %d seconds (wait_timeout)" % timeout
            raise KubeError(
                "VirtualMachine %s/%s isn't %s%s. %s."
                % (self.namespace, self.name, goal, why, "; ".join(text.rstrip(".") for text in said)),
                diagnosis=facts,
                result=exc.obj or {},
            ) from exc

    # -- results ----------------------------------------------------------------------------------------------------

    def _vmi(self):
        return self.client.get(resources.path(self.instance, self.namespace, self.name))

    @staticmethod
    def _active(vmi):
        if not vmi or vmi["metadata"].get("deletionTimestamp"):
            return False
        return (vmi.get("status") or {}).get("phase") not in FINAL

    @staticmethod
    def _leaving(vmi):
        return bool(
            vmi and vmi["metadata"].get("deletionTimestamp") and (vmi.get("status") or {}).get("phase") not in FINAL
        )

    def _result(self, changed, before, after, vmi, guest=None):
        interfaces = ((vmi or {}).get("status") or {}).get("interfaces") or []
        result = {
            "changed": changed,
            "result": after or {},
            "vmi": vmi or {},
            "address": next((i["ipAddress"] for i in interfaces if i.get("ipAddress")), ""),
            "restart_required": wait.condition(after, "RestartRequired").get("status") == "True",
            "duration": round(time.monotonic() - self.began, 3),
        }
        if result["restart_required"]:
            self.module.warn(
                "VirtualMachine %s/%s runs as it was started; it needs a restart (state=restarted) to be as declared."
                % (self.namespace, self.name)
            )
        old, new = merge.for_diff(before), merge.for_diff(after)
        if guest:
            old["guest"], new["guest"] = guest
        result["diff"] = {"before": old, "after": new}
        return result


MODULE = VirtualMachine


def main():
    """Entry point."""
    run_module(VirtualMachine)


if __name__ == "__main__":
    main()
