#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module volume_attachment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_attachment
short_description: Attach volumes to virtual machines and detach them
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Attaches a PersistentVolumeClaim to a virtual machine as a disk, and detaches it, without a restart if the machine
    runs (hotplug).
options:
  state:
    description:
      - V(present) attaches the volume, V(absent) detaches it.
      - Only volumes that are declared C(hotpluggable) can be detached, as those are that this module attached.
    type: str
    choices: [present, absent]
    default: present
  vm:
    description: Name of the VirtualMachine, or of an instance without one. Then O(persistent=false) is needed.
    type: str
    required: true
  namespace:
    description: Namespace of the machine and the claim. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  name:
    description: Name of the volume and its disk in the machine. Defaults to that of the claim or DataVolume.
    type: str
  claim:
    description: Name of the PersistentVolumeClaim. With O(state=present), this or O(data_volume) is required.
    type: str
  data_volume:
    description: Name of the DataVolume whose claim it is.
    type: str
  bus:
    description: Bus of the disk.
    type: str
    choices: [scsi, virtio]
    default: scsi
  serial:
    description: Serial number of the disk, by which the guest can find it, as in C(/dev/disk/by-id).
    type: str
  persistent:
    description:
      - Whether the VirtualMachine gets the volume, and so each of its instances, or the running instance alone.
      - On KubeVirt, V(false) is only possible for instances of a VirtualMachine with the feature gate HotplugVolumes.
    type: bool
    default: true
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.library
  - turtles.kubevirt.wait
notes:
  - If the machine runs, O(wait) waits until the guest has the disk, or has released it. If it doesn't, there is nothing
    to wait for.
  - Detaching a disk on the bus virtio needs the guest's cooperation. One that doesn't react keeps it until it is
    restarted.
seealso:
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Attach a claim to a machine, whether it runs or not
  turtles.kubevirt.volume_attachment:
    vm: database
    namespace: shop
    claim: database-archive
    serial: ARCHIVE
  register: archive

- name: Show what the guest calls it
  ansible.builtin.debug:
    msg: "{{ archive.target }}"

- name: Attach a claim to the running instance alone
  turtles.kubevirt.volume_attachment:
    vm: database
    namespace: shop
    name: rescue
    claim: rescue-tools
    bus: virtio
    persistent: false

- name: Detach it again
  turtles.kubevirt.volume_attachment:
    vm: database
    namespace: shop
    name: rescue
    state: absent
    persistent: false
"""

RETURN = r"""
target:
  description: What the guest calls the disk; nothing if the machine doesn't run, or doesn't have it yet.
  returned: success
  type: str
  sample: sda
volume:
  description: The volume's entry in C(status.volumeStatus) of the running instance; empty if there is none.
  returned: success
  type: dict
  sample:
    name: database-archive
    phase: Ready
    reason: VolumeReady
    target: sda
    hotplugVolume: {attachPodName: hp-volume-0a1b2c3d4e}
