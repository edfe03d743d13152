# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server knows of the types of an object's fields: by it bodies are decoded, merged, applied and explained.

Types of built-in kinds come from Kubernetes' OpenAPI document (``scripts/builtin-schemas.py`` packs it), those of
custom resources from their structural schemas. They are made when they are first needed, and a definition at a time.
"""

import functools
import hashlib
import zlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import msgspec

from turtles.standalone.apiserver.schema.kinds import Kind

#: The Kubernetes whose schemas these are, and which the server therefore says to be.
KUBERNETES = "1.37"
Schema = Mapping[str, Any]
_NONE: Mapping[str, Any] = {}
_PREFIX = "#/definitions/"
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
#: Packages of Go types, by the start of an OpenAPI definition's name; the group or version follows.
_GROUPS = {
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
    "meta.k8s.io": "io.k8s.apimachinery.pkg.apis.meta",
}
#: Definitions whose JSON isn't what their OpenAPI type says.
_SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "any",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "any",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": "any",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray": "any",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool": "any",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray": "any",
}
#: Defaults of the keys of lists, which OpenAPI v2 doesn't tell.
_KEY_DEFAULTS = {"protocol": "TCP"}


class Type:
    """The type of a value.

    ``kind`` is ``object``, ``list``, ``any`` (whatever comes), or a scalar: ``string``, ``bytes`` (base64),
    ``integer``, ``number``, ``boolean``, ``quantity``, ``int-or-string``, ``time``.
    """

    __slots__ = (
        "_make",
        "atomic",
        "default",
        "element",
        "format",
        "go",
        "keys",
        "kind",
        "list_type",
        "patch_key",
        "patch_merge",
        "preserve",
        "zero",
    )

    def __init__(self, kind: str, go: str = "", format: str = "") -> None:
        self.kind, self.go, self.format = kind, go, format
        #: Type of a list's items, or of an object's fields without a name.
        self.element: Type | None = None
        #: How server-side apply sees a list: ``atomic``, ``set``, or ``map`` by ``keys``.
        self.list_type = "atomic"
        self.keys: tuple[str, ...] = ()
        #: Whether server-side apply takes an object as one value.
        self.atomic = False
        #: What a strategic merge patch does with a list: merges it (by ``patch_key``) or replaces it.
        self.patch_merge, self.patch_key = False, ""
        self.default: Any = None
        #: Whether an object keeps fields that it doesn't name.
        self.preserve = False
        #: What becomes of a field's zero value: ``always`` stored, even where the field is missing (a Go value
        #: without omitempty); ``omitempty``, dropped; ``pointer`` or empty, as it came.
        self.zero = ""
        self._make: Callable[[], Fields] | None = None

    @property
    def fields(self) -> Mapping[str, "Type"]:
        """An object's fields."""
        return _NONE if self._make is None else self._make().fields

    @property
    def always(self) -> tuple[tuple[str, Any], ...]:
        """Fields that are stored even if they are missing, and what then."""
        return () if self._make is None else self._make().always

    def field(self, name: str) -> "Type":
        """Return the type of an object's field."""
        field_type = self.fields.get(name)
        if field_type is not None:
            return field_type
        return self.element if self.element is not None else ANY

    def of(self, value: Any) -> "Type":
        """Return the type, or for ``any`` what the value itself tells."""
        if self.kind != "any":
            return self
        if isinstance(value, dict):
            return _FREE
        return _ATOMIC if isinstance(value, list) else self

    def copy(self) -> "Type":
        """Return a copy, for a field that differs from its type's others."""
        other = Type(self.kind, self.go, self.format)
        for name in Type.__slots__:
            setattr(other, name, getattr(self, name))
        return other


class Fields:
    """The fields of an object."""

    __slots__ = ("_always", "fields")

    def __init__(self, fields: Mapping[str, Type]) -> None:
        self.fields = fields
        self._always: tuple[tuple[str, Any], ...] | None = None

    @property
    def always(self) -> tuple[tuple[str, Any], ...]:
        """Fields that are stored even if they are missing, and what then."""
        if self._always is None:
            zeros = ((name, zero_value(one)) for name, one in self.fields.items() if one.zero == "always")
            self._always = tuple((name, zero) for name, zero in zeros if name not in ("metadata", "creationTimestamp"))
        return self._always


