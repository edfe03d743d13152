# SPDX-License-Identifier: GPL-3.0-or-later
"""Values and types of custom resources, as expressions see them.

Source: the Kubernetes documentation "Validation rules", the table of OpenAPI types and CEL types, and its section on
escaping of property names.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Schema = Mapping[str, Any]
_RESERVED = (
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "void",
    "while",
    "var",
)
_IDENTIFIER = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def escape(name: str) -> str | None:
    """Return the identifier under which expressions reach a property, None for one they can't reach."""
    if name in _RESERVED:
        return f"__{name}__"
    if "__" in name:
        name = name.replace("__", "__underscores__")
    escaped = name.replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")
    return escaped if _IDENTIFIER.match(escaped) else None


def of(value: Any, schema: Schema, root: bool = False) -> Any:
    """Return a value in the types that its schema gives it.

    :param root: whether it is a whole object, of which rules see apiVersion, kind and two fields of metadata.
    """
    if schema.get("x-kubernetes-int-or-string") or value is None:
        return value
    if isinstance(value, dict):
        return _mapping(value, schema, root or bool(schema.get("x-kubernetes-embedded-resource")))
    if isinstance(value, list):
        items = schema.get("items")
        return [of(item, items) for item in value] if isinstance(items, Mapping) else value
    kind = schema.get("type")
    if kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == "string" and isinstance(value, str):
        return _text(value, schema.get("format", ""))
    return value


def _mapping(value: Mapping[str, Any], schema: Schema, whole: bool) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    fields = {}
    for name, item in value.items():
        inner = properties.get(name)
        if inner is not None:
            escaped = escape(name)
            if escaped is not None:
                fields[escaped] = of(item, inner)
        elif isinstance(additional, Mapping):
            fields[name] = of(item, additional)
        elif schema.get("x-kubernetes-preserve-unknown-fields") or additional is True:
            fields[name] = item
    if whole:
        fields.update({name: value[name] for name in ("apiVersion", "kind") if name in value})
        metadata = value.get("metadata")
        if isinstance(metadata, dict):
            fields["metadata"] = {name: metadata[name] for name in ("name", "generateName") if name in metadata}
    return fields


def _text(text: str, form: str) -> Any:
    if form in ("date-time", "date"):
        return timestamp(text)
    if form == "duration":
        return duration(text)
    if form == "byte":
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:
            return text
    return text


def timestamp(text: str) -> Any:
    """Return a date and time as protobuf's Timestamp, the text itself when it is none."""
    from google.protobuf.timestamp_pb2 import Timestamp

    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    result = Timestamp()
    result.FromDatetime(when if when.tzinfo else when.replace(tzinfo=UTC))
    return result


def duration(text: str) -> Any:
    """Return a duration such as 1h30m as protobuf's Duration, the text itself when it is none."""
    from google.protobuf.duration_pb2 import Duration

    body = text.lstrip("+-")
    parts = _DURATION.findall(body)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != body:
        return text
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    result = Duration()
    result.FromNanoseconds(round(seconds * 1e9) * (-1 if text.startswith("-") else 1))
    return result


