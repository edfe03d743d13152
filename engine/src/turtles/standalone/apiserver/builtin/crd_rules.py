# SPDX-License-Identifier: GPL-3.0-or-later
"""What CustomResourceDefinitions must look like, and the clientConfigs of webhooks in them and elsewhere.

Source: pkg/apis/apiextensions/validation of k8s.io/apiextensions-apiserver.
"""

import base64
import re
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from turtles.standalone.apiserver.builtin.crd import APPROVED, approval
from turtles.standalone.apiserver.schema import structural
from turtles.standalone.apiserver.schema.cel import rules
from turtles.standalone.apiserver.schema.metadata import LABEL_1035, LABEL_1035_MESSAGE, SUBDOMAIN
from turtles.standalone.apiserver.schema.status import is_true
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    duplicate,
    field_forbidden,
    invalid_value,
    not_supported,
    required,
    too_long,
)

MAX_SELECTABLE = 8


def validate(crd: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a definition."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return [required("spec")]
    causes: list[Cause] = []
    group, names = spec.get("group"), spec.get("names") or {}
    expected = f"{names.get('plural')}.{group}"
    if old is None and crd["metadata"].get("name") != expected:
        text = 'must be spec.names.plural+"."+spec.group'
        causes.append(invalid_value("metadata.name", crd["metadata"].get("name"), text))
    if not isinstance(group, str) or not group:
        causes.append(required("spec.group"))
    elif not SUBDOMAIN.match(group):
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
        elif not LABEL_1035.match(value.lower() if name in ("kind", "listKind") else value):
            mixed = "may have mixed case, but should otherwise match: " if name in ("kind", "listKind") else ""
            causes.append(invalid_value(f"spec.names.{name}", value, f"{mixed}{LABEL_1035_MESSAGE}"))
    for name in ("shortNames", "categories"):
        values = names.get(name) or []
        for index, value in enumerate(values if isinstance(values, list) else ()):
            if not isinstance(value, str) or not LABEL_1035.match(value):
                where = f"spec.names.{name}[{index}]"
                causes.append(invalid_value(where, value, LABEL_1035_MESSAGE))
    causes += _validate_versions(spec.get("versions"), old)
    causes += _validate_conversion(spec.get("conversion"), old)
    if spec.get("preserveUnknownFields") and not (old or {}).get("spec", {}).get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        causes.append(invalid_value("spec.preserveUnknownFields", True, text))
    if old is not None and not causes:
        before = old.get("spec", {})
        established = is_true(old, "Established")
        for field in ("group", "scope") if established else ("group",):
            if before.get(field) != spec.get(field):
                causes.append(invalid_value(f"spec.{field}", spec.get(field), "field is immutable"))
        if established and before.get("names", {}).get("kind") != names.get("kind"):
            causes.append(invalid_value("spec.names.kind", names.get("kind"), "field is immutable"))
        causes += _validate_stored(crd)
    return causes + _validate_approval(crd, old)


def _validate_approval(crd: Object, old: Object | None) -> list[Cause]:
    """Refuse a definition of a protected group without approval; what an old one lacks may stay away."""
    state = approval(crd)
    if state is None or (old is not None and approval(old) == state):
        return []
    reason, text = state
    where = f"metadata.annotations[{APPROVED}]"
    if reason == "MissingAnnotation":
        return [required(where, text)]
    if reason == "InvalidAnnotation":
        return [invalid_value(where, crd["metadata"]["annotations"][APPROVED], text)]
    return []


def _validate_stored(crd: Object) -> list[Cause]:
    """Check that every version in which objects are stored is still there."""
    names = [version["name"] for version in crd["spec"]["versions"]]
    return [
        invalid_value(f"status.storedVersions[{index}]", name, "must appear in spec.versions")
        for index, name in enumerate((crd.get("status") or {}).get("storedVersions") or ())
        if name not in names
    ]


def _client_of(definition: Object | None) -> Any:
    """Return the clientConfig of a definition's conversion webhook."""
    webhook = (((definition or {}).get("spec") or {}).get("conversion") or {}).get("webhook")
    return webhook.get("clientConfig") if isinstance(webhook, dict) else None


def _validate_conversion(conversion: Any, old: Object | None) -> list[Cause]:
    if conversion is None:
        return []
    if not isinstance(conversion, dict):
        return [invalid_value("spec.conversion", conversion, "must be an object")]
    strategy, webhook = conversion.get("strategy"), conversion.get("webhook")
    if not strategy:
        return [required("spec.conversion.strategy")]
    if strategy not in ("None", "Webhook"):
        return [not_supported("spec.conversion.strategy", strategy, ["None", "Webhook"])]
    if strategy == "None":
        text = "should not be set when strategy is not set to Webhook"
        return [field_forbidden("spec.conversion.webhook", text)] if webhook else []
    client = webhook.get("clientConfig") if isinstance(webhook, dict) else None
    if not isinstance(webhook, dict) or not isinstance(client, dict):
        text = "required when strategy is set to Webhook"
        return [
            required("spec.conversion.webhookClientConfig", text),
            required("spec.conversion.conversionReviewVersions"),
        ]
    causes = validate_client(client, "spec.conversion.webhookClientConfig")
    fault = _bundle_fault(client)
    # One that was there before it was looked at may stay. Those of admission webhooks aren't looked at.
    if fault and not _bundle_fault(_client_of(old)):
        causes.append(invalid_value("spec.conversion.webhookClientConfig.caBundle", client["caBundle"], fault))
    reviews = webhook.get("conversionReviewVersions")
    where = "spec.conversion.conversionReviewVersions"
    if not isinstance(reviews, list) or not reviews:
        causes.append(required(where))
    elif not {"v1", "v1beta1"} & {one for one in reviews if isinstance(one, str)}:
        text = "must include at least one of v1, v1beta1"
        causes.append(invalid_value(where, reviews, text))
    return causes


def validate_client(client: Object, path: str) -> list[Cause]:
    """Return what is wrong with a webhook's clientConfig."""
    url, service = client.get("url"), client.get("service")
    causes: list[Cause] = []
    if bool(url) == bool(service):
        causes.append(required(path, "exactly one of url or service is required"))
    elif url:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        form = "; desired format: https://host[/path]"
        if parts.scheme != "https":
            causes.append(invalid_value(f"{path}.url", parts.scheme, f"'https' is the only allowed URL scheme{form}"))
        if not parts.netloc:
            causes.append(invalid_value(f"{path}.url", parts.netloc, f"host must be specified{form}"))
        for part, name in ((parts.query, "query parameters"), (parts.fragment, "fragments")):
            if part:
                causes.append(invalid_value(f"{path}.url", part, f"{name} are not permitted in the URL"))
        if "@" in parts.netloc:
            causes.append(invalid_value(f"{path}.url", parts.username, "user information is not permitted in the URL"))
    elif isinstance(service, dict):
        causes += [
            required(f"{path}.service.{name}", f"service {name} is required")
            for name in ("name", "namespace")
            if not service.get(name)
        ]
        port, target = service.get("port", 443), service.get("path")
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
            text = "port is not valid: must be between 1 and 65535, inclusive"
            causes.append(invalid_value(f"{path}.service.port", port, text))
        if target is not None and not str(target).startswith("/"):
            causes.append(invalid_value(f"{path}.service.path", target, "must start with a '/'"))
    else:
        causes.append(invalid_value(f"{path}.service", service, "must be an object"))
    return causes


def _bundle_fault(client: Any) -> str:
    """Return what is wrong with a clientConfig's caBundle, '' for nothing."""
    bundle = client.get("caBundle") if isinstance(client, dict) else None
    try:
        if bundle:
            ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
    except (ValueError, TypeError, ssl.SSLError):
        return "unable to load root certificates: unable to parse bytes as PEM block"
    return ""


def _validate_versions(versions: Any, old: Object | None) -> list[Cause]:
    if not isinstance(versions, list) or not versions:
        text = "must have exactly one version marked as storage version"
        return [invalid_value("spec.versions", versions if isinstance(versions, list) else [], text)]
    causes: list[Cause] = []
    stored = 0
    names = []
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        if not isinstance(version, dict) or not isinstance(version.get("name"), str):
            causes.append(required(f"{path}.name"))
            continue
        names.append(version["name"])
        if not LABEL_1035.match(version["name"]) or len(version["name"]) > 63:
            causes.append(invalid_value(f"{path}.name", version["name"], LABEL_1035_MESSAGE))
        stored += version.get("storage") is True
        for name in ("served", "storage"):
            if not isinstance(version.get(name), bool):
                causes.append(required(f"{path}.{name}"))
        causes += [
            cause
            for name, check in _PARTS.items()
            if index == 0 or not _uniform(versions, name)
            for cause in check(version, "spec" if _uniform(versions, name) else path, old)
        ]
        warning = version.get("deprecationWarning")
        if warning is not None:
            where = f"{path}.deprecationWarning"
            if not version.get("deprecated"):
                causes.append(invalid_value(where, warning, "can only be set for deprecated versions"))
            elif not isinstance(warning, str) or not warning:
                causes.append(invalid_value(where, warning, "must not be empty"))
            elif len(warning) > 256:
                causes.append(too_long(where, 256))
            elif not warning.isprintable():
                causes.append(invalid_value(where, warning, "must only contain printable UTF-8 characters"))
    if len(set(names)) != len(names):
        causes.append(invalid_value("spec.versions", names, "must contain unique version names"))
    if stored != 1 and not causes:
        text = "must have exactly one version marked as storage version"
        causes.append(invalid_value("spec.versions", names, text))
    return causes


def _uniform(versions: list[Any], name: str) -> bool:
    """Whether all versions say the same of something: Kubernetes then names it as the definition's own."""
    values = [one.get(name) if isinstance(one, dict) else None for one in versions]
    return bool(values[0]) and all(one == values[0] for one in values)


def _validate_schema(version: Object, path: str, old: Object | None) -> list[Cause]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    where = "spec.validation.openAPIV3Schema" if path == "spec" else f"{path}.schema.openAPIV3Schema"
    if not isinstance(schema, dict):
        return [required(where)]
    before: Object | None = next(
        (
            (one.get("schema") or {}).get("openAPIV3Schema")
            for one in (old["spec"]["versions"] if old is not None else ())
            if one.get("name") == version["name"]
        ),
        None,
    )
    if before == schema:
        return []
    causes = structural.check(schema, where)
    return causes or rules.check(schema, where, before)


_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")


def _validate_columns(version: Object, path: str, old: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    for number, column in enumerate(version.get("additionalPrinterColumns") or ()):
        where = f"{path}.additionalPrinterColumns[{number}]"
        if not isinstance(column, dict):
            causes.append(invalid_value(where, column, "must be an object"))
            continue
        kind, form, path_in = column.get("type"), column.get("format"), column.get("jsonPath")
        if not column.get("name"):
            causes.append(required(f"{where}.name"))
        if not kind:
            causes.append(required(f"{where}.type", f"must be one of {','.join(_COLUMN_TYPES)}"))
        elif kind not in _COLUMN_TYPES:
            text = f"must be one of {','.join(_COLUMN_TYPES)}"
            causes.append(invalid_value(f"{where}.type", kind, text))
        if form and form not in _COLUMN_FORMATS:
            text = f"must be one of {','.join(_COLUMN_FORMATS)}"
            causes.append(invalid_value(f"{where}.format", form, text))
        if not path_in:
            causes.append(required(f"{where}.JSONPath"))
        elif not isinstance(path_in, str) or not path_in.startswith("."):
            text = "must be a simple json path starting with ."
            causes.append(invalid_value(f"{where}.JSONPath", path_in, text))
    return causes


def _validate_scale(version: Object, path: str, old: Object | None) -> list[Cause]:
    scale = (version.get("subresources") or {}).get("scale")
    if not isinstance(scale, dict):
        return []
    causes: list[Cause] = []
    for name, under in (
        ("specReplicasPath", (".spec",)),
        ("statusReplicasPath", (".status",)),
        ("labelSelectorPath", (".status", ".spec")),
    ):
        where, value = f"{path}.subresources.scale.{name}", scale.get(name)
        if not value:
            if name != "labelSelectorPath":
                causes.append(required(where))
        elif not isinstance(value, str) or not value.startswith(tuple(f"{one}." for one in under)):
            text = f"should be a json path under {' or '.join(under)}"
            causes.append(invalid_value(where, value, text))
    return causes


def _validate_selectable(version: Object, path: str, old: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    fields = version.get("selectableFields")
    seen: set[str] = set()
    if isinstance(fields, list) and len(fields) > MAX_SELECTABLE:
        text = f"Too many: {len(fields)}: must have at most {MAX_SELECTABLE} items"
        causes.append(Cause("FieldValueTooMany", text, f"{path}.selectableFields"))
    for number, one in enumerate(fields if isinstance(fields, list) else ()):
        where = f"{path}.selectableFields[{number}].jsonPath"
        field = one.get("jsonPath") if isinstance(one, dict) else None
        if not isinstance(field, str) or not field:
            causes.append(required(where))
            continue
        if field in seen:
            causes.append(duplicate(where, field))
        seen.add(field)
        if not re.fullmatch(r"(\.[A-Za-z_][A-Za-z0-9_-]*)+", field):
            causes.append(invalid_value(where, field, "is an invalid path: must be a simple JSON path"))
            continue
        parts = field[1:].split(".")
        if parts[0] in ("metadata", "apiVersion", "kind"):
            causes.append(invalid_value(where, field, "must not point to fields in metadata"))
            continue
        schema: Any = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        for part in parts:
            properties = schema.get("properties") if isinstance(schema, dict) else None
            schema = properties.get(part) if isinstance(properties, dict) else None
        if not isinstance(schema, dict):
            causes.append(invalid_value(where, field, "is an invalid path: does not refer to a valid field"))
        elif schema.get("type") not in ("string", "boolean", "integer"):
            text = (
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats "
                "are allowed."
            )
            causes.append(invalid_value(where, field, text))
    return causes


_PARTS: dict[str, Callable[[Object, str, Object | None], list[Cause]]] = {
    "schema": _validate_schema,
    "subresources": _validate_scale,
    "additionalPrinterColumns": _validate_columns,
    "selectableFields": _validate_selectable,
}
