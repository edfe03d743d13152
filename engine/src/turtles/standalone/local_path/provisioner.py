# SPDX-License-Identifier: GPL-3.0-or-later
"""Creates and removes the directories that PersistentVolumes of the StorageClass ``local-path`` consist of."""

import contextlib
import logging
import re
import shutil
from pathlib import Path

from turtles.api.objects import Object
from turtles.api.quantity import parse
from turtles.kube.client import AlreadyExists, Client
from turtles.kube.resources import PV, STORAGECLASS
from turtles.standalone import binding
from turtles.standalone.podrunner.files import remove_tree
from turtles.standalone.scheduler import is_default

log = logging.getLogger(__name__)

PROVISIONER = "turtles.kubevirt/local-path"
CLASS = "local-path"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"


class ProvisioningError(Exception):
    """No volume can be provisioned for a claim now; the message says what to change."""


def is_provisioned(volume: Object) -> bool:
    """Say whether this provisioner created a volume."""
    return bool((volume["metadata"].get("annotations") or {}).get(_PROVISIONED_BY) == PROVISIONER)


def storage_class(default: bool) -> Object:
    """Return the StorageClass ``local-path``.

    :param default: for claims that name no StorageClass.
    """
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {_DEFAULT_CLASS: "true" if default else "false"}},
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
            "finalizers": [VOLUME_FINALIZER],
        },
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec.get("accessModes") or ["ReadWriteOnce"],
            "claimRef": binding.reference_to(claim),
            "persistentVolumeReclaimPolicy": of_class.get("reclaimPolicy") or "Delete",
            "storageClassName": of_class["metadata"]["name"],
            "volumeMode": "Filesystem",
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [_nodes(claim, node)]}]}},
        },
    }


def _nodes(claim: Object, node: str) -> Object:
    """Return on which nodes a claim's volume is. All nodes are on this machine, and reach it if it may be shared."""
    key = "kubernetes.io/hostname"
    if "ReadWriteMany" in (claim["spec"].get("accessModes") or ()):
        return {"key": key, "operator": "Exists"}
    return {"key": key, "operator": "In", "values": [node]}


class Provisioner:
    """Provisions volumes as directories below one folder.

    :param root: the folder.
    """

    def __init__(self, client: Client, root: Path) -> None:
        self._client, self._root = client, root

    def prepare(self, classes: list[Object]) -> None:
        """Create the folder, and the StorageClass if it doesn't exist: as the default one unless another one is.

        :param classes: the StorageClasses that exist.
        """
        # Pods see their own volume where it is mounted; the machine's other users see none.
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root.chmod(0o700)
        if all(entry["metadata"]["name"] != CLASS for entry in classes):
            with contextlib.suppress(AlreadyExists):
                self._client.create(STORAGECLASS, storage_class(not any(map(is_default, classes))))

    def has_room_for(self, quantity: str) -> bool:
        """Say whether a quantity fits into the free disk space."""
        return bool(parse(quantity) <= shutil.disk_usage(self._root).free)

    def provision(self, claim: Object, of_class: Object, node: str) -> Object:
        """Create the directory and the volume for a claim, or return the volume if it exists.

        :raises ProvisioningError: not enough disk space, or the claim asks for what a directory can't be.
        """
        spec, metadata = claim["spec"], claim["metadata"]
        if (spec.get("volumeMode") or "Filesystem") != "Filesystem":
            raise ProvisioningError(
                f"StorageClass {of_class['metadata']['name']} provisions directories: "
                f"volumeMode {spec['volumeMode']} is not possible, use Filesystem"
            )
        if spec.get("dataSource") or spec.get("dataSourceRef"):
            raise ProvisioningError("a data source is not supported by this StorageClass")
        wanted = spec["resources"]["requests"]["storage"]
        if not self.has_room_for(wanted):
            free = shutil.disk_usage(self._root).free
            raise ProvisioningError(
                f"{int(parse(wanted)) >> 20} MiB are requested and {free >> 20} MiB are free in {self._root}: "
                "request less or free some space"
            )
        # Unique by uid, readable by namespace and name.
        path = self._root / f"pvc-{metadata['uid']}_{metadata['namespace']}_{metadata['name']}"
        path.mkdir(exist_ok=True)
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

    def remove(self, volume: Object) -> None:
        """Remove a volume's directory with everything in it, if it is one that :meth:`provision` would create."""
        path = Path((volume["spec"].get("local") or {}).get("path") or "/")
        if path.parent == self._root and re.fullmatch(r"pvc-[0-9a-f-]{36}_[a-z0-9.-]+_[a-z0-9.-]+", path.name):
            remove_tree(path)
        else:
            log.warning("not removing the directory of a volume: not created here", extra={"path": str(path)})