class Types:
    """Message types made of schemas, in a pool of descriptors for a compiler."""

    PACKAGE = "apiextensions"

    def __init__(self) -> None:
        from google.protobuf import descriptor_pb2, duration_pb2, struct_pb2, timestamp_pb2

        self._field = descriptor_pb2.FieldDescriptorProto
        # The old syntax lets field names differ in their capitals only, as properties may.
        self._file = descriptor_pb2.FileDescriptorProto(name="types.proto", package=self.PACKAGE, syntax="proto2")
        self._known = (struct_pb2, timestamp_pb2, duration_pb2)
        self._file.dependency.extend(module.DESCRIPTOR.name for module in self._known)
        self._count = 0

    def pool(self) -> Any:
        """Return a pool with all types declared so far; nothing can be declared after this."""
        from google.protobuf import descriptor_pool

        pool = descriptor_pool.DescriptorPool()
        for module in self._known:
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        pool.AddSerializedFile(self._file.SerializeToString())
        return pool

    def declare(self, schema: Schema, root: bool = False) -> str:
        """Return the name of a schema's type, as :func:`engine.type_named` takes it."""
        if schema.get("type") == "array":
            items = schema.get("items") or {}
            if items.get("type") == "array" or "additionalProperties" in items:
                return "list(dyn)"
            inner = self.declare(items)
            return f"list({inner})"
        if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), Mapping):
            return "dyn"
        return self._name(schema, root)

    def _name(self, schema: Schema, root: bool) -> str:
        scalar = _SCALAR.get((schema.get("type", ""), schema.get("format", ""))) or _SCALAR.get(
            (schema.get("type", ""), "")
        )
        if schema.get("x-kubernetes-int-or-string"):
            return "dyn"
        if scalar:
            return scalar
        embedded = root or schema.get("x-kubernetes-embedded-resource")
        if schema.get("type") != "object" or (
            schema.get("x-kubernetes-preserve-unknown-fields") and not schema.get("properties")
        ):
            return "dyn"
        if not schema.get("properties") and not embedded:
            return "dyn"
        return self._message(schema, bool(embedded))

    def _message(self, schema: Schema, embedded: bool) -> str:
        self._count += 1
        name = f"Type{self._count}"
        message = self._file.message_type.add(name=name)
        properties = dict(schema.get("properties") or {})
        if embedded:
            text: Schema = {"type": "string"}
            meta = {"type": "object", "properties": {"name": text, "generateName": text}}
            properties.update({"apiVersion": text, "kind": text, "metadata": meta})
        for property_name, inner in properties.items():
            escaped = escape(property_name)
            if escaped is not None and isinstance(inner, Mapping):
                self._add(message, escaped, inner)
        return f"{self.PACKAGE}.{name}"

    def _add(self, message: Any, name: str, schema: Schema) -> None:
        repeated = False
        kind = "dyn"
        additional = schema.get("additionalProperties")
        if schema.get("type") == "object" and isinstance(additional, Mapping):
            kind = self._map(message, name, additional)
            repeated = kind != "dyn"
        else:
            kind = self.declare(schema)
            if kind.startswith("list("):
                kind, repeated = kind[5:-1], True
        number = len(message.field) + 1
        label = self._field.LABEL_REPEATED if repeated else self._field.LABEL_OPTIONAL
        field = message.field.add(name=name, number=number, label=label, json_name=f"f{number}")
        if kind in _WIRE:
            field.type = _WIRE[kind]
        else:
            field.type = self._field.TYPE_MESSAGE
            field.type_name = f".{_MESSAGES.get(kind, kind)}"

    def _map(self, message: Any, field: str, additional: Schema) -> str:
        # Protobuf wants an entry named after its field, and nothing else.
        name = "".join(part[:1].upper() + part[1:] for part in field.split("_")) + "Entry"
        if any(one.name == name for one in message.nested_type):
            return "dyn"
        inner = self.declare(additional)
        if inner.startswith("list("):
            inner = "dyn"
        entry = message.nested_type.add(name=name)
        entry.options.map_entry = True
        optional = self._field.LABEL_OPTIONAL
        entry.field.add(name="key", number=1, type=self._field.TYPE_STRING, label=optional)
        value = entry.field.add(name="value", number=2, label=optional)
        if inner in _WIRE:
            value.type = _WIRE[inner]
        else:
            value.type = self._field.TYPE_MESSAGE
            value.type_name = f".{_MESSAGES.get(inner, inner)}"
        return f"{self.PACKAGE}.{message.name}.{name}"


#: OpenAPI type and format -> CEL type.
_SCALAR = {
    ("boolean", ""): "bool",
    ("integer", ""): "int",
    ("number", ""): "double",
    ("string", ""): "string",
    ("string", "byte"): "bytes",
    ("string", "date-time"): "google.protobuf.Timestamp",
    ("string", "date"): "google.protobuf.Timestamp",
    ("string", "duration"): "google.protobuf.Duration",
}
#: CEL type -> number of protobuf's field type.
_WIRE = {"double": 1, "int": 3, "bool": 8, "string": 9, "bytes": 12}
_MESSAGES = {"dyn": "google.protobuf.Value"}
