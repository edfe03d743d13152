# SPDX-License-Identifier: GPL-3.0-or-later
"""What the volumes of a StorageClass can be used for: as its StorageProfile says, or as is known of its provisioner.

Rules: CDI's document "Storage profiles".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turtles.api.objects import Object, get

FILESYSTEM, BLOCK = "Filesystem", "Block"
_RWO, _RWX = "ReadWriteOnce", "ReadWriteMany"


@dataclass(frozen=True)
class Use:
    """A way in which volumes can be used: access modes, and a volumeMode."""

    access_modes: tuple[str, ...]
    volume_mode: str

    def as_set(self) -> Object:
        """Return it as an element of claimPropertySets."""
        return {"accessModes": list(self.access_modes), "volumeMode": self.volume_mode}


_LOCAL_FILES = (Use((_RWO,), FILESYSTEM),)
_SHARED_FILES = (Use((_RWX,), FILESYSTEM), Use((_RWO,), FILESYSTEM))
_SHARED_DEVICES = (Use((_RWX,), BLOCK), Use((_RWO,), BLOCK), Use((_RWO,), FILESYSTEM))
_DEVICES = (Use((_RWO,), BLOCK), Use((_RWO,), FILESYSTEM))
#: What the volumes of some provisioners can do, the best for virtual machines first.
_PROVISIONERS: Mapping[str, tuple[Use, ...]] = {
    "turtles.kubevirt/local-path": (*_LOCAL_FILES, Use((_RWO,), BLOCK)),
    "rancher.io/local-path": _LOCAL_FILES,
    "kubevirt.io.hostpath-provisioner": _LOCAL_FILES,
    "kubevirt.io/hostpath-provisioner": _LOCAL_FILES,
    "hostpath.csi.k8s.io": _LOCAL_FILES,
    "kubernetes.io/no-provisioner": _LOCAL_FILES,
    "nfs.csi.k8s.io": _SHARED_FILES,
    "rook-ceph.rbd.csi.ceph.com": _SHARED_DEVICES,
    "rbd.csi.ceph.com": _SHARED_DEVICES,
    "rook-ceph.cephfs.csi.ceph.com": _SHARED_FILES,
    "cephfs.csi.ceph.com": _SHARED_FILES,
    "driver.longhorn.io": _SHARED_DEVICES,
    "linstor.csi.linbit.com": _SHARED_DEVICES,
    "topolvm.io": _DEVICES,
    "ebs.csi.aws.com": _DEVICES,
    "disk.csi.azure.com": _DEVICES,
    "pd.csi.storage.gke.io": _DEVICES,
}


def uses(storage_class: Mapping[str, Any] | None, profile: Mapping[str, Any] | None) -> Sequence[Use]:
    """Return how the volumes of a StorageClass can be used, the best first; nothing if nobody says.

    :param profile: its StorageProfile. What its spec says counts, in place of what is known.
    """
    own = get(dict(profile or {}), "spec", "claimPropertySets")
    if own:
        return [Use(tuple(each.get("accessModes") or ()), each.get("volumeMode") or FILESYSTEM) for each in own]
    return _PROVISIONERS.get(str((storage_class or {}).get("provisioner") or ""), ())


def choose(offered: Sequence[Use], access_modes: Sequence[str], volume_mode: str | None) -> Use | None:
    """Return the best use with what is asked for; None if there is none.

    :param access_modes: all of which it has to have; may be empty. :param volume_mode: None for any.
    """
    for use in offered:
        if set(access_modes) <= set(use.access_modes) and volume_mode in (None, use.volume_mode):
            return Use(tuple(access_modes) or use.access_modes, use.volume_mode)
    return None


def status(storage_class: Object, profile: Object) -> Object:
    """Return a StorageProfile's whole status."""
    new: Object = {"storageClass": storage_class["metadata"]["name"], "provisioner": storage_class["provisioner"]}
    if offered := uses(storage_class, profile):
        new["claimPropertySets"] = [use.as_set() for use in offered]
    return new
