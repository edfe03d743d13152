#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module data_volume."""

from __future__ import annotations

DOCUMENTATION = r"""
module: data_volume
short_description: Declare disks and the source of their content
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates or deletes a DataVolume of the Containerized Data Importer's API (C(cdi.kubevirt.io/v1beta1)), which creates
    a PersistentVolumeClaim of the same name and fills it with a disk, such as an image from a web server.
  - A virtual machine uses the disk as a volume C(dataVolume), which waits until the disk is complete.
  - Works with this collection's engine and with upstream's Containerized Data Importer, which supports more sources.
options:
  state:
    description: Whether the DataVolume should exist. With V(absent) its claim and the disk on it are deleted as well.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the DataVolume and of its claim.
    type: str
    required: true
  namespace:
    description: Namespace of the DataVolume. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  url:
    description:
      - Address of a disk image with V(http) or V(https). Formats are raw, ISO, qcow2, VMDK, VDI, VHD and VHDX, plain or
        compressed with gzip, xz or zstd. Shorthand for C(http.url) of O(source).
    type: str
  checksum:
    description:
      - Expected hash of the file at O(url), such as V(sha256:e3b0c442…), by md5, sha1, sha256 or sha512. A file that
        doesn't match is refused. Shorthand for C(http.checksum) of O(source).
    type: str
  source:
    description:
      - Source of the content, in the form of the API's C(spec.source). An empty object C(blank) gives an empty disk.
    type: dict
  source_ref:
    description:
      - Name of the DataSource whose disk is copied, instead of O(source), or V(NAMESPACE/NAME) for one in another
        namespace, which requires permission to create C(datavolumes/source) there.
    type: str
  size:
    description:
      - Size of the disk, such as V(20Gi). The claim of a volume with a file system is larger by the space that the file
        system itself needs.
      - Required for a new DataVolume, unless O(pvc) gives it.
    type: str
  storage_class:
    description: Name of the StorageClass. Defaults to the cluster's default class.
    type: str
  access_modes:
    description: How the volume is used, such as V([ReadWriteMany]). Defaults to those that the StorageClass is known to
      support.
    type: list
    elements: str
  volume_mode:
    description: Whether the volume has a file system. Defaults to those that the StorageClass is known to support.
    type: str
    choices: [Filesystem, Block]
  pvc:
    description:
      - The claim's spec, used as it is, instead of O(size), O(storage_class), O(access_modes) and O(volume_mode).
    type: dict
  preallocation:
    description: Whether all of the disk's storage is reserved before anything is written.
    type: bool
  bind_immediately:
    description:
      - Whether the import starts immediately even if the StorageClass binds claims only when a Pod uses them
        (C(WaitForFirstConsumer), like C(local-path) in standalone mode). Otherwise it begins when a virtual machine
        that uses the disk is started, on that machine's node.
    type: bool
    default: false
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.metadata
  - turtles.kubevirt.wait
notes:
  - O(wait) waits until the disk is complete, or until nothing is missing but a virtual machine that uses it. A failing
    import is retried; once it has been failing for half a minute, the task fails with the importer's message.
  - A DataVolume can't be changed, except for its labels and annotations.
seealso:
  - module: turtles.kubevirt.data_volume_info
  - module: turtles.kubevirt.data_source
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Import an image, and verify it
  turtles.kubevirt.data_volume:
    name: web-root
    namespace: shop
    url: https://images.example.com/debian-13-amd64.qcow2
    checksum: sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
    size: 20Gi
    bind_immediately: true
    wait_timeout: 1800

- name: Create an empty disk for data
  turtles.kubevirt.data_volume:
    name: web-data
    namespace: shop
    source:
      blank: {}
    size: 100Gi

- name: Import from a server with a password and a certificate of the company's own authority
  turtles.kubevirt.data_volume:
    name: appliance
    namespace: shop
    source:
      http:
        url: https://images.internal.example.com/appliance.vmdk.xz
        secretRef: image-server
        certConfigMap: company-ca
    size: 40Gi

- name: Copy an image that others use as well
  turtles.kubevirt.data_volume:
    name: web-root
    namespace: shop
    source_ref: images/debian
    size: 20Gi

- name: Use an imported disk
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    state: running
    memory: 2Gi
    disks:
      - {name: root, data_volume: web-root}

- name: Delete the disk and all that is on it
  turtles.kubevirt.data_volume:
    name: web-data
    namespace: shop
    state: absent
"""

