# SPDX-License-Identifier: GPL-3.0-or-later
"""The claims of a DataVolume, as pure functions: the one with the disk, and one for what has to be stored meanwhile.

Rules: CDI user guide, "DataVolumes" (pvc and storage), "Storage profiles", "Filesystem overhead", "Scratch space".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from turtles.api import cdi, quantity, storage_profiles, uploads
from turtles.api.data_sources import SNAPSHOT, copy_source
from turtles.api.import_settings import DEFAULT, ImportSettings
from turtles.api.objects import Object, owner_reference
from turtles.controller.storage_classes import storage_class_of

_MIB = 1 << 20


class ClaimError(Exception):
    """There can't be a claim as things are. The message says what to change."""


def waits_for_consumer(storage_class: Mapping[str, Any] | None) -> bool:
    """Say whether a claim is bound only when a Pod uses it."""
    return (storage_class or {}).get("volumeBindingMode") == "WaitForFirstConsumer"


def claim(
    data_volume: Object,
    classes: Iterable[Object],
    origin: Mapping[str, Any] | None = None,
    profiles: Iterable[Object] = (),
    settings: ImportSettings = DEFAULT,
) -> Object:
    """Return the claim to create.

    :param origin: the claim of which the disk will be a copy: what it says of its disk goes for the copy.
    :param profiles: all StorageProfiles.
    :raises ClaimError: nobody says how the volume is to be used.
    """
    spec, metadata = data_volume["spec"], data_volume["metadata"]
    form = spec.get("storage")
    wanted = (
        dict(spec["pvc"]) if form is None else _completed(_with_files(data_volume, form), classes, profiles, settings)
    )
    source = copy_source(data_volume)
    if source is not None and source.kind == SNAPSHOT and source.namespace == metadata["namespace"]:
        group = "snapshot.storage.k8s.io"
        wanted["dataSource"] = {"apiGroup": group, "kind": "VolumeSnapshot", "name": source.name}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {
                **(cdi.disk_labels(origin) if origin is not None else {}),
                **(metadata.get("labels") or {}),
                cdi.APP: cdi.APP_IMPORTER,
                "app.kubernetes.io/part-of": "kubevirt",
            },
            "annotations": {
                **_passed_on(metadata.get("annotations") or {}),
                cdi.CONTENT_TYPE: spec.get("contentType") or "kubevirt",
                cdi.IMPORT_SOURCE: "none" if "blank" in spec["source"] else next(iter(spec["source"])),
                **({} if source is None else {cdi.CLONE_REQUEST: f"{source.namespace}/{source.name}"}),
                **({uploads.TARGET: ""} if spec["source"].get("upload") is not None else {}),
            },
            "ownerReferences": [owner_reference(data_volume)],
        },
        "spec": wanted,
    }


def scratch_name(data_volume: Object) -> str:
    """Return the name of the claim for what has to be stored meanwhile."""
    return f"{data_volume['metadata']['name']}-scratch"


def scratch(data_volume: Object, target: Object, settings: ImportSettings = DEFAULT) -> Object:
    """Return the claim for what has to be stored meanwhile: as large as the one with the disk.

    :param target: that one.
    """
    metadata, spec = data_volume["metadata"], target["spec"]
    wanted: Object = {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": spec["resources"]["requests"]["storage"]}},
    }
    if settings.scratch_class:
        wanted["storageClassName"] = settings.scratch_class
    elif spec.get("storageClassName") is not None:
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


def disk_size(data_volume: Object, target: Object, settings: ImportSettings = DEFAULT) -> int:
    """Return how many bytes the disk on the claim has.

    That is what `storage` asks for; of a claim as `pvc` has it, all that a file system doesn't need for itself.
    """
    storage = data_volume["spec"].get("storage")
    if storage is not None:
        return quantity.to_int(storage["resources"]["requests"]["storage"])
    size = quantity.to_int(target["spec"]["resources"]["requests"]["storage"])
    if is_block(target):
        return size
    overhead = settings.overhead_of(target["spec"].get("storageClassName"))
    return max(_MIB, int(size * (1 - overhead)) // _MIB * _MIB)


def is_block(target: Mapping[str, Any]) -> bool:
    """Say whether the volume of a claim is a device."""
    return bool(target["spec"].get("volumeMode") == "Block")


def _completed(
    storage: Mapping[str, Any], classes: Iterable[Object], profiles: Iterable[Object], settings: ImportSettings
) -> Object:
    """Return a claim's spec, made of the form `storage`."""
    storage_class = storage_class_of(storage.get("storageClassName"), classes)
    name = storage_class["metadata"]["name"] if storage_class else ""
    profile = next((each for each in profiles if each["metadata"]["name"] == name), None)
    modes, volume_mode = storage.get("accessModes") or (), storage.get("volumeMode")
    known = storage_profiles.uses(storage_class, profile)
    use = storage_profiles.choose(known, modes, volume_mode)
    if use is None and not modes:
        which = f"StorageClass {name}" if storage_class else "there is no default StorageClass, which"
        if known:
            message = f"{which} has no volumes with volumeMode {volume_mode}: name accessModes in spec.storage"
        else:
            message = f"{which} doesn't say how its volumes are used: name accessModes in spec.storage"
        remedy = (
            f", or claimPropertySets in the spec of StorageProfile {name}"
            if storage_class
            else ", or a storageClassName"
        )
        raise ClaimError(message + remedy)
    wanted = dict(storage)
    wanted["accessModes"] = list(modes or (use.access_modes if use else ()))
    wanted["volumeMode"] = volume_mode or (use.volume_mode if use else "Filesystem")
    if storage_class is not None:
        wanted.setdefault("storageClassName", storage_class["metadata"]["name"])
    if wanted["volumeMode"] == "Filesystem":
        size = quantity.to_int(storage["resources"]["requests"]["storage"])
        overhead = settings.overhead_of(wanted.get("storageClassName"))
        whole = -(-int(size / (1 - overhead)) // _MIB) * _MIB
        requests = {**storage["resources"]["requests"], "storage": quantity.format_binary(whole)}
        wanted["resources"] = {**storage["resources"], "requests": requests}
    return wanted


def _with_files(data_volume: Object, storage: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the form `storage`, for a file system if there are files."""
    return {**storage, "volumeMode": "Filesystem"} if data_volume["spec"].get("contentType") == "archive" else storage


def _passed_on(annotations: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in annotations.items() if not key.startswith("kubectl.kubernetes.io/")}
