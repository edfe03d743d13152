# SPDX-License-Identifier: GPL-3.0-or-later
"""Table output: the columns kubectl prints."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from turtles.standalone.apiserver.errors import Object
from turtles.standalone.apiserver.kinds import RBAC, Column, Kind

Cells = Callable[[Object], list[Any]]


def age(timestamp: Any, now: datetime | None = None) -> str:
    """Return how long ago a time was, as Kubernetes' duration.HumanDuration writes it."""
    try:
        when = datetime.fromisoformat(timestamp)
        seconds = int(((now or datetime.now(UTC)) - when).total_seconds())
    except (ValueError, TypeError):
        return "<unknown>"
    if seconds < -1:
        return "<invalid>"
    return human_duration(max(seconds, 0))


def human_duration(seconds: int) -> str:
    """Return a duration with two or three significant figures, as kubectl shows ages."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        rest = seconds % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        rest = hours % 24
        return f"{days}d{rest}h" if rest else f"{days}d"
    if days < 730:
        return f"{days}d"
    years, rest = days // 365, days % 365
    return f"{years}y{rest}d" if years < 8 and rest else f"{years}y"


def _created(obj: Object) -> str:
    return age(obj["metadata"].get("creationTimestamp"))


def _name(obj: Object) -> str:
    return str(obj["metadata"].get("name", ""))


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _columns(*names: str) -> tuple[Column, ...]:
    """Make columns; a leading + marks those of ``-o wide``, a trailing # numbers."""
    result = []
    for name in names:
        wide, plain = name.startswith("+"), name.strip("+#")
        result.append(
            Column(
                plain, "integer" if name.endswith("#") else "string", "name" if plain == "Name" else "", "",
                1 if wide else 0,
            )
        )  # fmt: skip
    return tuple(result)


def _pod(obj: Object) -> list[Any]:
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    containers = _list(status.get("containerStatuses"))
    reason = status.get("reason") or status.get("phase", "Unknown")
    ready = restarts = 0
    for container in reversed(containers):
        state = _map(container.get("state"))
        restarts += container.get("restartCount", 0)
        waiting, terminated = _map(state.get("waiting")), _map(state.get("terminated"))
        if waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated:
            code = terminated.get("exitCode", 0)
            reason = terminated.get("reason") or f"ExitCode:{code}"
        elif container.get("ready") and state.get("running") is not None:
            ready += 1
    if obj["metadata"].get("deletionTimestamp"):
        reason = "Terminating"
    gates = _list(spec.get("readinessGates"))
    conditions = {one.get("type"): one.get("status") for one in _list(status.get("conditions"))}
    met = sum(conditions.get(gate.get("conditionType")) == "True" for gate in gates)
    total = len(_list(spec.get("containers")))
    return [
        _name(obj), f"{ready}/{total}", reason, str(restarts), _created(obj), status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>", status.get("nominatedNodeName") or "<none>",
        f"{met}/{len(gates)}" if gates else "<none>",
    ]  # fmt: skip


def _node(obj: Object) -> list[Any]:
    status, info = _map(obj.get("status")), _map(_map(obj.get("status")).get("nodeInfo"))
    conditions = {one.get("type"): one.get("status") for one in _list(status.get("conditions"))}
    state = {"True": "Ready", "False": "NotReady"}.get(str(conditions.get("Ready")), "Unknown")
    if _map(obj.get("spec")).get("unschedulable"):
        state += ",SchedulingDisabled"
    labels = _map(obj["metadata"].get("labels"))
    prefix = "node-role.kubernetes.io/"
    roles = ",".join(sorted(name[len(prefix) :] for name in labels if name.startswith(prefix))) or "<none>"
    addresses = {one.get("type"): one.get("address") for one in _list(status.get("addresses"))}
    return [
        _name(obj), state, roles, _created(obj), info.get("kubeletVersion", ""),
        addresses.get("InternalIP") or "<none>", addresses.get("ExternalIP") or "<none>",
        info.get("osImage") or "<unknown>", info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]  # fmt: skip


def _event(obj: Object) -> list[Any]:
    involved, source = _map(obj.get("involvedObject")), _map(obj.get("source"))
    first, last = obj.get("firstTimestamp"), obj.get("lastTimestamp") or obj.get("eventTime")
    target = f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"
    by = source.get("component") or obj.get("reportingComponent", "")
    return [
        age(last or obj["metadata"].get("creationTimestamp")), obj.get("type", ""), obj.get("reason", ""), target,
        involved.get("fieldPath", ""), by, str(obj.get("message", "")).strip(),
        age(first or last or obj["metadata"].get("creationTimestamp")), obj.get("count") or 1, _name(obj),
    ]  # fmt: skip


