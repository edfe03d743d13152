# SPDX-License-Identifier: GPL-3.0-or-later
"""PersistentVolumeClaims.

Source: Kubernetes' pkg/apis/core/validation.
"""

from decimal import Decimal
from typing import Any

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin import limit_ranges
from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_map, column, created, name_of, phase, wide
from turtles.standalone.apiserver.builtin.fields import POSITIVE, enum
from turtles.standalone.apiserver.builtin.persistent_volumes import access_mode_causes, short_modes, storage_class
from turtles.standalone.apiserver.builtin.strategy import Cluster, Strategy
from turtles.standalone.apiserver.schema.metadata import subdomain_causes
from turtles.standalone.apiserver.wire import quantities
from turtles.standalone.apiserver.wire.errors import Cause, Object, field_forbidden, forbidden, invalid_value, required
from turtles.standalone.well_known import PVC_PROTECTION

_CLAIM = "@core.v1.PersistentVolumeClaimStatus."


class PersistentVolumeClaims(Strategy):
    """PersistentVolumeClaims. Who serves storage takes the finalizer away."""

    returns_deleted = True
    may_grow = True
    finalizer = PVC_PROTECTION
    columns = (
        NAME,
        column("Status", f"{_CLAIM}phase"),
        column("Volume", "@core.v1.PersistentVolumeClaimSpec.volumeName"),
        column("Capacity", f"{_CLAIM}capacity"),
        column("Access Modes", f"{_CLAIM}accessModes"),
        column("StorageClass", "StorageClass of the pvc"),
        column("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
        AGE,
        wide("VolumeMode", "@core.v1.PersistentVolumeClaimSpec.volumeMode"),
    )

    def cells(self, obj: Object) -> list[Any]:
        spec, status = as_map(obj.get("spec")), as_map(obj.get("status"))
        bound = bool(spec.get("volumeName"))
        return [
            name_of(obj),
            phase(obj),
            spec.get("volumeName", ""),
            as_map(status.get("capacity")).get("storage", "0") if bound else "",
            short_modes(status.get("accessModes")) if bound else "",
            storage_class(obj),
            spec.get("volumeAttributesClassName") or "<unset>",
            created(obj),
            spec.get("volumeMode") or "<unset>",
        ]

    def default(self, obj: Object) -> None:
        obj["spec"].setdefault("volumeMode", "Filesystem")
        obj["status"].setdefault("phase", "Pending")

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        spec = obj["spec"]
        causes = access_mode_causes(spec, "at least 1 access mode is required")
        size = (spec["resources"].get("requests") or {}).get("storage")
        if size is None:
            causes.append(required("spec.resources[storage]"))
        elif quantities.value(size) <= 0:
            causes.append(invalid_value("spec.resources[storage]", size, POSITIVE))
        if spec.get("storageClassName"):
            causes += subdomain_causes(spec["storageClassName"], "spec.storageClassName")
        causes += enum(spec.get("volumeMode"), ["Block", "Filesystem"], "spec.volumeMode")
        if old is not None:
            causes += _change_causes(spec, old["spec"])
        return causes

    async def validate(self, context: Context, obj: Object, old: Object | None) -> list[Cause]:
        causes = await super().validate(context, obj, old)
        if not causes and old is not None and _size(obj) > _size(old) and old["status"].get("phase") != "Bound":
            why = "Only bound persistent volume claims can be expanded"
            raise forbidden("", "persistentvolumeclaims", context.name, why)
        return causes

    def check_limits(self, cluster: Cluster, context: Context, obj: Object) -> None:
        """Hold a claim against its namespace's LimitRanges."""
        ranges = limit_ranges.of_namespace(cluster.store, context.namespace)
        limit_ranges.refuse(context, obj, limit_ranges.claim_violations(obj, ranges))


def _size(obj: Object) -> Decimal:
    return quantities.value((obj["spec"]["resources"].get("requests") or {}).get("storage") or "0")


def _fixed(spec: Object, free: set[str]) -> Object:
    """Return what an update may not change: of the resources, all but the size.

    Growing a claim that isn't bound is refused in other words, by another part of Kubernetes.
    """
    resources = dict(spec["resources"])
    resources["requests"] = {k: v for k, v in (resources.get("requests") or {}).items() if k != "storage"}
    return {**{k: v for k, v in spec.items() if k not in free}, "resources": resources}


def _change_causes(new: Object, old: Object) -> list[Cause]:
    free = {"volumeAttributesClassName"}
    if not old.get("volumeName"):
        # Binding names the volume; a class may be filled in where there was none.
        free.add("volumeName")
    if old.get("storageClassName") is None:
        free.add("storageClassName")
    causes = []
    if _fixed(new, free) != _fixed(old, free):
        text = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        causes.append(field_forbidden("spec", text))
    before, after = ((one["resources"].get("requests") or {}).get("storage") for one in (old, new))
    if not causes and before and after and quantities.value(after) < quantities.value(before):
        causes.append(field_forbidden("spec.resources.requests.storage", "field can not be less than previous value"))
    return causes
