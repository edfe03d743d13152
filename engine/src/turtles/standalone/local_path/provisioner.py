# SPDX-License-Identifier: GPL-3.0-or-later
"""Creates and removes the directories that PersistentVolumes of the StorageClass ``local-path`` consist of."""

import contextlib
import logging
import re
import shutil
from pathlib import Path

from turtles.api.objects import Object, annotations_of
from turtles.api.quantity import parse, to_int
from turtles.kube.client import AlreadyExists, Client
from turtles.kube.resources import PV, STORAGECLASS, VOLUMESNAPSHOTCLASS
from turtles.standalone import binding, block_files
from turtles.standalone.files import remove_tree, write_text
from turtles.standalone.local_path import sources
from turtles.standalone.local_path.copies import Copies, CopyError
from turtles.standalone.local_path.snapshot_kinds import snapshot_class
from turtles.standalone.scheduler import is_default
from turtles.standalone.well_known import DEFAULT_CLASS, HOSTNAME, PV_PROTECTION

log = logging.getLogger(__name__)

PROVISIONER = "turtles.kubevirt/local-path"
CLASS = "local-path"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
#: Folder of snapshots among those of volumes, and what the one of a snapshot is called.
_SNAPSHOTS, _SNAPSHOT_NAME = "snapshots", re.compile(r"snapshot-[0-9a-f-]{36}")
_SIZE = ".size"


class ProvisioningError(Exception):
    """No volume can be provisioned for a claim now; the message says what to change."""


def is_provisioned(volume: Object) -> bool:
    """Say whether this provisioner created a volume."""
    return annotations_of(volume).get(_PROVISIONED_BY) == PROVISIONER


def storage_class(default: bool) -> Object:
    """Return the StorageClass ``local-path``.

    :param default: for claims that name no StorageClass.
    """
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {DEFAULT_CLASS: "true" if default else "false"}},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": True,
    }


def volume_for(claim: Object, of_class: Object, path: Path, node: str) -> Object:
    """Return the PersistentVolume for a claim.

    :param of_class: the claim's StorageClass.
    :param path: the volume's directory.
    """
    metadata, spec = claim["metadata"], claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": f"pvc-{metadata['uid']}",
            "annotations": {_PROVISIONED_BY: PROVISIONER},
            "finalizers": [PV_PROTECTION],
        },
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec.get("accessModes") or ["ReadWriteOnce"],
            "claimRef": binding.reference_to(claim),
            "persistentVolumeReclaimPolicy": of_class.get("reclaimPolicy") or "Delete",
            "storageClassName": of_class["metadata"]["name"],
            "volumeMode": spec.get("volumeMode") or "Filesystem",
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [_nodes(claim, node)]}]}},
        },
    }


def _nodes(claim: Object, node: str) -> Object:
    """Return on which nodes a claim's volume is. All nodes are on this machine, and reach it if it may be shared."""
    if "ReadWriteMany" in (claim["spec"].get("accessModes") or ()):
        return {"key": HOSTNAME, "operator": "Exists"}
    return {"key": HOSTNAME, "operator": "In", "values": [node]}


