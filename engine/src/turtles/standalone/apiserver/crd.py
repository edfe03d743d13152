# SPDX-License-Identifier: GPL-3.0-or-later
"""CustomResourceDefinitions: defaults, validation, status, and the kinds they define."""

import re
from datetime import UTC, datetime
from typing import Any

from turtles.standalone.apiserver.errors import Cause, Object, invalid_value, not_supported, required
from turtles.standalone.apiserver.kinds import EXTENSIONS, Column, Kind, Scale

RESOURCE = f"{EXTENSIONS}/customresourcedefinitions"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_LABEL = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_TYPES = ("array", "boolean", "integer", "number", "object", "string")


def prepare(crd: Object) -> None:
    """Set a definition's defaults: singular, listKind, conversion."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return
    names = spec.get("names")
    if isinstance(names, dict) and isinstance(names.get("kind"), str):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", f"{names['kind']}List")
    conversion = spec.get("conversion")
    if not isinstance(conversion, dict) or not conversion:
        spec["conversion"] = {"strategy": "None"}


def validate(crd: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a definition."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return [required("spec")]
    causes: list[Cause] = []
    group, names = spec.get("group"), spec.get("names") or {}
    if not isinstance(group, str) or not group:
        causes.append(required("spec.group"))
    elif not _SUBDOMAIN.match(group):
        causes.append(invalid_value("spec.group", group, "must be a lowercase RFC 1123 subdomain"))
    elif "." not in group:
        causes.append(invalid_value("spec.group", group, "should be a domain with at least one dot"))
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        if spec.get("scope"):
            causes.append(not_supported("spec.scope", spec.get("scope"), ["Cluster", "Namespaced"]))
        else:
            causes.append(required("spec.scope"))
    for name in ("plural", "singular", "kind", "listKind"):
        value = names.get(name)
        if not isinstance(value, str) or not value:
            causes.append(required(f"spec.names.{name}"))
        elif not _LABEL.match(value.lower() if name in ("kind", "listKind") else value):
            causes.append(invalid_value(f"spec.names.{name}", value, "must be a lowercase RFC 1035 label"))
    expected = f"{names.get('plural')}.{group}"
    if crd["metadata"].get("name") != expected:
        text = 'must be spec.names.plural+"."+spec.group'
        causes.append(invalid_value("metadata.name", crd["metadata"].get("name"), text))
    causes += _validate_versions(spec.get("versions"))
    if old is not None and not causes:
        before = old.get("spec", {})
        established = any(
            condition.get("type") == "Established" and condition.get("status") == "True"
            for condition in (old.get("status", {}).get("conditions") or ())
        )
        for field in ("group", "scope") if established else ("group",):
            if before.get(field) != spec.get(field):
                causes.append(invalid_value(f"spec.{field}", spec.get(field), "field is immutable"))
        if established and before.get("names", {}).get("kind") != names.get("kind"):
            causes.append(invalid_value("spec.names.kind", names.get("kind"), "field is immutable"))
    return causes


def _validate_versions(versions: Any) -> list[Cause]:
    if not isinstance(versions, list) or not versions:
        return [required("spec.versions", "must have at least one version")]
    causes: list[Cause] = []
    stored = 0
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        if not isinstance(version, dict) or not isinstance(version.get("name"), str):
            causes.append(required(f"{path}.name"))
            continue
        stored += version.get("storage") is True
        for name in ("served", "storage"):
            if not isinstance(version.get(name), bool):
                causes.append(required(f"{path}.{name}"))
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not isinstance(schema, dict):
            causes.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        else:
            where = f"{path}.schema.openAPIV3Schema"
            if schema.get("type") != "object":
                causes.append(invalid_value(f"{where}.type", schema.get("type", ""), "must be object at the root"))
            _validate_schema(schema, where, causes)
        for number, column in enumerate(version.get("additionalPrinterColumns") or ()):
            for name in ("name", "type", "jsonPath"):
                if not isinstance(column, dict) or not isinstance(column.get(name), str):
                    causes.append(required(f"{path}.additionalPrinterColumns[{number}].{name}"))
    if stored != 1 and not causes:
        names = [version.get("name") for version in versions]
        text = "must have exactly one version marked as storage version"
        causes.append(invalid_value("spec.versions", names, text))
    return causes


def _validate_schema(schema: Any, path: str, causes: list[Cause]) -> None:
    if not isinstance(schema, dict):
        causes.append(invalid_value(path, schema, "must be a schema object"))
        return
    kind = schema.get("type")
    if kind is None:
        if not schema.get("x-kubernetes-int-or-string") and not schema.get("x-kubernetes-preserve-unknown-fields"):
            causes.append(required(f"{path}.type", "must not be empty for specified object fields"))
    elif kind not in _TYPES:
        causes.append(not_supported(f"{path}.type", kind, list(_TYPES)))
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        try:
            re.compile(pattern.replace("\\z", "\\Z"))
        except re.error as error:
            causes.append(invalid_value(f"{path}.pattern", pattern, f"must be a valid regular expression: {error}"))
    properties = schema.get("properties")
    if isinstance(properties, dict):
        for name, inner in properties.items():
            _validate_schema(inner, f"{path}.properties[{name}]", causes)
    if kind == "array" and not isinstance(schema.get("items"), dict):
        causes.append(required(f"{path}.items", "must be specified"))
    elif isinstance(schema.get("items"), dict):
        _validate_schema(schema["items"], f"{path}.items", causes)
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        _validate_schema(additional, f"{path}.additionalProperties", causes)
    if schema.get("x-kubernetes-list-type") == "map" and not schema.get("x-kubernetes-list-map-keys"):
        causes.append(required(f"{path}.x-kubernetes-list-map-keys", "required for a list of type map"))


def set_status(crd: Object) -> None:
    """Write the status of an accepted definition: its names, versions and the conditions clients wait for."""
    status = crd["status"] = {name: value for name, value in (crd.get("status") or {}).items() if value is not None}
    spec = crd["spec"]
    status["acceptedNames"] = dict(spec["names"])
    stored = next(version["name"] for version in spec["versions"] if version["storage"])
    versions = status.setdefault("storedVersions", [])
    if stored not in versions:
        versions.append(stored)
    conditions = status.setdefault("conditions", [])
    for kind, reason, message in (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ):
        if not any(condition.get("type") == kind for condition in conditions):
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            condition = {"lastTransitionTime": now, "message": message, "reason": reason, "status": "True"}
            conditions.append({**condition, "type": kind})


def kinds(crd: Object) -> list[Kind]:
    """Return the kinds that a definition serves, the preferred version first."""
    spec = crd["spec"]
    names = spec["names"]
    stored = next(version["name"] for version in spec["versions"] if version["storage"])
    result = []
    for version in spec["versions"]:
        if not version["served"]:
            continue
        subresources = version.get("subresources") or {}
        scale = subresources.get("scale")
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"}
        columns = tuple(
            Column(
                column["name"],
                column["type"],
                column.get("format", ""),
                column.get("description", ""),
                column.get("priority", 0),
                column["jsonPath"],
            )
            for column in version.get("additionalPrinterColumns") or ()
        )
        result.append(
            Kind(
                group=spec["group"],
                version=version["name"],
                kind=names["kind"],
                plural=names["plural"],
                namespaced=spec["scope"] == "Namespaced",
                singular=names.get("singular", ""),
                list_kind=names.get("listKind", ""),
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                status="status" in subresources,
                scale=_scale(scale) if isinstance(scale, dict) else None,
                storage_version=stored,
                columns=columns,
                schema=schema,
                custom=True,
                preserve=bool(spec.get("preserveUnknownFields")),
                fields=tuple(field["jsonPath"].lstrip(".") for field in version.get("selectableFields") or ()),
                generation=True,
                deprecated=_warning(spec, version),
                conversion=spec.get("conversion"),
            )
        )
    return sorted(result, key=lambda kind: version_priority(kind.version))


def _warning(spec: Object, version: Object) -> str:
    if not version.get("deprecated"):
        return ""
    text = f"{spec['group']}/{version['name']} {spec['names']['kind']} is deprecated"
    return str(version.get("deprecationWarning") or text)


def _scale(scale: Object) -> Scale:
    def path(name: str) -> str:
        return str(scale.get(name, "")).lstrip(".")

    return Scale(path("specReplicasPath"), path("statusReplicasPath"), path("labelSelectorPath"))


_VERSION = re.compile(r"^v(\d+)(?:(alpha|beta)(\d+))?$")


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Return a sort key that puts v2 before v1, v1 before v1beta1, v1beta1 before v1alpha1, and others last."""
    match = _VERSION.match(version)
    if not match:
        return (3, 0, 0, version)
    major, stage, minor = match.groups()
    return ({None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0), version)
