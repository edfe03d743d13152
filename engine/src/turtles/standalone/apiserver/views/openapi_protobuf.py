# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenAPI v2 in protobuf: what kubectl before 1.27 explains and validates by, and what it takes in no other form.

Message and field numbers: OpenAPIv2.proto of github.com/google/gnostic-models. Only what documents of the API server
have in them is encoded.
"""

import json
from collections.abc import Mapping
from typing import Any

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}
_PARAMETERS = {"header": 1, "query": 3, "path": 4}


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: Any) -> bytes:
    return _message(field, str(text).encode()) if text else b""


def _true(field: int, value: Any) -> bytes:
    return _varint(field << 3) + b"\x01" if value else b""


def _any(field: int, value: Any) -> bytes:
    # Any has YAML in it, of which JSON is a part.
    return _message(field, _text(2, json.dumps(value, separators=(",", ":"))))


def _extensions(field: int, obj: Mapping[str, Any]) -> bytes:
    extensions = (_text(1, name) + _any(2, obj[name]) for name in obj if name.startswith("x-"))
    return b"".join(_message(field, content) for content in extensions)


def _schema(schema: Mapping[str, Any]) -> bytes:
    parts = [
        _text(1, schema.get("$ref")),
        _text(2, schema.get("format")),
        _text(3, schema.get("title")),
        _text(4, schema.get("description")),
    ]
    if "default" in schema:
        parts.append(_any(5, schema["default"]))
    parts.append(_text(13, schema.get("pattern")))
    parts.append(_true(16, schema.get("uniqueItems")))
    parts += [_text(19, name) for name in schema.get("required", ())]
    parts += [_any(20, value) for value in schema.get("enum", ())]
    additional = schema.get("additionalProperties")
    if isinstance(additional, Mapping):
        parts.append(_message(21, _message(1, _schema(additional))))
    if "type" in schema:
        parts.append(_message(22, _text(1, schema["type"])))
    if isinstance(schema.get("items"), Mapping):
        parts.append(_message(23, _message(1, _schema(schema["items"]))))
    if schema.get("properties"):
        parts.append(_message(25, _named(1, schema["properties"])))
    parts.append(_extensions(31, schema))
    return b"".join(parts)


def _named(field: int, schemas: Mapping[str, Any]) -> bytes:
    return b"".join(_message(field, _text(1, name) + _message(2, _schema(one))) for name, one in schemas.items())


def _parameter(parameter: Mapping[str, Any]) -> bytes:
    where = parameter["in"]
    if where == "body":
        body = _text(2, parameter["name"]) + _text(3, "body") + _message(5, _message(1, _schema(parameter["schema"])))
        return _message(1, _message(1, body + _true(4, parameter.get("required"))))
    head = _true(1, parameter.get("required")) if where == "path" else b""
    inner = head + _text(2, where) + _text(3, parameter.get("description")) + _text(4, parameter["name"])
    # Those of a path have no allow_empty_value before their type.
    inner += _text(6 if where != "path" else 5, parameter["type"])
    return _message(1, _message(2, _message(_PARAMETERS[where], inner)))


def _operation(operation: Mapping[str, Any]) -> bytes:
    parts = [_text(3, operation.get("description")), _text(5, operation.get("operationId"))]
    parts += [_text(7, one) for one in operation.get("consumes", ())]
    parts += [_message(8, _parameter(one)) for one in operation.get("parameters", ())]
    parts.append(_extensions(13, operation))
    return b"".join(parts)


def _path(item: Mapping[str, Any]) -> bytes:
    parts = [_message(number, _operation(item[name])) for name, number in _METHODS.items() if name in item]
    parts += [_message(9, _parameter(one)) for one in item.get("parameters", ())]
    return b"".join(parts)


def encode(document: Mapping[str, Any]) -> bytes:
    """Return an OpenAPI v2 document in protobuf."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    paths = b"".join(_message(2, _text(1, name) + _message(2, _path(item))) for name, item in document["paths"].items())
    definitions = _named(1, document["definitions"])
    return _text(1, document["swagger"]) + _message(2, info) + _message(8, paths) + _message(9, definitions)