def _service(obj: Object) -> list[Any]:
    spec = _map(obj.get("spec"))
    ports = ",".join(
        f"{port.get('port')}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in _list(spec.get("ports"))
    )
    selector = ",".join(f"{key}={value}" for key, value in _map(spec.get("selector")).items())
    return [
        _name(obj), spec.get("type", ""), spec.get("clusterIP") or "<none>", spec.get("externalName") or "<none>",
        ports or "<none>", _created(obj), selector or "<none>",
    ]  # fmt: skip


def _quota(obj: Object) -> list[Any]:
    status = _map(obj.get("status"))
    hard, used = _map(status.get("hard")), _map(status.get("used"))
    shown: dict[bool, list[str]] = {True: [], False: []}
    for name in sorted(hard):
        shown[name.startswith("limits.")].append(f"{name}: {used.get(name, 0)}/{hard[name]}")
    return [_name(obj), _created(obj), ", ".join(shown[False]), ", ".join(shown[True])]


def _budget(obj: Object) -> list[Any]:
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    bounds = [str(spec.get(field, "N/A")) for field in ("minAvailable", "maxUnavailable")]
    return [_name(obj), *bounds, status.get("disruptionsAllowed", 0), _created(obj)]


def _endpoint_slice(obj: Object) -> list[Any]:
    ports = [str(port["port"]) for port in _list(obj.get("ports")) if port.get("port")]
    addresses = [one for endpoint in _list(obj.get("endpoints")) for one in _list(endpoint.get("addresses"))]
    more = f" + {len(addresses) - 3} more..." if len(addresses) > 3 else ""
    shown = ",".join(addresses[:3]) + more
    return [_name(obj), obj.get("addressType", ""), ",".join(ports) or "<unset>", shown or "<unset>", _created(obj)]


def _endpoints(obj: Object) -> list[Any]:
    found = [
        f"{address.get('ip')}:{port.get('port')}"
        for subset in _list(obj.get("subsets"))
        for port in _list(subset.get("ports"))
        for address in _list(subset.get("addresses"))
    ]
    text = ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")
    return [_name(obj), text or "<none>", _created(obj)]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: Any) -> str:
    return ",".join(_MODES.get(mode, str(mode)) for mode in _list(modes))


def _claim(obj: Object) -> list[Any]:
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    bound = bool(spec.get("volumeName"))
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    return [
        _name(obj), phase, spec.get("volumeName", ""),
        _map(status.get("capacity")).get("storage", "") if bound else "",
        _modes(status.get("accessModes")) if bound else "", spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or "<unset>", _created(obj), spec.get("volumeMode") or "<unset>",
    ]  # fmt: skip


def _volume(obj: Object) -> list[Any]:
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    claim = _map(spec.get("claimRef"))
    target = f"{claim.get('namespace')}/{claim.get('name')}" if claim else ""
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    return [
        _name(obj), _map(spec.get("capacity")).get("storage", ""), _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""), phase, target, spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>", status.get("reason", ""), _created(obj),
        spec.get("volumeMode") or "<unset>",
    ]  # fmt: skip


def _storage_class(obj: Object) -> list[Any]:
    annotations = _map(obj["metadata"].get("annotations"))
    default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return [
        _name(obj) + (" (default)" if default else ""), obj.get("provisioner", ""), obj.get("reclaimPolicy", ""),
        obj.get("volumeBindingMode", ""), bool(obj.get("allowVolumeExpansion")), _created(obj),
    ]  # fmt: skip


def _binding(obj: Object) -> list[Any]:
    role = _map(obj.get("roleRef"))

    def names(kind: str) -> str:
        return ", ".join(
            f"{one['namespace']}/{one.get('name')}" if one.get("namespace") else str(one.get("name"))
            for one in _list(obj.get("subjects"))
            if one.get("kind") == kind
        )

    cells = [_name(obj), f"{role.get('kind')}/{role.get('name')}", _created(obj)]
    return [*cells, names("User"), names("Group"), names("ServiceAccount")]


def _api_service(obj: Object) -> list[Any]:
    service = _map(_map(obj.get("spec")).get("service"))
    conditions = _list(_map(obj.get("status")).get("conditions"))
    available: Object = next((one for one in conditions if one.get("type") == "Available"), {})
    text = available.get("status", "Unknown")
    if text != "True" and available.get("reason"):
        text += f" ({available['reason']})"
    where = f"{service.get('namespace')}/{service.get('name')}" if service else "Local"
    return [_name(obj), where, text, _created(obj)]


def _webhooks(obj: Object) -> list[Any]:
    return [_name(obj), len(_list(obj.get("webhooks"))), _created(obj)]


