# SPDX-License-Identifier: GPL-3.0-or-later
"""StorageClasses.

Source: Kubernetes' pkg/apis/storage/validation.
"""

from typing import Any

from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_map, column, created, name_of
from turtles.standalone.apiserver.builtin.fields import IMMUTABLE, enum, set_missing
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.metadata import qualified_causes
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value, required
from turtles.standalone.well_known import DEFAULT_CLASS


class StorageClasses(Strategy):
    """StorageClasses."""

    returns_deleted = True
    columns = (
        NAME,
        column("Provisioner", "@storage.v1.StorageClass.provisioner"),
        column("ReclaimPolicy", "@storage.v1.StorageClass.reclaimPolicy"),
        column("VolumeBindingMode", "@storage.v1.StorageClass.volumeBindingMode"),
        column("AllowVolumeExpansion", "@storage.v1.StorageClass.allowVolumeExpansion"),
        AGE,
    )

    def cells(self, obj: Object) -> list[Any]:
        annotations = as_map(obj["metadata"].get("annotations"))
        keys = (DEFAULT_CLASS, "storageclass.beta.kubernetes.io/is-default-class")
        default = any(annotations.get(key) == "true" for key in keys)
        return [
            name_of(obj) + (" (default)" if default else ""),
            obj.get("provisioner", ""),
            obj.get("reclaimPolicy", "Delete"),
            obj.get("volumeBindingMode", "Immediate"),
            bool(obj.get("allowVolumeExpansion")),
            created(obj),
        ]

    def default(self, obj: Object) -> None:
        set_missing(obj, {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"})

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        causes = []
        if not obj.get("provisioner"):
            causes.append(required("provisioner"))
        else:
            # Capital letters were always taken.
            causes += qualified_causes("provisioner", obj["provisioner"].lower())
        causes += enum(obj.get("reclaimPolicy"), ["Delete", "Retain"], "reclaimPolicy")
        causes += enum(obj.get("volumeBindingMode"), ["Immediate", "WaitForFirstConsumer"], "volumeBindingMode")
        if old is not None:
            for field in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
                if (obj.get(field) or None) != (old.get(field) or None):
                    causes.append(invalid_value(field, obj.get(field), IMMUTABLE))
        return causes
