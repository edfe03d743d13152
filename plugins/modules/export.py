#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module export."""

from __future__ import annotations

DOCUMENTATION = r"""
module: export
short_description: Download disks of virtual machines, snapshots and claims
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates a VirtualMachineExport of the KubeVirt API (C(export.kubevirt.io)), which offers the disks of a stopped
    virtual machine, of a snapshot or of a claim for download for a limited time, and waits until they can be
    downloaded.
  - With O(dest), downloads them to the host that the task runs on, as C(virtctl vmexport download) does. An interrupted
    download is resumed, and a disk that already exists isn't downloaded again.
  - Works with this collection's engine and with upstream's KubeVirt.
options:
  state:
    description: Whether the export should exist.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the export.
    type: str
    required: true
  namespace:
    description: Namespace of the export and of what is exported. Defaults to that of the kubeconfig's context, then
      V(default).
    type: str
  vm:
    description: Name of a VirtualMachine. It has to be stopped; the export waits for that.
    type: str
  snapshot:
    description: Name of a VirtualMachineSnapshot, which can be exported while its machine runs.
    type: str
  claim:
    description: Name of a PersistentVolumeClaim that nothing uses.
    type: str
  ttl:
    description:
      - How long after its creation the export is deleted, such as V(4h).
      - The server's default is V(2h).
    type: str
  token_secret:
    description: Name of a Secret whose key C(token) authorizes downloads. The server creates one if this isn't set.
    type: str
  dest:
    description:
      - Folder on the host that the task runs on, for the disks. It is created if it doesn't exist. A disk becomes
        C(<name>.img.gz) or C(<name>.img), a claim with files C(<name>.tar.gz), by the names in RV(volumes).
    type: path
  format:
    description:
      - How a disk is downloaded. V(gzip) transfers only what the guest has written, and starts over after an
        interruption. V(raw) transfers the whole disk, stores it without its empty parts, and resumes after an
        interruption.
    type: str
    choices: [gzip, raw]
    default: gzip
  volumes:
    description: Names of the volumes to download; all by default.
    type: list
    elements: str
  manifest:
    description: Whether to also download the objects from which the machine can be created again, as C(manifest.json).
    type: bool
    default: false
  link:
    description: Which links of the export to use. V(internal) ones are for Pods of the cluster.
    type: str
    choices: [external, internal]
    default: external
  export_url:
    description:
      - Address at which virt-api, or upstream's virt-exportproxy, is reached, such as V(https://exports.example.com).
        By default the external links of the export have it.
    type: str
  export_ca:
    description: File with the authorities of the server's certificate, in PEM. By default those in the export, then
      the system's.
    type: path
  export_insecure:
    description: Don't verify the server's certificate.
    type: bool
    default: false
  retries:
    description: How many times an interrupted download is resumed without progress in between.
    type: int
    default: 5
  progress:
    description:
      - Seconds between progress lines; V(0) for none. They are shown only if the task runs in the controller's process,
        that is, with the connection C(local).
    type: int
    default: 10
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.metadata
  - turtles.kubevirt.wait
notes:
  - Only the user of the task may read what is downloaded (mode 0600).
  - What was downloaded is recorded in C(<dest>/.<name>.export.json). A disk isn't downloaded again while neither its
    file nor the disk on the server has changed since then. Disks of snapshots don't change.
  - O(wait_timeout) applies to the export, not to the downloads. O(dest) needs O(wait=true).
  - An export can't be changed, except for its labels and annotations. A task that declares something else for an
    existing one fails.
seealso:
  - module: turtles.kubevirt.export_info
  - module: turtles.kubevirt.snapshot
  - module: turtles.kubevirt.image_upload
"""

EXAMPLES = r"""
- name: Download the disks of a stopped machine
  turtles.kubevirt.export:
    name: db
    namespace: shop
    vm: db
    dest: /srv/backups/db
  register: db

- name: Show where they are
  ansible.builtin.debug:
    msg: "{{ db.files | map(attribute='path') }}"

- name: Download a disk of a snapshot, and the manifest of its machine
  turtles.kubevirt.export:
    name: before-upgrade
    namespace: shop
    snapshot: before-upgrade
    volumes: [db-data]
    format: raw
    dest: /srv/backups/before-upgrade
    manifest: true
    ttl: 8h

- name: Let others download a claim from outside the cluster
  turtles.kubevirt.export:
    name: logs
    namespace: shop
    claim: logs
    token_secret: logs-token
    ttl: 24h

- name: Stop offering it
  turtles.kubevirt.export:
    name: logs
    namespace: shop
    state: absent
"""

RETURN = r"""
result:
  description: The VirtualMachineExport as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: export.kubevirt.io/v1
    kind: VirtualMachineExport
    metadata: {name: db, namespace: shop}
    spec:
      source: {apiGroup: kubevirt.io, kind: VirtualMachine, name: db}
    status:
      phase: Ready
      tokenSecretRef: export-token-db
      virtualMachineName: db
phase:
  description: The export's phase.
  returned: success
  type: str
  sample: Ready
volumes:
  description: Names of the volumes that can be downloaded.
  returned: success
  type: list
  elements: str
  sample: [db-root, db-data]
files:
  description: What is in O(dest).
  returned: when O(dest) is given
  type: list
  elements: dict
  contains:
    volume:
      description: Name of the volume; empty for the manifest.
      type: str
      returned: success
      sample: db-root
    path:
      description: The file.
      type: str
      returned: success
      sample: /srv/backups/db/db-root.img.gz
    format:
      description: What it is; V(raw), V(gzip), V(tar.gz) or V(json).
      type: str
      returned: success
      sample: gzip
    bytes:
      description: Its size.
      type: int
      returned: success
      sample: 327155712
    disk_bytes:
      description: Size of the disk; 0 if it isn't one.
      type: int
      returned: success
      sample: 42949672960
    checksum:
      description: Hash of the file.
      type: str
      returned: success
      sample: sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
    downloaded:
      description: Whether this task has downloaded it.
      type: bool
      returned: success
      sample: true
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 12.3
"""