def zero_value(of: Type) -> Any:
    """Return what Go's encoder makes of the zero value of a type that is no pointer."""
    if of.kind == "object":
        # Maps are written as null.
        return dict(of.always) if of.element is None else None
    return {
        "string": "",
        "integer": 0,
        "number": 0,
        "boolean": False,
        "quantity": "0",
        "int-or-string": 0,
    }.get(of.kind)


ANY = Type("any", "interface {}")
ANY.preserve = True
_FREE = Type("object", "map[string]interface {}")
_FREE.element, _FREE.preserve = ANY, True
_ATOMIC = Type("list", "[]interface {}")
_ATOMIC.element = ANY


# -- built-in kinds


@functools.cache
def _packed() -> bytes:
    return resources.files("turtles.standalone.apiserver.schema").joinpath("builtin.json.z").read_bytes()


def documents() -> dict[str, Any]:
    """Return all definitions of built-in kinds, for an OpenAPI document; some 10 MB, not to be kept.

    Properties have ``x-go`` beside what OpenAPI knows: see Type.zero.
    """
    definitions: dict[str, Any] = msgspec.json.decode(zlib.decompress(_packed()))
    return definitions


def fingerprint() -> str:
    """Return what changes when the definitions do."""
    return hashlib.sha256(_packed()).hexdigest()


@functools.cache
def _definitions() -> dict[str, msgspec.Raw]:
    # Raw slices keep the whole text alive; copies of what is used and no text would need an own file of it.
    return msgspec.json.decode(zlib.decompress(_packed()), type=dict[str, msgspec.Raw])


@functools.cache
def documentation(name: str, field: str) -> str:
    """Return the documentation of a definition's field.

    :param name: of the definition, without what it has in common with others of its kind: ``core.v1.Pod``.
    """
    group, _, rest = name.partition(".")
    package = _GROUPS.get(f"{group}.k8s.io", f"io.k8s.api.{group}")
    schema = msgspec.json.decode(_definitions()[f"{package}.{rest}"])
    return str(schema["properties"][field].get("description", ""))


def definition_name(kind: Kind) -> str:
    """Return the name of a kind's OpenAPI definition."""
    return builtin_name(kind.group, kind.version, kind.kind) if not kind.custom else custom_name(kind)


def builtin_name(group: str, version: str, kind: str) -> str:
    """Return the name of the definition of a built-in type."""
    package = _GROUPS.get(group, f"io.k8s.api.{group.partition('.')[0] or 'core'}")
    return f"{package}.{version}.{kind}"


def custom_name(kind: Kind) -> str:
    """Return the name of the definition of a custom resource."""
    return f"{'.'.join(reversed(kind.group.split('.')))}.{kind.version}.{kind.kind}"


def _go_name(name: str) -> str:
    *_, version, kind = name.split(".")
    return f"{version}.{kind}"


@functools.cache
def definition(name: str) -> Type | None:
    """Return the type of a definition, None when there is no such one."""
    if name in _SCALARS:
        kind = _SCALARS[name]
        return ANY if kind == "any" else Type(kind, _go_name(name))
    raw = _definitions().get(name)
    if raw is None:
        return None
    schema = msgspec.json.decode(raw)
    result = _builtin(schema)
    result.go = _go_name(name)
    if "properties" not in schema and result.kind == "object":
        result.preserve = result.element is None
    return result


_GO = {"string": "string", "boolean": "bool", "number": "float64"}


def _builtin(schema: Schema) -> Type:
    reference = schema.get("$ref")
    if isinstance(reference, str):
        referenced = definition(reference.removeprefix(_PREFIX))
        result = referenced.copy() if referenced is not None else ANY.copy()
        if "x-kubernetes-map-type" in schema:
            result.atomic = schema["x-kubernetes-map-type"] == "atomic"
    else:
        kind, text = str(schema.get("type", "any")), str(schema.get("format", ""))
        if kind == "string" and text in ("byte", "int-or-string"):
            kind = "bytes" if text == "byte" else text
        kind = {"array": "list"}.get(kind, kind)
        go = {"integer": text or "int32", "bytes": "[]uint8"}.get(kind) or _GO.get(kind, "")
        result = Type(kind, go, text)
        if kind == "list":
            result.element = _builtin(schema["items"])
            result.go = f"[]{result.element.go}"
            _list(result, schema)
        elif kind == "object":
            result.atomic = schema.get("x-kubernetes-map-type") == "atomic"
            if isinstance(schema.get("additionalProperties"), Mapping):
                result.element = _builtin(schema["additionalProperties"])
                result.go = f"map[string]{result.element.go}"
            elif "properties" in schema:
                properties = schema["properties"]
                result._make = functools.cache(
                    lambda: Fields({name: _property(name, one) for name, one in properties.items()})
                )
    return result


