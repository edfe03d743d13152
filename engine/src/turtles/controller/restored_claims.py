# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims that are filled from the snapshot of a volume. Pure."""

from __future__ import annotations

import copy

from turtles.api import quantity
from turtles.api.cdi import CLONE_REQUEST
from turtles.api.labels import LAST_APPLIED, MEMORY_DUMP
from turtles.api.objects import Object, get

#: Annotations of a claim that say what became of it, and not what it is to be.
_OF_STORAGE = ("pv.kubernetes.io", "volume.beta.kubernetes.io", "volume.kubernetes.io", "cdi.kubevirt.io",
               CLONE_REQUEST, "k8s.io/CloneOf", MEMORY_DUMP)  # fmt: skip


def own_annotations(metadata: Object) -> dict[str, str]:
    """Return the annotations of a claim that go for another one with its content."""
    present = metadata.get("annotations") or {}
    return {key: value for key, value in present.items() if not key.startswith(_OF_STORAGE) and key != LAST_APPLIED}


def restored_spec(backup: Object, volume_snapshot: Object) -> Object:
    """Return the spec of a claim with the content of a volume as it was when a snapshot was made.

    :param backup: the volume, as a VirtualMachineSnapshotContent has it.
    :param volume_snapshot: what the claim is filled from.
    """
    before = backup["persistentVolumeClaim"]["spec"]
    spec: Object = copy.deepcopy(before)
    for key in ("volumeName", "dataSource", "dataSourceRef"):
        spec.pop(key, None)
    spec["resources"] = {"requests": {"storage": _size(before, volume_snapshot)}}
    spec["dataSource"] = {
        "apiGroup": "snapshot.storage.k8s.io",
        "kind": "VolumeSnapshot",
        "name": backup["volumeSnapshotName"],
    }
    return spec


def _size(spec: Object, volume_snapshot: Object) -> str:
    """Return the storage to request: as much as before, and at least what is in the snapshot."""
    before, least = str(spec["resources"]["requests"]["storage"]), get(volume_snapshot, "status", "restoreSize")
    return str(least) if least is not None and quantity.parse(least) > quantity.parse(before) else before
