# SPDX-License-Identifier: GPL-3.0-or-later
"""What built-in kinds must look like that hold configuration, storage, limits and priorities.

Source: Kubernetes' pkg/apis/*/validation. Defaults are set before; types are right (decode.py).
"""

import base64
import json
from typing import Any

from turtles.standalone.apiserver.schema.metadata import (
    qualified_causes,
    selector_causes,
    subdomain_causes,
    validate_keys,
)
from turtles.standalone.apiserver.wire import bodies, quantities
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    field_forbidden,
    invalid_value,
    not_supported,
    required,
    too_long,
)

MAX_DATA = 1024 * 1024
_IMMUTABLE = "field is immutable when `immutable` is set"
_MODES = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]
_POSITIVE = "must be greater than zero"
_NOT_NEGATIVE = "must be greater than or equal to 0"
_PERCENT = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
    "validation is '[0-9]+%')"
)
#: Fields of a PersistentVolume's spec that aren't its source.
_VOLUME_FIELDS = frozenset(
    {
        "capacity", "accessModes", "claimRef", "persistentVolumeReclaimPolicy", "storageClassName", "mountOptions",
        "volumeMode", "nodeAffinity", "volumeAttributesClassName",
    }
)  # fmt: skip
#: Highest priority of classes that aren't Kubernetes' own.
MAX_PRIORITY = 1_000_000_000


def _enum(value: Any, allowed: list[str], path: str) -> list[Cause]:
    return [] if value in allowed else [not_supported(path, value, allowed)]


def _frozen(obj: Object, old: Object | None, *fields: str) -> list[Cause]:
    """Return what an update changes of an object that is immutable."""
    if old is None or not old.get("immutable"):
        return []
    causes = [] if obj.get("immutable") else [field_forbidden("immutable", _IMMUTABLE)]
    causes += [field_forbidden(one, _IMMUTABLE) for one in fields if (obj.get(one) or {}) != (old.get(one) or {})]
    return causes


# -- configuration


