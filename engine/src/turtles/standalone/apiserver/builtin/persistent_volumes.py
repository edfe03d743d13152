# SPDX-License-Identifier: GPL-3.0-or-later
"""PersistentVolumes.

Source: Kubernetes' pkg/apis/core/validation.
"""

from typing import Any

from turtles.api.times import now
from turtles.standalone.apiserver.builtin.columns import (
    AGE,
    NAME,
    as_list,
    as_map,
    column,
    created,
    name_of,
    phase,
    wide,
)
from turtles.standalone.apiserver.builtin.fields import IMMUTABLE, POSITIVE, enum, set_missing
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.schema.metadata import subdomain_causes
from turtles.standalone.apiserver.wire import quantities
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    field_forbidden,
    invalid_value,
    not_supported,
    required,
)
from turtles.standalone.well_known import PV_PROTECTION

_VOLUME = "@core.v1.PersistentVolumeSpec."
_ACCESS_MODES = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]
_SHORT_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
#: Fields of a PersistentVolume's spec that aren't its source.
_FIELDS = frozenset(
    {
        "capacity",
        "accessModes",
        "claimRef",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "mountOptions",
        "volumeMode",
        "nodeAffinity",
        "volumeAttributesClassName",
    }
)
#: Sources of volumes and the defaults that they have.
SOURCES: dict[str, Object] = {
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {"cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": False},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


class PersistentVolumes(Strategy):
    """PersistentVolumes. Who makes one knows its status; who serves storage takes the finalizer away."""

    takes_status = True
    returns_deleted = True
    finalizer = PV_PROTECTION
    columns = (
        NAME,
        column("Capacity", f"{_VOLUME}capacity"),
        column("Access Modes", f"{_VOLUME}accessModes"),
        column("Reclaim Policy", f"{_VOLUME}persistentVolumeReclaimPolicy"),
        column("Status", "@core.v1.PersistentVolumeStatus.phase"),
        column("Claim", f"{_VOLUME}claimRef"),
        column("StorageClass", "StorageClass of the pv"),
        column("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
        column("Reason", "@core.v1.PersistentVolumeStatus.reason"),
        AGE,
        wide("VolumeMode", f"{_VOLUME}volumeMode"),
    )

    def cells(self, obj: Object) -> list[Any]:
        spec, status = as_map(obj.get("spec")), as_map(obj.get("status"))
        claim = as_map(spec.get("claimRef"))
        target = f"{claim.get('namespace')}/{claim.get('name')}" if claim else ""
        return [
            name_of(obj),
            as_map(spec.get("capacity")).get("storage", "0"),
            short_modes(spec.get("accessModes")),
            spec.get("persistentVolumeReclaimPolicy", ""),
            phase(obj),
            target,
            storage_class(obj),
            spec.get("volumeAttributesClassName") or "<unset>",
            status.get("reason", ""),
            created(obj),
            spec.get("volumeMode") or "<unset>",
        ]

    def prepare_create(self, obj: Object, kind: Kind) -> None:
        super().prepare_create(obj, kind)
        obj["status"]["lastPhaseTransitionTime"] = now()

    def prepare_update(self, new: Object, old: Object, subresource: str) -> None:
        # Who changes the phase may say when that was.
        if subresource == "status":
            status, before = new["status"], old["status"]
            field = "lastPhaseTransitionTime"
            if status.get("phase") != before.get("phase") and status.get(field) == before.get(field):
                status[field] = now()

    def default(self, obj: Object) -> None:
        spec = obj["spec"]
        set_missing(spec, {"volumeMode": "Filesystem", "persistentVolumeReclaimPolicy": "Retain"})
        for name, values in SOURCES.items():
            if spec.get(name) is not None:
                set_missing(spec[name], values)
        obj["status"].setdefault("phase", "Pending")

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        spec = obj["spec"]
        causes = access_mode_causes(spec)
        capacity = spec.get("capacity") or {}
        if not capacity:
            causes.append(required("spec.capacity"))
        if list(capacity) != ["storage"]:
            causes.append(not_supported("spec.capacity", capacity or None, ["storage"]))
        for name, amount in capacity.items():
            if quantities.value(amount) <= 0:
                causes.append(invalid_value(f"spec.capacity[{name}]", amount, POSITIVE))
        policies = ["Delete", "Recycle", "Retain"]
        causes += enum(spec.get("persistentVolumeReclaimPolicy"), policies, "spec.persistentVolumeReclaimPolicy")
        sources = [field for field in spec if field not in _FIELDS]
        if not sources:
            causes.append(required("spec", "must specify a volume type"))
        for field in sources[1:]:
            causes.append(field_forbidden(f"spec.{field}", "may not specify more than 1 volume type"))
        causes += _source_causes(spec)
        if spec.get("storageClassName"):
            causes += subdomain_causes(spec["storageClassName"], "spec.storageClassName")
        causes += enum(spec.get("volumeMode"), ["Block", "Filesystem"], "spec.volumeMode")
        if old is not None and any(
            spec.get(field) != old["spec"].get(field) for field in {*sources, *old["spec"]} - _FIELDS
        ):
            path = "spec.persistentvolumesource"
            causes.append(field_forbidden(path, f"{path} is immutable after creation"))
        if old is not None and spec.get("volumeMode") != old["spec"].get("volumeMode"):
            causes.append(invalid_value("volumeMode", spec.get("volumeMode"), IMMUTABLE))
        if old is not None and old["spec"].get("nodeAffinity") not in (None, spec.get("nodeAffinity")):
            causes.append(invalid_value("nodeAffinity", spec.get("nodeAffinity"), IMMUTABLE))
        return causes


def _source_causes(spec: Object) -> list[Cause]:
    causes: list[Cause] = []
    for field in ("hostPath", "local"):
        path = (spec.get(field) or {}).get("path", "")
        if field in spec and not path:
            causes.append(required(f"spec.{field}.path"))
        elif ".." in path.split("/"):
            causes.append(invalid_value(f"spec.{field}.path", path, "must not contain '..'"))
    if "local" in spec and not spec.get("nodeAffinity"):
        causes.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    nfs = spec.get("nfs")
    if nfs is not None:
        causes += [required(f"spec.nfs.{one}") for one in ("server", "path") if not nfs.get(one)]
        if not nfs.get("path", "").startswith("/"):
            causes.append(invalid_value("spec.nfs.path", nfs.get("path", ""), "must be an absolute path"))
    return causes


def access_mode_causes(spec: Object, why: str = "") -> list[Cause]:
    """Return what is wrong with the access modes of a volume or claim."""
    if not spec.get("accessModes"):
        return [required("spec.accessModes", why)]
    return [cause for one in spec["accessModes"] for cause in enum(one, _ACCESS_MODES, "spec.accessModes")]


def short_modes(modes: Any) -> str:
    """Return access modes as kubectl shows them."""
    return ",".join(short for mode, short in _SHORT_MODES.items() if mode in as_list(modes))


def storage_class(obj: Object) -> str:
    """Return the storage class of a volume or claim."""
    annotations = as_map(obj["metadata"].get("annotations"))
    beta = annotations.get("volume.beta.kubernetes.io/storage-class")
    return str(beta if beta is not None else as_map(obj.get("spec")).get("storageClassName") or "")