class Provisioner:
    """Provisions volumes as directories below one folder.

    :param root: the folder.
    """

    def __init__(self, client: Client, root: Path) -> None:
        self._client, self._root = client, root
        self._copies = Copies(root)

    def prepare(self, classes: list[Object], snapshot_classes: list[Object]) -> None:
        """Create the folder, and the classes that don't exist: the StorageClass as the default one unless another is.

        :param classes: the StorageClasses that exist.
        :param snapshot_classes: the VolumeSnapshotClasses that exist.
        """
        # Pods see their own volume where it is mounted; the machine's other users see none.
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root.chmod(0o700)
        (self._root / _SNAPSHOTS).mkdir(exist_ok=True, mode=0o700)
        self._copies.prepare()
        if all(entry["metadata"]["name"] != CLASS for entry in snapshot_classes):
            with contextlib.suppress(AlreadyExists):
                self._client.create(VOLUMESNAPSHOTCLASS, snapshot_class(CLASS, PROVISIONER))
        if all(entry["metadata"]["name"] != CLASS for entry in classes):
            with contextlib.suppress(AlreadyExists):
                self._client.create(STORAGECLASS, storage_class(not any(map(is_default, classes))))

    def has_room_for(self, quantity: str) -> bool:
        """Say whether a quantity fits into the free disk space."""
        return bool(parse(quantity) <= shutil.disk_usage(self._root).free)

    def provision(self, claim: Object, of_class: Object, node: str) -> Object | None:
        """Create the directory and the volume for a claim, or return the volume if it exists.

        :return: None while its directory is being filled from a snapshot or another volume.
        :raises ProvisioningError: not enough disk space, or what the claim is to be filled from isn't fit for it.
        """
        spec, metadata = claim["spec"], claim["metadata"]
        is_block = spec.get("volumeMode") == "Block"
        wanted = spec["resources"]["requests"]["storage"]
        if not self.has_room_for(wanted):
            free = shutil.disk_usage(self._root).free
            raise ProvisioningError(
                f"{int(parse(wanted)) >> 20} MiB are requested and {free >> 20} MiB are free in {self._root}: "
                "request less or free some space"
            )
        # Unique by uid, readable by namespace and name.
        path = self._root / f"pvc-{metadata['uid']}_{metadata['namespace']}_{metadata['name']}"
        if not self._fill(path, claim):
            return None
        if is_block:
            path.chmod(0o700)
            block_files.make(path, to_int(wanted))
        else:
            path.chmod(0o777)
        volume = volume_for(claim, of_class, path, node)
        try:
            created = self._client.create(PV, volume)
        except AlreadyExists:
            present = self._client.get(PV, None, volume["metadata"]["name"])
            if not binding.is_bound_to(present, claim):
                raise ProvisioningError(
                    f"PersistentVolume {volume['metadata']['name']} already exists and belongs to "
                    f"{binding.holder(present, claim)}: delete it, or recreate the claim"
                ) from None
            return present
        log.info(
            "volume provisioned", extra={"claim": f"{metadata['namespace']}/{metadata['name']}", "path": str(path)}
        )
        return created

    def _fill(self, path: Path, claim: Object) -> bool:
        """Create the directory of a volume with what its claim wants in it; return whether that is all there."""
        if path.exists():
            return True
        try:
            source = sources.find(self._client, claim, PROVISIONER)
            if source is None:
                path.mkdir()
                return True
            wanted = claim["spec"]["resources"]["requests"]["storage"]
            if parse(wanted) < source.size:
                raise ProvisioningError(
                    f"requested volume size {wanted} is less than the size {source.size} of the source {source.what}: "
                    f"request at least {source.size}"
                )
            mode = claim["spec"].get("volumeMode") or "Filesystem"
            if source.mode != mode:
                raise ProvisioningError(
                    f"volumeMode {mode} is requested, and the source {source.what} has {source.mode}: request that"
                )
            return self._copies.make(source.path or self._snapshot_path(source.handle), path)
        except (sources.SourceError, CopyError) as error:
            raise ProvisioningError(str(error)) from error

    def grow(self, volume: Object, quantity: str) -> None:
        """Have a volume offer more: its device, if it is one. A directory has what its file system has."""
        if volume["spec"].get("volumeMode") == "Block":
            block_files.make(Path(volume["spec"]["local"]["path"]), to_int(quantity))

    def abandon(self, namespace: str, name: str) -> None:
        """Stop filling the volume of a claim that is gone."""
        self._copies.cancel(f"_{namespace}_{name}")

    # Snapshots

    def snapshot(self, volume: Object, handle: str, size: int) -> bool:
        """Copy a volume's directory; return whether the copy is there, under a handle.

        :param size: of the volume in bytes, which is kept with the copy.
        :raises CopyError: it can't be copied.
        """
        path = self._snapshot_path(handle)
        size_file = path.with_name(path.name + _SIZE)
        if not size_file.exists():
            write_text(size_file, str(size))
        return self._copies.make(Path(volume["spec"]["local"]["path"]), path)

    def snapshot_size(self, handle: str) -> int:
        """Return the size in bytes of the volume that a snapshot was made of.

        :raises CopyError: there is no such snapshot.
        """
        path = self._snapshot_path(handle)
        if not path.is_dir():
            raise CopyError(f"snapshot {handle} does not exist")
        return int(path.with_name(path.name + _SIZE).read_text())

    def remove_snapshot(self, handle: str) -> None:
        """Remove a snapshot's copy, finished or not."""
        path = self._snapshot_path(handle)
        self._copies.cancel(path.name)
        remove_tree(path)
        path.with_name(path.name + _SIZE).unlink(missing_ok=True)

    def _snapshot_path(self, handle: str) -> Path:
        if not _SNAPSHOT_NAME.fullmatch(handle):
            raise CopyError(f"{handle} is not a snapshot handle, which have the form snapshot-UID")
        return self._root / _SNAPSHOTS / handle

    def remove(self, volume: Object) -> None:
        """Remove a volume's directory with everything in it, if it is one that :meth:`provision` would create."""
        path = Path((volume["spec"].get("local") or {}).get("path") or "/")
        if path.parent == self._root and re.fullmatch(r"pvc-[0-9a-f-]{36}_[a-z0-9.-]+_[a-z0-9.-]+", path.name):
            remove_tree(path)
        else:
            log.warning("not removing the directory of a volume: not created here", extra={"path": str(path)})
