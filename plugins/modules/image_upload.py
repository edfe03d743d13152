#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module image_upload."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_upload
short_description: Upload a disk image, or files, into a new volume
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates a DataVolume of the Containerized Data Importer's API (C(cdi.kubevirt.io/v1beta1)) with the source
    C(upload), and sends it a disk image of the host that the task runs on, as C(virtctl image-upload) does.
  - An interrupted upload is restarted.
  - Works with this collection's engine and with upstream's Containerized Data Importer.
options:
  name:
    description: Name of the DataVolume and of its claim.
    type: str
    required: true
  namespace:
    description: Namespace of the DataVolume. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  src:
    description:
      - Path of the image, a file or a block device, on the host that the task runs on. Formats are raw, ISO, qcow2,
        VMDK, VDI, VHD and VHDX, plain or compressed with gzip, xz or zstd.
    type: path
    required: true
  archive:
    description:
      - O(src) is a tar archive, plain or compressed with gzip, xz or zstd, and the volume gets its files in place of a
        disk.
    type: bool
    default: false
  checksum:
    description:
      - Expected hash of O(src), such as V(sha256:e3b0c442…), by md5, sha1, sha256 or sha512.
    type: str
  size:
    description:
      - Size of the disk, such as V(20Gi), at least that of the image. The claim of a volume with a file system is
        larger by the space that the file system itself needs. Required for a new DataVolume.
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
  preallocation:
    description: Whether all of the disk's storage is reserved before anything is written.
    type: bool
  upload_proxy_url:
    description:
      - Address of the upload proxy, such as V(https://uploads.example.com). Defaults to the address in the object
        CDIConfig, which this collection's engine sets in standalone mode, and an administrator on a cluster.
    type: str
  upload_proxy_ca:
    description:
      - File with the certificate authorities to trust for the upload proxy, in PEM. Defaults to those in the object
        CDIConfig, then to the system's.
    type: path
  upload_proxy_insecure:
    description: Don't verify the upload proxy's certificate.
    type: bool
    default: false
  retries:
    description: How many times an interrupted upload is restarted.
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
  - An uploaded disk has an annotation with the checksum of the file. The same file isn't uploaded again, and a
    different one is refused as long as the disk exists. Delete the disk with M(turtles.kubevirt.data_volume) first.
  - O(wait) waits until the disk is complete. Without it, the task ends when the image has been sent, and the
    DataVolume's conditions say whether anything is wrong with it. O(wait_timeout) covers the time before and after
    sending.
seealso:
  - module: turtles.kubevirt.data_volume
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Upload an image
  turtles.kubevirt.image_upload:
    name: appliance
    namespace: shop
    src: /srv/images/appliance.qcow2
    size: 40Gi

- name: Upload an image to a cluster, and verify it
  turtles.kubevirt.image_upload:
    name: installer
    namespace: shop
    src: /srv/images/installer.iso
    checksum: sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
    size: 5Gi
    upload_proxy_url: https://uploads.example.com
    wait_timeout: 1800

- name: Upload files
  turtles.kubevirt.image_upload:
    name: content
    namespace: shop
    src: /srv/files/content.tar.xz
    archive: true
    size: 2Gi

- name: Boot from it
  turtles.kubevirt.vm:
    name: appliance
    namespace: shop
    state: running
    memory: 2Gi
    disks:
      - {name: root, data_volume: appliance}
"""

RETURN = r"""
result:
  description: The DataVolume as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: cdi.kubevirt.io/v1beta1
    kind: DataVolume
    metadata: {name: appliance, namespace: shop}
    spec:
      source: {upload: {}}
      storage: {resources: {requests: {storage: 40Gi}}}
    status: {claimName: appliance, phase: Succeeded, progress: 100.0%, restartCount: 0}
phase:
  description: Phase of the DataVolume, such as Succeeded or UploadReady.
  returned: success
  type: str
  sample: Succeeded
checksum:
  description: Hash of the file.
  returned: success
  type: str
  sample: sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
bytes:
  description: Number of bytes sent; 0 if the disk already existed.
  returned: success
  type: int
  sample: 327155712
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 12.3
"""

import time

from ..module_utils import _data_volume, _resources, _transfer, _upload, _wait
from ..module_utils._errors import KubeError
from ..module_utils._resource_module import ResourceModule
from ..module_utils._vm_status import phase_of

CHECKSUM = "turtles.kubevirt/uploaded"
CONFIG_PATH = "/apis/%s/cdiconfigs/config" % _data_volume.API_VERSION
TOKENS_PATH = "/apis/upload.cdi.kubevirt.io/v1beta1/namespaces/%s/uploadtokenrequests"
# Length of a hash's hexadecimal digits.
ALGORITHMS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
# Seconds before an upload is begun again, and for which an upload server may fail.
PAUSE = 2
PATIENCE = 30


class ImageUpload(ResourceModule):
    """A DataVolume that an image is sent to."""

    KIND = "DataVolume"
    API_VERSION = _data_volume.API_VERSION
    READY = "complete"
    STATES = ("present",)
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        "src": {"type": "path", "required": True},
        "archive": {"type": "bool", "default": False},
        "checksum": {"type": "str"},
        **_data_volume.ARGUMENTS,
        "preallocation": {"type": "bool"},
        "upload_proxy_url": {"type": "str"},
        "upload_proxy_ca": {"type": "path"},
        "upload_proxy_insecure": {"type": "bool", "default": False},
        "retries": {"type": "int", "default": 5},
        "progress": {"type": "int", "default": 10},
    }

    @classmethod
    def arguments(cls):
        """Return the keyword arguments of AnsibleModule: there is one state only."""
        inherited = super().arguments()
        inherited["argument_spec"] = {key: value for key, value in inherited["argument_spec"].items() if key != "state"}
        return inherited

    def run(self):
        self.params = {**self.params, "state": "present"}
        self.sent = self.restarts = 0
        self.source = _upload.Source(self.params["src"])
        self.checksum = self._checksum()
        return super().run()

    def _checksum(self):
        wanted = self.params["checksum"] or "sha256:"
        algorithm, _colon, digits = wanted.partition(":")
        if algorithm not in ALGORITHMS or (self.params["checksum"] and len(digits) != ALGORITHMS[algorithm]):
            forms = ", ".join("%s:<%d hexadecimal digits>" % pair for pair in ALGORITHMS.items())
            raise KubeError("checksum: %r doesn't have one of the forms %s." % (wanted, forms))
        checksum = self.source.digest(algorithm)
        if digits and checksum != digits.lower():
            raise KubeError(
                "checksum: %s has the %s checksum %s, not %s: it is another file, or is corrupt."
                % (self.source.path, algorithm, checksum, digits)
            )
        return "%s:%s" % (algorithm, checksum)

    def declare(self, live):
        if live is None and self.params["size"] is None:
            raise KubeError("size: missing for a new disk. Give its size, such as 20Gi.")
        if live is not None:
            self._check(live)
        own = {CHECKSUM: self.checksum, _data_volume.BIND_IMMEDIATELY: "true"}
        spec = {
            "source": {"upload": {}},
            "storage": _data_volume.storage_of(self.params),
            "preallocation": self.params["preallocation"],
            "contentType": "archive" if self.params["archive"] else None,
        }
        return {
            "metadata": {"annotations": own},
            "spec": {key: value for key, value in spec.items() if value is not None},
        }

    def _check(self, live):
        """Refuse a DataVolume that was created from something else."""
        where = _resources.label(live)
        if (live["spec"].get("source") or {}).get("upload") is None:
            raise KubeError("%s exists, but not for an upload. Give another name, or delete it first." % where)
        content = live["spec"].get("contentType") or "kubevirt"
        if (content == "archive") != self.params["archive"]:
            raise KubeError(
                "%s exists with the contentType %s, which archive=%s doesn't fit. Give another name, or delete it "
                "first." % (where, content, str(self.params["archive"]).lower())
            )
        checksum = (live["metadata"].get("annotations") or {}).get(CHECKSUM)
        if checksum == self.checksum:
            return
        algorithm = (checksum or "").partition(":")[0]
        if algorithm in ALGORITHMS and checksum == "%s:%s" % (algorithm, self.source.digest(algorithm)):
            # The same file, by another hash
            self.checksum = checksum
            return
        if phase_of(live) == "Succeeded" or checksum is not None:
            raise KubeError(
                "%s exists, and was created from another file (%s). Give another name, or delete it first, which "
                "deletes the disk." % (where, checksum or "without a checksum")
            )

    def refused(self, exc, resource, namespace, name):
        if "Cannot update DataVolume Spec" in str(exc):
            return KubeError(
                "%s %s/%s exists with another size or storage, which can't be changed. Give another name, or delete it "
                "first, which deletes the disk." % (self.KIND, namespace, name),
                **exc.facts,
            )
        return super().refused(exc, resource, namespace, name)

    def present(self):
        outcome = self.apply(*self.where, self.declared)
        if phase_of(outcome.after) == "Succeeded":
            return outcome
        outcome = outcome._replace(changed=True)
        if self.check_mode:
            return outcome
        self.changed = True
        ready = self.until(_takes_images, "ready for an upload", self.hopeless)
        if phase_of(ready) == "UploadReady":
            self.restarts = _restarts(ready)
            self._send()
        self.deadline.restart()
        if not self.params["wait"]:
            return outcome._replace(after=self.live(*self.where, again=True))
        return outcome._replace(after=self.until(self.is_ready, self.READY, self.hopeless))

    def _send(self):
        proxy = self._proxy()
        show = _transfer.Meter(self.source.size, self._say, self.params["progress"])
        for left in range(self.params["retries"], -1, -1):
            try:
                proxy.send(self._token(), self.source, show, self.deadline.seconds, archive=self.params["archive"])
                self.sent = self.source.size
                return
            except _transfer.Broken as exc:
                if not left:
                    raise KubeError(
                        "%s couldn't be uploaded into %s: %s (retries)."
                        % (self.source.path, _resources.name_of(*self.where), exc)
                    ) from exc
                self._say("%s; sent again" % exc)
                time.sleep(PAUSE)

    def _say(self, text):
        if self.params["progress"]:
            _transfer.show(self.module, "%s: %s" % (_resources.name_of(*self.where), text))

    def _token(self):
        request = {
            "apiVersion": "upload.cdi.kubevirt.io/v1beta1",
            "kind": "UploadTokenRequest",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"pvcName": self.name},
        }
        token = self.client.request("POST", TOKENS_PATH % self.namespace, body=request)["status"]["token"]
        self.module.no_log_values.add(token)
        return token

    def _proxy(self):
        url, path = self.params["upload_proxy_url"], self.params["upload_proxy_ca"]
        config = {}
        if not url or not (path or self.params["upload_proxy_insecure"]):
            config = self.client.get(CONFIG_PATH) or {}
        spec, status = config.get("spec") or {}, config.get("status") or {}
        override = spec.get("uploadProxyURLOverride")
        address = url or override or status.get("uploadProxyURL")
        if not address:
            raise KubeError("upload_proxy_url: missing. The cluster's CDIConfig has no address for its proxy.")
        authorities = status.get("uploadProxyCA")
        authorities = _transfer.read_authorities("upload_proxy_ca", path) or authorities
        return _upload.Proxy(address, authorities, not self.params["upload_proxy_insecure"])

    def is_ready(self, obj):
        return phase_of(obj) == "Succeeded"

    def hopeless(self, obj):
        if phase_of(obj) == "Failed":
            return {"the upload failed": 0}
        is_failing = _wait.condition(obj, "Running").get("reason") == "Error"
        if self.sent:
            # What was said of an earlier image may be there still
            return {"the image can't be used": 0} if is_failing and _restarts(obj) > self.restarts else {}
        return {"the upload server fails": PATIENCE} if is_failing and phase_of(obj) != "UploadReady" else {}

    def explain(self, obj):
        running = _wait.condition(obj, "Running")
        troubles = ["It is in phase %s" % (phase_of(obj) or "Pending")]
        if phase_of(obj) == "WaitForFirstConsumer":
            troubles.append("its claim is bound when a Pod uses it")
        return troubles + ([running["message"]] if running.get("message") else []), {}

    def result(self, outcome):
        keys = {"phase": phase_of(outcome.after), "checksum": self.checksum, "bytes": self.sent}
        return {**super().result(outcome), **keys}


def _takes_images(obj):
    return phase_of(obj) in ("UploadReady", "Succeeded")


def _restarts(obj):
    return ((obj or {}).get("status") or {}).get("restartCount") or 0


MODULE = ImageUpload
main = MODULE.main


if __name__ == "__main__":
    main()