def validate_config_map(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a ConfigMap."""
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    causes = validate_keys(data, "data")
    for key in sorted(set(data) & set(binary)):
        causes.append(invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
    causes += validate_keys(binary, "binaryData")
    size = sum(len(value.encode()) for value in data.values())
    size += sum(len(base64.b64decode(value)) for value in binary.values())
    if size > MAX_DATA:
        causes.append(too_long("", MAX_DATA))
    return causes + _frozen(obj, old, "data", "binaryData")


#: Type of a Secret -> fields of its data that must be there.
_SECRETS = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def validate_secret(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a Secret."""
    data, kind = obj.get("data") or {}, obj.get("type")
    causes = validate_keys(data, "data")
    if sum(len(base64.b64decode(value)) for value in data.values()) > MAX_DATA:
        causes.append(too_long("data", MAX_DATA))
    for field in _SECRETS.get(str(kind), ()):
        if field not in data:
            causes.append(required(f"data[{field}]"))
        elif field.startswith(".docker"):
            try:
                json.loads(base64.b64decode(data[field]))
            except ValueError as error:
                why = bodies.describe(base64.b64decode(data[field]), error)
                causes.append(invalid_value(f"data[{field}]", "<secret contents redacted>", why))
    if kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        causes += [required("data[username]"), required("data[password]")]
    name = "kubernetes.io/service-account.name"
    if kind == "kubernetes.io/service-account-token" and not (obj["metadata"].get("annotations") or {}).get(name):
        causes.append(required(f"metadata.annotations[{name}]"))
    if old is not None and kind != old.get("type"):
        causes.append(invalid_value("type", kind, "field is immutable"))
    return causes + _frozen(obj, old, "data")


# -- storage


def _access_modes(spec: Object, why: str = "") -> list[Cause]:
    if not spec.get("accessModes"):
        return [required("spec.accessModes", why)]
    return [not_supported("spec.accessModes", one, _MODES) for one in spec["accessModes"] if one not in _MODES]


def validate_claim(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a PersistentVolumeClaim."""
    spec = obj["spec"]
    causes = _access_modes(spec, "at least 1 access mode is required")
    size = (spec["resources"].get("requests") or {}).get("storage")
    if size is None:
        causes.append(required("spec.resources[storage]"))
    elif quantities.value(size) <= 0:
        causes.append(invalid_value("spec.resources[storage]", size, _POSITIVE))
    if spec.get("storageClassName"):
        causes += subdomain_causes(spec["storageClassName"], "spec.storageClassName")
    causes += _enum(spec.get("volumeMode"), ["Block", "Filesystem"], "spec.volumeMode")
    if old is not None:
        causes += _claim_update(spec, old["spec"], obj["status"].get("phase") == "Bound")
    return causes


def _claim_update(new: Object, old: Object, bound: bool) -> list[Cause]:
    free = {"volumeAttributesClassName"}
    if not old.get("volumeName"):
        # Binding names the volume; a class may be filled in where there was none.
        free.add("volumeName")
    if old.get("storageClassName") is None:
        free.add("storageClassName")
    if bound or new.get("volumeName"):
        free.add("resources")
    causes = []
    if {k: v for k, v in new.items() if k not in free} != {k: v for k, v in old.items() if k not in free}:
        text = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        causes.append(field_forbidden("spec", text))
    before, after = ((one["resources"].get("requests") or {}).get("storage") for one in (old, new))
    if not causes and before and after and quantities.value(after) < quantities.value(before):
        causes.append(field_forbidden("spec.resources.requests.storage", "field can not be less than previous value"))
    return causes


def validate_volume(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a PersistentVolume."""
    spec = obj["spec"]
    causes = _access_modes(spec)
    capacity = spec.get("capacity") or {}
    if not capacity:
        causes.append(required("spec.capacity"))
    if list(capacity) != ["storage"]:
        causes.append(not_supported("spec.capacity", capacity, ["storage"]))
    for name, amount in capacity.items():
        if quantities.value(amount) <= 0:
            causes.append(invalid_value(f"spec.capacity[{name}]", amount, _POSITIVE))
    policies = ["Delete", "Recycle", "Retain"]
    causes += _enum(spec.get("persistentVolumeReclaimPolicy"), policies, "spec.persistentVolumeReclaimPolicy")
    sources = [field for field in spec if field not in _VOLUME_FIELDS]
    if not sources:
        causes.append(required("spec", "must specify a volume type"))
    for field in sources[1:]:
        causes.append(field_forbidden(f"spec.{field}", "may not specify more than 1 volume type"))
    causes += _volume_source(spec)
    if spec.get("storageClassName"):
        causes += subdomain_causes(spec["storageClassName"], "spec.storageClassName")
    causes += _enum(spec.get("volumeMode"), ["Block", "Filesystem"], "spec.volumeMode")
    if old is not None and any(
        spec.get(field) != old["spec"].get(field) for field in {*sources, *old["spec"]} - _VOLUME_FIELDS
    ):
        causes.append(
            field_forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation")
        )
    if old is not None and spec.get("volumeMode") != old["spec"].get("volumeMode"):
        causes.append(invalid_value("volumeMode", spec.get("volumeMode"), "field is immutable"))
    if old is not None and old["spec"].get("nodeAffinity") not in (None, spec.get("nodeAffinity")):
        causes.append(invalid_value("nodeAffinity", spec.get("nodeAffinity"), "field is immutable"))
    return causes


def _volume_source(spec: Object) -> list[Cause]:
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


def validate_storage_class(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a StorageClass."""
    causes = []
    if not obj.get("provisioner"):
        causes.append(required("provisioner"))
    else:
        # Capital letters were always taken, though not in a prefix.
        if qualified_causes("provisioner", obj["provisioner"].lower()):
            causes += qualified_causes("provisioner", obj["provisioner"])
    causes += _enum(obj.get("reclaimPolicy"), ["Delete", "Retain"], "reclaimPolicy")
    causes += _enum(obj.get("volumeBindingMode"), ["Immediate", "WaitForFirstConsumer"], "volumeBindingMode")
    if old is not None:
        if (obj.get("parameters") or {}) != (old.get("parameters") or {}):
            causes.append(field_forbidden("parameters", "updates to parameters are forbidden."))
        for field, text in (
            ("provisioner", "updates to provisioner are forbidden."),
            ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
        ):
            if obj.get(field) != old.get(field):
                causes.append(field_forbidden(field, text))
        if obj.get("volumeBindingMode") != old.get("volumeBindingMode"):
            causes.append(invalid_value("volumeBindingMode", obj.get("volumeBindingMode"), "field is immutable"))
    return causes


# -- priorities, leases, limits


def validate_priority_class(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a PriorityClass."""
    causes, name, value = [], obj["metadata"].get("name", ""), obj["value"]
    system = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
    if name.startswith("system-"):
        if system.get(name) != value:
            wanted = f"value of {name} PriorityClass must be {system[name]}" if name in system else (
                f"{name} is not a known system priority class"
            )  # fmt: skip
            text = "priority class names with 'system-' prefix are reserved for system use only. error: "
            causes.append(field_forbidden("metadata.name", text + wanted))
    elif value > MAX_PRIORITY:
        text = f"maximum allowed value of a user defined priority is {MAX_PRIORITY}"
        causes.append(field_forbidden("value", text))
    causes += _enum(obj.get("preemptionPolicy"), ["PreemptLowerPriority", "Never"], "preemptionPolicy")
    if old is not None:
        if value != old["value"]:
            causes.append(field_forbidden("value", "may not be changed in an update."))
        if obj.get("preemptionPolicy") != old.get("preemptionPolicy"):
            causes.append(invalid_value("preemptionPolicy", obj.get("preemptionPolicy"), "field is immutable"))
    return causes


def validate_lease(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a Lease."""
    spec, causes = obj["spec"], []
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        causes.append(invalid_value("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    if transitions is not None and transitions < 0:
        causes.append(invalid_value("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    return causes


def validate_budget(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a PodDisruptionBudget."""
    spec, causes = obj["spec"], []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        text = "minAvailable and maxUnavailable cannot be both set"
        causes.append(invalid_value("spec", spec, text))
    for field in ("minAvailable", "maxUnavailable"):
        value = spec.get(field)
        if isinstance(value, int) and value < 0:
            causes.append(invalid_value(f"spec.{field}", value, _NOT_NEGATIVE))
        elif isinstance(value, str) and not (value.endswith("%") and value[:-1].isdigit()):
            causes.append(invalid_value(f"spec.{field}", value, _PERCENT))
        elif isinstance(value, str) and int(value[:-1]) > 100:
            causes.append(invalid_value(f"spec.{field}", value, "must not be greater than 100%"))
    return causes + selector_causes(spec.get("selector"), "spec.selector")


def validate_revision(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a ControllerRevision."""
    causes = []
    if obj.get("data") is None:
        causes.append(required("data", "data is mandatory"))
    if obj["revision"] < 0:
        causes.append(invalid_value("revision", obj["revision"], _NOT_NEGATIVE))
    if old is not None and obj.get("data") != old.get("data"):
        causes.append(invalid_value("data", obj.get("data"), "field is immutable"))
    return causes
