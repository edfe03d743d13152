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
    download is resumed, and a disk that is there already isn't downloaded again.
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
    description: How many times an interrupted download is resumed without having got any further in between.
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
  - An export can't be changed, except for its labels and annotations. A task that declares something
    else for one that exists fails.
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

- name: Download a disk of a snapshot, and what makes the machine again
  turtles.kubevirt.export:
    name: before-upgrade
    namespace: shop
    snapshot: before-upgrade
    volumes: [db-data]
    format: raw
    dest: /srv/backups/before-upgrade
    manifest: true
    ttl: 8h

- name: Let somebody else download a claim, from outside of a cluster
  turtles.kubevirt.export:
    name: logs
    namespace: shop
    claim: logs
    token_secret: logs-token
    ttl: 24h

- name: Don't offer it any longer
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

import base64
import binascii
import json
import os
import time
from urllib.parse import urlsplit

from ..module_utils import _download, _exports, _resources, _upload
from ..module_utils._download_record import Record
from ..module_utils._errors import KubeError
from ..module_utils._exports import phase_of
from ..module_utils._resource_module import ResourceModule
from ..module_utils._wait import condition, reasons

# By option: kind and group of what is exported.
SOURCES = {
    "vm": ("VirtualMachine", "kubevirt.io"),
    "snapshot": ("VirtualMachineSnapshot", "snapshot.kubevirt.io"),
    "claim": ("PersistentVolumeClaim", None),
}
ENDINGS = {"raw": ".img", "gzip": ".img.gz", "tar.gz": ".tar.gz"}
MANIFEST = "manifest.json"
# Seconds before a download is gone on with.
PAUSE = 2
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
            raise KubeError("dest: needs wait=true: what isn't ready can't be downloaded.")

    def declare(self, live):
        option = next((each for each in SOURCES if self.params[each]), None)
        if option is not None:
            _resources.check_name(option, self.params[option])
        elif live is None:
            raise KubeError("vm, snapshot or claim: missing for a new export. Name what it is of.")
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
        changed = self._download(outcome.after)
        return outcome._replace(changed=outcome.changed or changed)

    # -- downloads --------------------------------------------------------------------------------------------------

    def _download(self, export):
        """Download what isn't there; return whether there was anything."""
        link = self._link(export)
        known = {volume["name"]: _formats(volume) for volume in link.get("volumes") or ()}
        chosen = self.params["volumes"] or list(known)
        if missing := [name for name in chosen if name not in known]:
            raise KubeError(
                "volumes: the export has no %s; there are %s." % (", ".join(missing), ", ".join(known) or "none")
            )
        self.server = _download.Server(self._token(export), self._authorities(link), not self.params["export_insecure"])
        record = Record(self.params["dest"], self.name, self.check_mode)
        for name in chosen:
            self.files.append(self._volume(export, record, name, known[name]))
        if self.params["manifest"]:
            self.files.append(self._manifest(record, link))
        return any(each["downloaded"] for each in self.files)

    def _volume(self, export, record, name, formats):
        form = self.params["format"] if "raw" in formats else "tar.gz"
        if form not in formats:
            raise KubeError("The export offers volume %s as %s, not as %s." % (name, ", ".join(formats), form))
        size, tag = self._retried(lambda: self.server.head(formats["raw"])) if "raw" in formats else (0, "")
        path = os.path.join(self.params["dest"], name.replace(os.sep, "_") + ENDINGS[form])
        source = export["spec"]["source"]
        about = {"format": form, "source": [source["kind"], source["name"], self._of(export)], "tag": tag}
        if source["kind"] == SOURCES["snapshot"][0]:
            # Claims are made of it again and again, with the same content
            about["tag"] = ""
        earlier = record.find(path, about)
        facts = {"volume": name, "path": path, "format": form, "disk_bytes": size}
        if earlier is not None:
            return {**facts, **earlier, "downloaded": False}
        self.changed = self.changed or not self.check_mode
        if self.check_mode:
            return {**facts, "bytes": 0, "checksum": "", "downloaded": True}
        record.check_space(size if form == "raw" else 0)
        part = _download.Part(path, sparse=form == "raw")
        total = size if form == "raw" else 0
        meter = _upload.Meter(total, lambda text: self._say(name, text), self.params["progress"], "received")
        try:
            self._retried(lambda: self.server.fetch(formats[form], part, meter), part)
            checksum = part.finish()
        finally:
            part.close()
        return {**facts, **record.note(path, about, checksum), "downloaded": True}

    def _of(self, export):
        """Return what tells the content of an export from that of another: uid of a snapshot, or of nothing."""
        source = export["spec"]["source"]
        if source["kind"] != SOURCES["snapshot"][0]:
            return ""
        snapshot = _resources.known("snapshot.kubevirt.io/v1beta1", source["kind"])
        live = self.client.get(_resources.path(snapshot, self.namespace, source["name"]))
        return (live or {"metadata": {}})["metadata"].get("uid") or export["metadata"]["uid"]

    def _manifest(self, record, link):
        path = os.path.join(self.params["dest"], MANIFEST)
        url = next((each["url"] for each in link.get("manifests") or () if each["type"] == "all"), None)
        if url is None:
            raise KubeError("manifest: the export has none; only those of machines and snapshots have.")
        text = self._retried(lambda: self.server.text(self._address(url)))
        try:
            text = json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
        except ValueError as exc:
            raise KubeError("The manifest of the export isn't JSON: %s" % exc) from exc
        facts = {"volume": "", "path": path, "format": "json", "disk_bytes": 0}
        return {**facts, **record.write(path, text)}

    def _retried(self, act, part=None):
        """Do something over the network, again if it breaks off and nothing comes of it."""
        left = self.params["retries"]
        while True:
            before = part.size if part is not None else 0
            try:
                return act()
            except _download.Broken as exc:
                if self.params["retries"] and part is not None and part.size > before:
                    left = self.params["retries"]
                elif left:
                    left -= 1
                else:
                    raise KubeError(
                        "%s couldn't be downloaded: %s (retries)." % (_resources.name_of(*self.where), exc)
                    ) from exc
                restarts = part is not None and part.size and not part.tag
                words = "begun again, as only format=raw can be gone on with" if restarts else "tried again"
                self._say("", "%s; %s" % (exc, words))
                time.sleep(PAUSE)

    def _say(self, volume, text):
        show = getattr(self.module, "progress", None)
        if show and self.params["progress"]:
            show("%s%s: %s" % (_resources.name_of(*self.where), " " + volume if volume else "", text))

    def _link(self, export):
        """Return the links to use, with addresses as this host reaches them."""
        links = export["status"].get("links") or {}
        wanted = self.params["link"]
        link = links.get(wanted)
        if link is None and self.params["export_url"]:
            link = links.get("internal")
        if link is None:
            raise KubeError(
                "The export has no %s links: nobody has told the cluster how virt-api is reached from outside. Set "
                "export_url, or link=internal in a Pod." % wanted
            )
        volumes = [
            {**volume, "formats": [{**each, "url": self._address(each["url"])} for each in volume.get("formats") or ()]}
            for volume in link.get("volumes") or ()
        ]
        return {**link, "volumes": volumes}

    def _address(self, url):
        """Return an address of a link, at the proxy that export_url names."""
        proxy = self.params["export_url"]
        if not proxy:
            return url
        root = "/api/%s/namespaces/%s/%s/%s" % (
            self.resource.api_version,
            self.namespace,
            self.resource.plural,
            self.name,
        )
        path = urlsplit(url).path
        if "/%s/%s/" % (self.resource.plural, self.name) in path:
            path = path.partition("/%s/%s/" % (self.resource.plural, self.name))[2]
        proxy = proxy if "://" in proxy else "https://%s" % proxy
        return "%s%s/%s" % (proxy.rstrip("/"), root, path.lstrip("/"))

    def _authorities(self, link):
        path = self.params["export_ca"]
        if not path:
            return link.get("cert") or None
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except (OSError, ValueError) as exc:
            raise KubeError("export_ca: %s can't be read: %s." % (path, exc)) from exc

    def _token(self, export):
        name = export["status"].get("tokenSecretRef") or self.params["token_secret"]
        secret = self.client.get(_resources.path(_resources.known("v1", "Secret"), self.namespace, name))
        try:
            token = base64.b64decode(((secret or {}).get("data") or {})["token"], validate=True).decode().strip()
        except (KeyError, binascii.Error, UnicodeDecodeError) as exc:
            raise KubeError("Secret %s/%s has no usable key token." % (self.namespace, name)) from exc
        self.module.no_log_values.add(token)
        return token

    # -- what a kind knows ------------------------------------------------------------------------------------------

    def is_ready(self, obj):
        return phase_of(obj) == "Ready"

    def hopeless(self, obj):
        reason = condition(obj, "Ready").get("reason")
        if phase_of(obj) == "Skipped":
            return {"there is nothing to export": 0}
        if reason in ("VMNotFound", "VMSnapshotNotFound") or condition(obj, "PVCReady").get("reason") == "PVCNotFound":
            return {"what is to be exported does not exist": PATIENCE}
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


def _formats(volume):
    return {each["format"]: each["url"] for each in volume.get("formats") or ()}


def _plain(value):
    return "%s %s" % (value["kind"], value["name"]) if isinstance(value, dict) else value


MODULE = Export
main = MODULE.main


if __name__ == "__main__":
    main()