def _property(name: str, schema: Schema) -> Type:
    result = _builtin(schema)
    if name == "uid" and schema.get("type") == "string":
        result.go = "types.UID"
    result.zero = schema.get("x-go", "")
    return result


def _list(result: Type, schema: Schema) -> None:
    strategies = str(schema.get("x-kubernetes-patch-strategy", "")).split(",")
    result.patch_merge, result.patch_key = "merge" in strategies, schema.get("x-kubernetes-patch-merge-key", "")
    kind = schema.get("x-kubernetes-list-type")
    if kind in ("map", "set"):
        result.list_type, result.keys = kind, tuple(schema.get("x-kubernetes-list-map-keys", ()))
    elif kind is None and result.patch_merge:
        # As structured-merge-diff takes lists that were only ever made for strategic merge patches.
        result.list_type, result.keys = ("map", (result.patch_key,)) if result.patch_key else ("set", ())


# -- custom resources


def structural(schema: Schema) -> Type:
    """Return the type that a structural schema describes."""
    kind = schema.get("type", "")
    if schema.get("x-kubernetes-int-or-string"):
        return Type("int-or-string", "intstr.IntOrString")
    if kind == "array":
        result = Type("list")
        items = schema.get("items")
        result.element = structural(items) if isinstance(items, Mapping) else ANY
        result.list_type = str(schema.get("x-kubernetes-list-type", "atomic"))
        result.keys = tuple(schema.get("x-kubernetes-list-map-keys", ()))
    elif kind == "object" or "properties" in schema:
        result = Type("object")
        result.atomic = schema.get("x-kubernetes-map-type") == "atomic"
        additional = schema.get("additionalProperties")
        result.preserve = bool(schema.get("x-kubernetes-preserve-unknown-fields")) or additional is True
        if isinstance(additional, Mapping):
            result.element = structural(additional)
        elif result.preserve:
            result.element = ANY
        properties = schema.get("properties", _NONE)
        embedded = bool(schema.get("x-kubernetes-embedded-resource"))
        result._make = functools.cache(lambda: _structural_fields(properties, embedded))
    else:
        result = Type(kind) if kind else ANY.copy()
    result.default = schema.get("default")
    return result


def _structural_fields(properties: Schema, embedded: bool) -> Fields:
    fields = {name: structural(one) for name, one in properties.items()}
    return Fields(_with_envelope(fields) if embedded else fields)


def _with_envelope(fields: dict[str, Type]) -> dict[str, Type]:
    return {**fields, "apiVersion": Type("string"), "kind": Type("string"), "metadata": definition(META) or ANY}


_roots: dict[int, tuple[Kind, Type]] = {}


def of_kind(kind: Kind) -> Type:
    """Return the type of a kind's objects."""
    if not kind.custom:
        return definition(definition_name(kind)) or _FREE
    cached = _roots.get(id(kind))
    if cached is None or cached[0] is not kind:
        schema = kind.schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        root = structural({**schema, "type": "object"})
        properties = schema.get("properties", _NONE)
        root._make = functools.cache(
            lambda: Fields(_with_envelope({name: structural(one) for name, one in properties.items()}))
        )
        if len(_roots) > 1000:
            _roots.clear()
        cached = _roots[id(kind)] = (kind, root)
    return cached[1]


def key_value(item: Mapping[str, Any], key: str, of: Type | None) -> Any:
    """Return a list item's key, or the default that it has; None without either."""
    value = item.get(key)
    if value is None and of is not None:
        inner = of.fields.get(key)
        value = inner.default if inner is not None else None
        if value is None and of.go.startswith("v1."):
            value = _KEY_DEFAULTS.get(key)
    return value