"""

from ..module_utils import _resources
from ..module_utils._base import WAIT_ARGUMENTS, KubeModule, explain_error
from ..module_utils._errors import ApiError, KubeError
from ..module_utils._vm_machine import INSTANCE_SUBRESOURCES, MACHINE_SUBRESOURCES
from ..module_utils._vm_status import is_active

VM = _resources.known("kubevirt.io/v1", "VirtualMachine")
VMI = _resources.known("kubevirt.io/v1", "VirtualMachineInstance")
# What a volume won't get over by itself, and how long it may: seconds.
HOPELESS = {"FailedPvcNotFound": 20, "FailedAttachVolume": 20, "VolumeModeNotSupported": 0, "Unschedulable": 60}


class VolumeAttachment(KubeModule):
    """A volume of one machine."""

    ARGUMENTS = {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "vm": {"type": "str", "required": True},
        "namespace": {"type": "str"},
        "name": {"type": "str"},
        "claim": {"type": "str"},
        "data_volume": {"type": "str"},
        "bus": {"type": "str", "choices": ["scsi", "virtio"], "default": "scsi"},
        "serial": {"type": "str"},
        "persistent": {"type": "bool", "default": True},
        **WAIT_ARGUMENTS,
    }
    RULES = {
        "mutually_exclusive": [("claim", "data_volume")],
        "required_one_of": [("name", "claim", "data_volume")],
        "required_if": [("state", "present", ("claim", "data_volume"), True)],
    }

    def run(self):
        self.machine = self.params["vm"]
        _resources.check_name("vm", self.machine)
        self.namespace = self.namespace_given()
        for option in ("claim", "data_volume"):
            if self.params[option]:
                _resources.check_name(option, self.params[option])
        self.volume = self.params["name"] or self.params["claim"] or self.params["data_volume"]
        _resources.check_name("name", self.volume)
        present = self.params["state"] == "present"
        before, disk = self._declared()
        changed = (before is None) if present else (before is not None)
        if before is not None and present:
            self._check_same(before, disk)
        if changed:
            self._act("addvolume", self._request()) if present else self._act("removevolume", {"name": self.volume})
        vmi = self._settled(present)
        entry = _entry(vmi, self.volume)
        after = {"name": self.volume, **self._source()} if present else None
        return {
            "changed": changed,
            "target": entry.get("target") or "",
            "volume": entry,
            "diff": {"before": {"volume": before}, "after": {"volume": after if changed else before}},
        }

    def _declared(self):
        """Return the volume and its disk as they are declared; None where they aren't."""
        resource = VM if self.params["persistent"] else VMI
        obj = self.client.get(_resources.path(resource, self.namespace, self.machine))
        if obj is None:
            remedy = (
                "Check vm and namespace; for an instance without a VirtualMachine, set persistent=false"
                if self.params["persistent"]
                else "No such guest is running: start it (state=running of the module vm), or check vm and namespace"
            )
            raise KubeError("%s doesn't exist. %s." % (self._where(), remedy))
        spec = obj["spec"]["template"]["spec"] if self.params["persistent"] else obj["spec"]
        volume = next((each for each in spec.get("volumes") or [] if each["name"] == self.volume), None)
        disks = ((spec.get("domain") or {}).get("devices") or {}).get("disks") or []
        return volume, next((each for each in disks if each["name"] == self.volume), {})

    def _where(self):
        return _resources.name_of(VM if self.params["persistent"] else VMI, self.namespace, self.machine)

    def _source(self):
        if self.params["data_volume"]:
            return {"dataVolume": {"name": self.params["data_volume"], "hotpluggable": True}}
        return {"persistentVolumeClaim": {"claimName": self.params["claim"], "hotpluggable": True}}

    def _request(self):
        disk = {"name": self.volume, "disk": {"bus": self.params["bus"]}}
        if self.params["serial"]:
            disk["serial"] = self.params["serial"]
        return {"name": self.volume, "disk": disk, "volumeSource": self._source()}

    def _check_same(self, volume, disk):
        """Raise KubeError if the machine has another volume of that name: what is attached can't be changed."""
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        source = claim or (volume.get("dataVolume") or {}).get("name")
        seen = disk.get("disk") or disk.get("lun") or disk.get("cdrom") or {}
        actual = {"claim": source or "none", "bus": seen.get("bus") or "sata", "serial": disk.get("serial")}
        wanted = {
            "claim": self.params["claim"] or self.params["data_volume"],
            "bus": self.params["bus"],
            "serial": self.params["serial"],
        }
        differs = [
            "%s is %s, not %s" % (key, actual[key] or "none", value)
            for key, value in wanted.items()
            if value is not None and actual[key] != value
        ]
        if differs:
            raise KubeError(
                "%s: volume %s is attached, but its %s. Detach it first (state=absent), or choose another name."
                % (self._where(), self.volume, ", ".join(differs))
            )

    def _act(self, what, body):
        resource = MACHINE_SUBRESOURCES if self.params["persistent"] else INSTANCE_SUBRESOURCES
        if self.check_mode:
            body = {**body, "dryRun": ["All"]}
        try:
            self.client.request("PUT", _resources.path(resource, self.namespace, self.machine, what), body=body)
        except ApiError as exc:
            raise KubeError(
                "%s: volume %s: %s" % (self._where(), self.volume, explain_error(exc)), **exc.facts
            ) from exc
        self.changed = self.changed or not self.check_mode

    def _settled(self, present):
        """Return the instance once it has the volume or not, as it is asked for; None if there is none."""
        vmi = self.client.get(_resources.path(VMI, self.namespace, self.machine))
        if not self.waits or not is_active(vmi):
            return vmi

        def done(obj):
            if not is_active(obj):
                return True
            phase = _entry(obj, self.volume).get("phase")
            attached = phase == "Ready" or _is_permanent(obj, self.volume)
            return attached if present else not _has(obj, self.volume) and not _entry(obj, self.volume)

        def hopeless(obj):
            reason = _entry(obj, self.volume).get("reason") if present else None
            return {reason: HOPELESS[reason]} if reason in HOPELESS else {}

        def explain(obj):
            entry = _entry(obj, self.volume)
            return ["volume %s: %s" % (self.volume, entry.get("message") or entry.get("phase") or "unknown")], {}

        goal = "using volume %s" % self.volume if present else "free of volume %s" % self.volume
        return self.wait_until(VMI, self.namespace, self.machine, done, goal, hopeless, explain)


def _entry(vmi, volume):
    """Return a volume's entry in the status of an instance; {} where there is none."""
    entries = ((vmi or {}).get("status") or {}).get("volumeStatus") or []
    return next((each for each in entries if each.get("name") == volume), {})


def _has(vmi, volume):
    """Return whether an instance is to have a volume."""
    return any(each["name"] == volume for each in vmi["spec"].get("volumes") or [])


def _is_permanent(vmi, volume):
    """Return whether an instance has had a volume since its start, and as long as it runs."""
    for each in vmi["spec"].get("volumes") or []:
        if each["name"] == volume:
            sources = [source for source in each.values() if isinstance(source, dict)]
            return not any(source.get("hotpluggable") for source in sources)
    return False


MODULE = VolumeAttachment
main = MODULE.main


if __name__ == "__main__":
    main()
