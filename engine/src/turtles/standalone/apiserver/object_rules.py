# SPDX-License-Identifier: GPL-3.0-or-later
"""What built-in kinds must look like that hold configuration, storage, limits and priorities.

Source: Kubernetes' pkg/apis/*/validation. Defaults are set before; types are right (decode.py).
"""

import base64
import ipaddress
import itertools
import json
from typing import Any

from turtles.standalone.apiserver import quantities
from turtles.standalone.apiserver.errors import (
    Cause,
    Object,
    duplicate,
    field_forbidden,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from turtles.standalone.apiserver.metadata import qualified_causes, subdomain_causes, validate_keys

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
                causes.append(invalid_value(f"data[{field}]", "<secret contents redacted>", str(error)))
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
    for name, amount in capacity.items():
        if name != "storage":
            causes.append(not_supported("spec.capacity", name, ["storage"]))
        elif quantities.value(amount) <= 0:
            causes.append(invalid_value(f"spec.capacity[{name}]", amount, _POSITIVE))
    policies = ["Delete", "Recycle", "Retain"]
    causes += _enum(spec.get("persistentVolumeReclaimPolicy"), policies, "spec.persistentVolumeReclaimPolicy")
    sources = [field for field in spec if field not in _VOLUME_FIELDS]
    if not sources:
        causes.append(required("spec", "must specify a volume type"))
    for field in sources[1:]:
        causes.append(field_forbidden(f"spec.{field}", "may not specify more than 1 volume type"))
    if spec.get("storageClassName"):
        causes += subdomain_causes(spec["storageClassName"], "spec.storageClassName")
    causes += _enum(spec.get("volumeMode"), ["Block", "Filesystem"], "spec.volumeMode")
    if old is not None and any(
        spec.get(field) != old["spec"].get(field) for field in {*sources, *old["spec"]} - _VOLUME_FIELDS
    ):
        causes.append(
            field_forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation")
        )
    return causes


def validate_storage_class(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a StorageClass."""
    causes = []
    if not obj.get("provisioner"):
        causes.append(required("provisioner"))
    else:
        causes += qualified_causes("provisioner", obj["provisioner"].lower())
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
            text = "priority class names with 'system-' prefix are reserved for system use only"
            causes.append(field_forbidden("metadata.name", text))
    elif value > MAX_PRIORITY:
        text = f"maximum allowed value of a user defined priority is {MAX_PRIORITY}"
        causes.append(field_forbidden("value", text))
    causes += _enum(obj.get("preemptionPolicy"), ["Never", "PreemptLowerPriority"], "preemptionPolicy")
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


def validate_limit_range(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a LimitRange."""
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, item in enumerate(obj["spec"].get("limits") or ()):
        path, kind = f"spec.limits[{index}]", item.get("type", "")
        if kind in seen:
            causes.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
        least, most = item.get("min") or {}, item.get("max") or {}
        normal, asked = item.get("default") or {}, item.get("defaultRequest") or {}
        if kind == "Pod":
            for field in ("default", "defaultRequest"):
                if item.get(field):
                    causes.append(field_forbidden(f"{path}.{field}", "may not be specified when `type` is 'Pod'"))
        for name in sorted({*least, *most, *normal, *asked}):
            causes += _in_order(
                [("min", least.get(name)), ("defaultRequest", asked.get(name)), ("default", normal.get(name)),
                 ("max", most.get(name))], f"{path}", name,
            )  # fmt: skip
    return causes


def _in_order(bounds: list[tuple[str, Any]], path: str, name: str) -> list[Cause]:
    causes = []
    given = [(field, amount) for field, amount in bounds if amount is not None]
    for (low, small), (high, big) in itertools.pairwise(given):
        if quantities.value(small) > quantities.value(big):
            text = f"{low} value {small} is greater than {high} value {big}"
            causes.append(invalid_value(f"{path}.{low}[{name}]", small, text))
    return causes


_SCOPES = ["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating"]
_COUNTED = ("pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps",
            "persistentvolumeclaims", "services.nodeports", "services.loadbalancers")  # fmt: skip
_MEASURED = ("cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage",
             "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage")  # fmt: skip


def validate_quota(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a ResourceQuota."""
    spec, causes = obj["spec"], []
    for name, amount in (spec.get("hard") or {}).items():
        path = f"spec.hard[{name}]"
        causes += qualified_causes(path, name)
        if "/" not in name and name not in _COUNTED + _MEASURED and not name.startswith(("hugepages-", "requests.")):
            causes.append(invalid_value(path, name, "must be a standard resource type or fully qualified"))
            causes.append(invalid_value(path, name, "must be a standard resource for quota"))
        value = quantities.value(amount)
        if value < 0:
            causes.append(invalid_value(path, amount, _NOT_NEGATIVE))
        if (name in _COUNTED or name.startswith("count/")) and value != value.to_integral_value():
            causes.append(invalid_value(path, amount, "must be an integer"))
    for scope in spec.get("scopes") or ():
        if scope not in _SCOPES:
            causes.append(invalid_value("spec.scopes", spec["scopes"], "unsupported scope"))
    if old is not None and (spec.get("scopes") or []) != (old["spec"].get("scopes") or []):
        causes.append(invalid_value("spec.scopes", spec.get("scopes"), "field is immutable"))
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
    return causes


def validate_endpoints(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with Endpoints."""
    causes: list[Cause] = []
    for index, subset in enumerate(obj.get("subsets") or ()):
        path = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            causes.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for field in ("addresses", "notReadyAddresses"):
            for number, one in enumerate(subset.get(field) or ()):
                causes += _endpoint_address(one.get("ip", ""), f"{path}.{field}[{number}].ip")
        ports = subset.get("ports") or ()
        for number, port in enumerate(ports):
            where = f"{path}.ports[{number}]"
            if len(ports) > 1 and not port.get("name"):
                causes.append(required(f"{where}.name"))
            if not 1 <= port.get("port", 0) <= 65535:
                causes.append(
                    invalid_value(f"{where}.port", port.get("port", 0), "must be between 1 and 65535, inclusive")
                )
            causes += _enum(port.get("protocol"), ["SCTP", "TCP", "UDP"], f"{where}.protocol")
    return causes


def _endpoint_address(text: str, path: str) -> list[Cause]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [invalid_value(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
    # Loopback addresses are refused by Kubernetes; here the API server itself has one.
    if address.is_link_local:
        return [invalid_value(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")]
    return [invalid_value(path, text, "may not be unspecified (0.0.0.0 or ::)")] if address.is_unspecified else []


def validate_revision(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a ControllerRevision."""
    causes = []
    if obj["revision"] < 0:
        causes.append(invalid_value("revision", obj["revision"], _NOT_NEGATIVE))
    if old is not None and obj.get("data") != old.get("data"):
        causes.append(invalid_value("data", obj.get("data"), "field is immutable"))
    return causes