RETURN = r"""
result:
  description: The DataVolume as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: cdi.kubevirt.io/v1beta1
    kind: DataVolume
    metadata: {name: web-root, namespace: shop}
    spec:
      source: {http: {url: https://images.example.com/debian-13-amd64.qcow2}}
      storage: {resources: {requests: {storage: 20Gi}}}
    status: {claimName: web-root, phase: Succeeded, progress: 100.0%, restartCount: 0}
phase:
  description: Phase of the DataVolume, such as Succeeded, ImportInProgress or WaitForFirstConsumer.
  returned: success
  type: str
  sample: Succeeded
progress:
  description: Progress in percent, or N/A.
  returned: success
  type: str
  sample: 100.0%
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 12.3
"""

from ..module_utils import _data_volume, _resources, _wait
from ..module_utils._errors import KubeError
from ..module_utils._resource_module import ResourceModule
from ..module_utils._values import plain
from ..module_utils._vm_status import phase_of

# Seconds for which an importer may fail.
PATIENCE = 30
AWAITS_MACHINE = ("WaitForFirstConsumer", "PendingPopulation")


class DataVolume(ResourceModule):
    """A DataVolume."""

    KIND = "DataVolume"
    API_VERSION = _data_volume.API_VERSION
    READY = "complete"
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "url": {"type": "str"},
        "checksum": {"type": "str"},
        "source": {"type": "dict"},
        "source_ref": {"type": "str"},
        **_data_volume.ARGUMENTS,
        "pvc": {"type": "dict"},
        "preallocation": {"type": "bool"},
        "bind_immediately": {"type": "bool", "default": False},
    }
    RULES = {
        "mutually_exclusive": [
            ("url", "source", "source_ref"),
            ("checksum", "source"),
            *(("pvc", option) for option in _data_volume.ARGUMENTS),
        ],
        "required_by": {"checksum": ("url",)},
    }

    def declare(self, live):
        if live is None:
            self._check_complete()
        bound = {"annotations": {_data_volume.BIND_IMMEDIATELY: "true"}} if self.params["bind_immediately"] else {}
        spec = {
            key: value
            for key, value in (
                ("source", self._source()),
                ("sourceRef", self._source_ref()),
                ("pvc", plain(self.params["pvc"])),
                ("storage", _data_volume.storage_of(self.params)),
                ("preallocation", self.params["preallocation"]),
            )
            if value is not None
        }
        return {"metadata": bound, "spec": spec}

    def _check_complete(self):
        if all(self.params[option] is None for option in ("url", "source", "source_ref")):
            raise KubeError(
                "url: missing for a new DataVolume. Give the address of a disk image, source, such as {blank: {}}, or "
                "source_ref."
            )
        if self.params["size"] is None and self.params["pvc"] is None:
            raise KubeError("size: missing for a new DataVolume. Give the disk's size, such as 20Gi, or pvc.")

    def _source(self):
        if self.params["url"] is None:
            return plain(self.params["source"])
        checksum = self.params["checksum"]
        return {"http": {"url": self.params["url"], **({} if checksum is None else {"checksum": checksum})}}

    def _source_ref(self):
        if self.params["source_ref"] is None:
            return None
        namespace, slash, name = self.params["source_ref"].rpartition("/")
        _resources.check_name("source_ref", name)
        if slash:
            _resources.check_name("source_ref", namespace)
        return {"kind": "DataSource", "name": name, **({"namespace": namespace} if slash else {})}

    def refused(self, exc, resource, namespace, name):
        if "Cannot update DataVolume Spec" in str(exc):
            return KubeError(
                "%s %s/%s exists, but was created from something else, and its spec can't be changed. Give another "
                "name, or delete it first (state=absent), which deletes the disk." % (self.KIND, namespace, name),
                **exc.facts,
            )
        return super().refused(exc, resource, namespace, name)

    def is_ready(self, obj):
        return phase_of(obj) in ("Succeeded", *AWAITS_MACHINE)

    def hopeless(self, obj):
        if phase_of(obj) == "Failed":
            return {"the import failed": 0}
        running = _wait.condition(obj, "Running")
        return {"the import keeps failing": PATIENCE} if running.get("reason") == "Error" else {}

    def explain(self, obj):
        status = (obj or {}).get("status") or {}
        running = _wait.condition(obj, "Running")
        troubles = ["It is in phase %s, %s done" % (status.get("phase") or "Pending", status.get("progress") or "N/A")]
        return troubles + ([running["message"]] if running.get("message") else []), {}

    def result(self, outcome):
        status = (outcome.after or {}).get("status") or {}
        return {
            **super().result(outcome),
            "phase": status.get("phase") or "",
            "progress": status.get("progress") or "N/A",
        }


MODULE = DataVolume
main = MODULE.main


if __name__ == "__main__":
    main()
