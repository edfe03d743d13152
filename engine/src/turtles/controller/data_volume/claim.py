# SPDX-License-Identifier: GPL-3.0-or-later
"""The claims of a DataVolume, as pure functions: the one with the disk, and one for what has to be stored meanwhile.

Rules: CDI user guide, "DataVolumes" (pvc and storage), "Storage profiles", "Filesystem overhead", "Scratch space".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from turtles.api import cdi, quantity, uploads
from turtles.api.objects import Object, owner_reference

_MIB = 1 << 20
_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_DEFAULT_VIRT = "storageclass.kubevirt.io/is-default-virt-class"
#: What the volumes of some provisioners can do, the best for virtual machines first: access mode and volumeMode.
_PROVISIONERS = {
    "turtles.kubevirt/local-path": ("ReadWriteOnce", "Filesystem"),
    "rancher.io/local-path": ("ReadWriteOnce", "Filesystem"),
    "kubevirt.io.hostpath-provisioner": ("ReadWriteOnce", "Filesystem"),
    "kubevirt.io/hostpath-provisioner": ("ReadWriteOnce", "Filesystem"),
    "hostpath.csi.k8s.io": ("ReadWriteOnce", "Filesystem"),
    "kubernetes.io/no-provisioner": ("ReadWriteOnce", "Filesystem"),
    "nfs.csi.k8s.io": ("ReadWriteMany", "Filesystem"),
    "rook-ceph.rbd.csi.ceph.com": ("ReadWriteMany", "Block"),
    "rbd.csi.ceph.com": ("ReadWriteMany", "Block"),
    "rook-ceph.cephfs.csi.ceph.com": ("ReadWriteMany", "Filesystem"),
    "cephfs.csi.ceph.com": ("ReadWriteMany", "Filesystem"),
    "driver.longhorn.io": ("ReadWriteMany", "Block"),
    "linstor.csi.linbit.com": ("ReadWriteMany", "Block"),
    "topolvm.io": ("ReadWriteOnce", "Block"),
    "ebs.csi.aws.com": ("ReadWriteOnce", "Block"),
    "disk.csi.azure.com": ("ReadWriteOnce", "Block"),
    "pd.csi.storage.gke.io": ("ReadWriteOnce", "Block"),
}


class ClaimError(Exception):
    """There can't be a claim as things are. The message says what to change."""


def storage_class_of(name: str | None, classes: Iterable[Object]) -> Object | None:
    """Return the StorageClass of a claim that names this one, or none: then the default one for machines, or for all.

    :param name: may be empty: no class.
    """
    known = list(classes)
    if name is not None:
        return next((each for each in known if each["metadata"]["name"] == name), None)
    for mark in (_DEFAULT_VIRT, _DEFAULT):
        for each in known:
            if (each["metadata"].get("annotations") or {}).get(mark) == "true":
                return each
    return None


def waits_for_consumer(storage_class: Mapping[str, Any] | None) -> bool:
    """Say whether a claim is bound only when a Pod uses it."""
    return (storage_class or {}).get("volumeBindingMode") == "WaitForFirstConsumer"


def claim(data_volume: Object, classes: Iterable[Object]) -> Object:
    """Return the claim to create.

    :raises ClaimError: nobody says how the volume is to be used.
    """
    spec, metadata = data_volume["spec"], data_volume["metadata"]
    wanted = _completed(spec["storage"], classes) if spec.get("storage") is not None else dict(spec["pvc"])
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {
                **(metadata.get("labels") or {}),
                cdi.APP: cdi.APP_IMPORTER,
                "app.kubernetes.io/part-of": "kubevirt",
            },
            "annotations": {
                **_passed_on(metadata.get("annotations") or {}),
                cdi.CONTENT_TYPE: spec.get("contentType") or "kubevirt",
                cdi.IMPORT_SOURCE: "none" if "blank" in spec["source"] else next(iter(spec["source"])),
                **({uploads.TARGET: ""} if spec["source"].get("upload") is not None else {}),
            },
            "ownerReferences": [owner_reference(data_volume)],
        },
        "spec": wanted,
    }


def scratch_name(data_volume: Object) -> str:
    """Return the name of the claim for what has to be stored meanwhile."""
    return f"{data_volume['metadata']['name']}-scratch"


def scratch(data_volume: Object, target: Object) -> Object:
    """Return the claim for what has to be stored meanwhile: as large as the one with the disk.

    :param target: that one.
    """
    metadata, spec = data_volume["metadata"], target["spec"]
    wanted: Object = {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": spec["resources"]["requests"]["storage"]}},
    }
    if spec.get("storageClassName") is not None:
        wanted["storageClassName"] = spec["storageClassName"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": scratch_name(data_volume),
            "namespace": metadata["namespace"],
            "labels": {cdi.APP: cdi.APP_IMPORTER},
            "ownerReferences": [owner_reference(data_volume)],
        },
        "spec": wanted,
    }


def disk_size(data_volume: Object, target: Object) -> int:
    """Return how many bytes the disk on the claim has.

    That is what `storage` asks for; of a claim as `pvc` has it, all that a file system doesn't need for itself.
    """
    storage = data_volume["spec"].get("storage")
    if storage is not None:
        return quantity.to_int(storage["resources"]["requests"]["storage"])
    size = quantity.to_int(target["spec"]["resources"]["requests"]["storage"])
    if is_block(target):
        return size
    return max(_MIB, int(size * (1 - cdi.FILESYSTEM_OVERHEAD)) // _MIB * _MIB)


def is_block(target: Mapping[str, Any]) -> bool:
    """Say whether the volume of a claim is a device."""
    return bool(target["spec"].get("volumeMode") == "Block")


def _completed(storage: Mapping[str, Any], classes: Iterable[Object]) -> Object:
    """Return a claim's spec, made of the form `storage`."""
    found = storage_class_of(storage.get("storageClassName"), classes)
    mode, volume_mode = _PROVISIONERS.get((found or {}).get("provisioner") or "", (None, "Filesystem"))
    wanted = dict(storage)
    if not wanted.get("accessModes"):
        if mode is None:
            which = f"StorageClass {found['metadata']['name']}" if found else "there is no default StorageClass, which"
            raise ClaimError(
                f"{which} doesn't say how its volumes are used: name accessModes in spec.storage"
                + ("" if found else ", or a storageClassName")
            )
        wanted["accessModes"] = [mode]
        wanted.setdefault("volumeMode", volume_mode)
    wanted.setdefault("volumeMode", "Filesystem")
    if found is not None:
        wanted.setdefault("storageClassName", found["metadata"]["name"])
    if wanted["volumeMode"] == "Filesystem":
        size = quantity.to_int(storage["resources"]["requests"]["storage"])
        whole = -(-int(size / (1 - cdi.FILESYSTEM_OVERHEAD)) // _MIB) * _MIB
        requests = {**storage["resources"]["requests"], "storage": quantity.format_binary(whole)}
        wanted["resources"] = {**storage["resources"], "requests": requests}
    return wanted


def _passed_on(annotations: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in annotations.items() if not key.startswith("kubectl.kubernetes.io/")}