from ..module_utils import _exports, _resources
from ..module_utils._errors import KubeError
from ..module_utils._export_download import ExportDownload
from ..module_utils._exports import SOURCES
from ..module_utils._resource_module import ResourceModule
from ..module_utils._vm_status import phase_of
from ..module_utils._wait import condition, reasons

# Seconds for which an export may have nothing to offer.
PATIENCE = 30


class Export(ResourceModule):
    """A VirtualMachineExport, and what is downloaded from it."""

    KIND = _exports.KIND
    API_VERSION = "%s/%s" % (_exports.GROUP, _exports.VERSIONS[-1])
    READY = "ready for downloads"
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        **{option: {"type": "str"} for option in SOURCES},
        "ttl": {"type": "str"},
        "token_secret": {"type": "str", "no_log": False},
        "dest": {"type": "path"},
        "format": {"type": "str", "choices": ["gzip", "raw"], "default": "gzip"},
        "volumes": {"type": "list", "elements": "str"},
        "manifest": {"type": "bool", "default": False},
        "link": {"type": "str", "choices": ["external", "internal"], "default": "external"},
        "export_url": {"type": "str"},
        "export_ca": {"type": "path"},
        "export_insecure": {"type": "bool", "default": False},
        "retries": {"type": "int", "default": 5},
        "progress": {"type": "int", "default": 10},
    }
    RULES = {"mutually_exclusive": [list(SOURCES)]}

    def identify(self):
        super().identify()
        self.resource = _exports.resource_of(self.client)
        self.files = []
        if self.params["dest"] and not self.params["wait"]:
            raise KubeError("dest: needs wait=true, as only ready exports can be downloaded.")

    def declare(self, live):
        option = next((each for each in SOURCES if self.params[each]), None)
        if option is not None:
            _resources.check_name(option, self.params[option])
        elif live is None:
            raise KubeError("vm, snapshot or claim: missing for a new export. Give one of them.")
        spec = {"tokenSecretRef": self.params["token_secret"], "ttlDuration": self.params["ttl"]}
        if option is not None:
            kind, group = SOURCES[option]
            spec["source"] = {"kind": kind, "name": self.params[option], **({"apiGroup": group} if group else {})}
        wanted = {key: value for key, value in spec.items() if value is not None}
        if live is None:
            return {"spec": wanted}
        for name, key in ((option, "source"), ("token_secret", "tokenSecretRef"), ("ttl", "ttlDuration")):
            have = live["spec"].get(key)
            if key in wanted and _plain(wanted[key]) != _plain(have):
                raise KubeError(
                    "%s: export %s/%s has %s, not %s, and can't be changed. Choose another name, or delete it first."
                    % (name, self.namespace, self.name, _plain(have), _plain(wanted[key]))
                )
        return {}

    def present(self):
        outcome = super().present()
        if not self.params["dest"]:
            return outcome
        if phase_of(outcome.after) != "Ready":
            # In check mode nothing is waited for, and what isn't ready yet would be downloaded
            return outcome._replace(changed=True)
        self.files = ExportDownload(self, outcome.after).run()
        return outcome._replace(changed=outcome.changed or any(each["downloaded"] for each in self.files))

    # -- what a kind knows ------------------------------------------------------------------------------------------

    def is_ready(self, obj):
        return phase_of(obj) == "Ready"

    def hopeless(self, obj):
        reason = condition(obj, "Ready").get("reason")
        if phase_of(obj) == "Skipped":
            return {"there is nothing to export": 0}
        if reason in ("VMNotFound", "VMSnapshotNotFound") or condition(obj, "PVCReady").get("reason") == "PVCNotFound":
            return {"the object to export does not exist": PATIENCE}
        return {}

    def explain(self, obj):
        message = condition(obj, "Ready").get("message")
        return ([message] if message else reasons(obj)), {}

    def result(self, outcome):
        links = ((outcome.after or {}).get("status") or {}).get("links") or {}
        link = links.get(self.params["link"]) or links.get("internal") or {}
        keys = {
            "phase": phase_of(outcome.after),
            "volumes": [volume["name"] for volume in link.get("volumes") or ()],
        }
        result = {**super().result(outcome), **keys}
        if self.params["dest"] and self.params["state"] == "present":
            result["files"] = self.files
            result["diff"]["before"] = {"object": result["diff"]["before"], "files": self._listed(downloaded=False)}
            result["diff"]["after"] = {"object": result["diff"]["after"], "files": self._listed()}
        return result

    def _listed(self, downloaded=True):
        return [each["path"] for each in self.files if downloaded or not each["downloaded"]]


def _plain(value):
    return "%s %s" % (value["kind"], value["name"]) if isinstance(value, dict) else value


MODULE = Export
main = MODULE.main


if __name__ == "__main__":
    main()