_BINDING_COLUMNS = _columns("Name", "Role", "Age", "+Users", "+Groups", "+ServiceAccounts")
_TABLES: dict[str, tuple[tuple[Column, ...], Cells]] = {
    "/namespaces": (
        _columns("Name", "Status", "Age"),
        lambda obj: [_name(obj), _map(obj.get("status")).get("phase", ""), _created(obj)],
    ),
    "/nodes": (
        _columns(
            "Name", "Status", "Roles", "Age", "Version", "+Internal-IP", "+External-IP", "+OS-Image", "+Kernel-Version",
            "+Container-Runtime",
        ),
        _node,
    ),
    "/pods": (
        _columns(
            "Name", "Ready", "Status", "Restarts", "Age", "+IP", "+Node", "+Nominated Node", "+Readiness Gates"
        ),
        _pod,
    ),
    "/events": (
        _columns(
            "Last Seen", "Type", "Reason", "Object", "+Subobject", "+Source", "Message", "+First Seen", "+Count#",
            "+Name",
        ),
        _event,
    ),
    "/secrets": (
        _columns("Name", "Type", "Data#", "Age"),
        lambda obj: [_name(obj), obj.get("type", ""), len(_map(obj.get("data"))), _created(obj)],
    ),
    "/configmaps": (
        _columns("Name", "Data#", "Age"),
        lambda obj: [_name(obj), len(_map(obj.get("data"))) + len(_map(obj.get("binaryData"))), _created(obj)],
    ),
    "/serviceaccounts": (
        _columns("Name", "Secrets#", "Age"),
        lambda obj: [_name(obj), len(_list(obj.get("secrets"))), _created(obj)],
    ),
    "/services": (
        _columns("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "+Selector"),
        _service,
    ),
    "/endpoints": (_columns("Name", "Endpoints", "Age"), _endpoints),
    "/resourcequotas": (_columns("Name", "Age", "Request", "Limit"), _quota),
    "/limitranges": (
        _columns("Name", "Created At"),
        lambda obj: [_name(obj), obj["metadata"].get("creationTimestamp")],
    ),
    "policy/poddisruptionbudgets": (
        _columns("Name", "Min Available", "Max Unavailable", "Allowed Disruptions", "Age"),
        _budget,
    ),
    "discovery.k8s.io/endpointslices": (
        _columns("Name", "AddressType", "Ports", "Endpoints", "Age"),
        _endpoint_slice,
    ),
    "/persistentvolumeclaims": (
        _columns(
            "Name", "Status", "Volume", "Capacity", "Access Modes", "StorageClass", "VolumeAttributesClass", "Age",
            "+VolumeMode",
        ),
        _claim,
    ),
    "/persistentvolumes": (
        _columns(
            "Name", "Capacity", "Access Modes", "Reclaim Policy", "Status", "Claim", "StorageClass",
            "VolumeAttributesClass", "Reason", "Age", "+VolumeMode",
        ),
        _volume,
    ),
    "storage.k8s.io/storageclasses": (
        _columns("Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"),
        _storage_class,
    ),
    "coordination.k8s.io/leases": (
        _columns("Name", "Holder", "Age"),
        lambda obj: [_name(obj), _map(obj.get("spec")).get("holderIdentity") or "", _created(obj)],
    ),
    "scheduling.k8s.io/priorityclasses": (
        _columns("Name", "Value#", "Global-Default", "Age", "PreemptionPolicy"),
        lambda obj: [
            _name(obj), obj.get("value", 0), bool(obj.get("globalDefault")), _created(obj),
            obj.get("preemptionPolicy", ""),
        ],
    ),
    "apps/controllerrevisions": (
        _columns("Name", "Controller", "Revision#", "Age"),
        lambda obj: [
            _name(obj),
            next(
                (f"{one['kind'].lower()}/{one['name']}" for one in _list(obj["metadata"].get("ownerReferences"))
                 if one.get("controller")), "<none>"
            ),
            obj.get("revision", 0), _created(obj),
        ],
    ),
    f"{RBAC}/roles": (
        _columns("Name", "Created At"),
        lambda obj: [_name(obj), obj["metadata"].get("creationTimestamp")],
    ),
    f"{RBAC}/clusterroles": (
        _columns("Name", "Created At"),
        lambda obj: [_name(obj), obj["metadata"].get("creationTimestamp")],
    ),
    f"{RBAC}/rolebindings": (_BINDING_COLUMNS, _binding),
    f"{RBAC}/clusterrolebindings": (_BINDING_COLUMNS, _binding),
    "apiextensions.k8s.io/customresourcedefinitions": (
        _columns("Name", "Created At"),
        lambda obj: [_name(obj), obj["metadata"].get("creationTimestamp")],
    ),
    "apiregistration.k8s.io/apiservices": (_columns("Name", "Service", "Available", "Age"), _api_service),
    "admissionregistration.k8s.io/mutatingwebhookconfigurations": (
        _columns("Name", "Webhooks#", "Age"), _webhooks,
    ),
    "admissionregistration.k8s.io/validatingwebhookconfigurations": (
        _columns("Name", "Webhooks#", "Age"), _webhooks,
    ),
}  # fmt: skip

_GENERIC: tuple[tuple[Column, ...], Cells] = (_columns("Name", "Age"), lambda obj: [_name(obj), _created(obj)])

# -- JSONPath of additionalPrinterColumns

_STEP = re.compile(
    r"\.([A-Za-z0-9_-]+|\*)|\['([^']*)'\]|\[(\d+|\*)\]|\[\?\(@\.([\w.-]+)\s*==\s*(?:\"([^\"]*)\"|'([^']*)'|(\w+))\)\]"
)


def json_path(obj: Any, path: str) -> list[Any]:
    """Return the values a simple JSONPath finds.

    Known are fields, indices, ``*`` and filters such as ``[?(@.type=="Ready")]``.
    """
    path = path.replace("\\.", "\x00")
    found, position = [obj], 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            return []
        position = match.end()
        name, quoted, index, field, *values = match.groups()
        found = [inner for value in found for inner in _step(value, name, quoted, index, field, values)]
    return found


def _step(
    value: Any, name: str | None, quoted: str | None, index: str | None, field: str | None, values: Any
) -> list[Any]:
    if field is not None:
        wanted = next(one for one in values if one is not None)
        return [one for one in _list(value) if [str(inner) for inner in json_path(one, f".{field}")] == [wanted]]
    if index == "*" or name == "*":
        return list(value.values()) if isinstance(value, dict) else _list(value)
    if index is not None:
        items = _list(value)
        return items[int(index) : int(index) + 1]
    key = (quoted if quoted is not None else name or "").replace("\x00", ".")
    return [value[key]] if isinstance(value, dict) and key in value else []


def _cell(column: Column, obj: Object) -> Any:
    values = json_path(obj, column.path)
    if not values:
        return None
    value = values[0]
    if column.type == "date":
        return age(value)
    if column.type == "integer":
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    if column.type == "number":
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if column.type == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"))
    return None if value is None else str(value)


def _custom(kind: Kind) -> tuple[tuple[Column, ...], Cells]:
    extra = kind.columns or (Column("Age", "date", "", "", 0, ".metadata.creationTimestamp"),)
    return (*_columns("Name"), *extra), lambda obj: [_name(obj), *(_cell(column, obj) for column in extra)]


_NAME_TEXT = (
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow "
    "a client to request the generation of an appropriate name automatically. Name is primarily intended for creation "
    "idempotence and configuration definition. Cannot be updated. More info: "
)
_AGE_TEXT = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed "
    "to be set in happens-before order across separate operations. Clients may not set this value. It is represented "
    "in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)
_NAMES_PAGE = "https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"


def _described(column: Column, custom: bool) -> str:
    """Return a column's description where its definition has none, as kube-apiserver does."""
    if column.name == "Name" and not column.path:
        return _NAME_TEXT + _NAMES_PAGE
    if column.name == "Age" and column.path in ("", ".metadata.creationTimestamp"):
        return _AGE_TEXT
    return f"Custom resource definition column (in JSONPath format): {column.path}" if custom else ""


def table(kind: Kind, objects: list[Object], meta: Object, include: str = "Metadata", headers: bool = True) -> Object:
    """Return a meta.k8s.io/v1 Table.

    :param include: what a row carries of its object: None, Metadata or Object.
    :param headers: whether to define the columns (a watch does so in its first event only).
    """
    columns, cells = _custom(kind) if kind.custom else _TABLES.get(kind.resource, _GENERIC)
    result: Object = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    definitions = [
        {
            "name": column.name, "type": column.type,
            "format": column.format, "description": column.description or _described(column, kind.custom),
            "priority": column.priority,
        }
        for column in columns
    ]  # fmt: skip
    result["columnDefinitions"] = definitions if headers else None
    result["rows"] = [_row(obj, _cells(obj, cells, len(columns)), include) for obj in objects]
    return result


def _cells(obj: Object, cells: Cells, width: int) -> list[Any]:
    try:
        return cells(obj)
    except (AttributeError, TypeError, KeyError, ValueError):
        # One object with an odd field must not hide the others from a list.
        return [_name(obj), *[None] * (width - 1)]


def _row(obj: Object, cells: list[Any], include: str) -> Object:
    row: Object = {"cells": cells}
    if include == "Object":
        row["object"] = obj
    else:
        row["object"] = None if include == "None" else partial(obj)
    return row


def partial(obj: Object) -> Object:
    """Return an object's PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
