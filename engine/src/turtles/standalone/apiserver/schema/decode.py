# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects of built-in kinds as Go's decoder and encoder would leave them.

Fields that the type doesn't know are dropped and named, values of a wrong type refused, zero values dropped or kept
as the Go type's tags say, quantities and times written in their canonical form. Messages are those of
sigs.k8s.io/json, which kube-apiserver decodes with.
"""

import base64
import binascii
import itertools
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.schema.types import ANY, META, Type, definition, of_kind, zero_value
from turtles.standalone.apiserver.wire import quantities
from turtles.standalone.apiserver.wire.encoding import plain_numbers
from turtles.standalone.apiserver.wire.errors import Object, Undecodable, bad_request

_RANGES = {"int32": 2**31, "int64": 2**63}
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
_MICRO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")
_encode = msgspec.json.Encoder().encode
#: Deepest that objects may be nested: no type goes deeper, and the interpreter's stack is finite.
MAX_DEPTH = 200


_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1"


class Mismatch(ValueError):
    """A value that a type can't hold."""


class _Decoding:
    """One object's decoding."""

    __slots__ = ("unknown",)

    def __init__(self) -> None:
        self.unknown: list[str] = []

    def object(self, value: Object, of: Type, path: str, names: str, struct: str = "", previous: Any = None) -> Object:
        """Return an object of a struct or map type.

        :param path: where it is, with indices, as unknown fields are named.
        :param names: the same without them and without keys of maps, as errors name fields.
        :param struct: the Go type that a map is a field of.
        :param previous: what was stored there before, which has no need to be decoded again.
        """
        fields, element = of.fields, of.element
        result: Object = {}
        is_map = element is not None
        if not is_map:
            struct = of.go.rpartition(".")[2]
        for name, item in value.items():
            inner = fields.get(name, element)
            if inner is None:
                if of.preserve:
                    result[name] = item
                else:
                    self.unknown.append(f"{path}{name}")
                continue
            if previous is not None and name in previous and type(item) in (dict, list):
                before = previous[name]
                if before == item and _encode(before) == _encode(item):
                    result[name] = item
                    continue
            if item is None:
                if element is not None:
                    result[name] = zero_value(element)
                continue
            kind = inner.kind
            if kind == "string" and type(item) is str:
                if item or inner.zero != "omitempty":
                    result[name] = item
                continue
            below = names if is_map else f"{names}.{name}" if names else name
            decoded = self.value(item, inner, f"{path}{name}", below, struct)
            if inner.zero == "omitempty" and not decoded and kind != "any":
                continue
            if not decoded and kind == "list":
                if inner.zero == "always":
                    result[name] = None
                if inner.zero != "pointer":
                    continue
            result[name] = decoded
        for name, zero in of.always:
            if name not in result:
                result[name] = dict(zero) if isinstance(zero, dict) else zero
        return result

    def value(self, value: Any, of: Type, path: str, names: str, struct: str) -> Any:
        """Return a value as its type writes it."""
        kind = of.kind
        if kind == "object":
            if isinstance(value, dict):
                return self.object(value, of, path + ".", names, struct)
        elif kind == "list":
            if isinstance(value, list) and of.element is not None:
                element = of.element
                if element.kind == "string":
                    if all(type(item) is str for item in value):
                        return value
                elif element.kind == "any":
                    return plain_numbers(value)
                return [
                    zero_value(element) if item is None else self.value(item, element, f"{path}[{at}]", names, struct)
                    for at, item in enumerate(value)
                ]
        elif kind == "any":
            return plain_numbers(value)
        else:
            try:
                return _SCALARS[kind](value, of)
            except Mismatch:
                pass
        raise Mismatch(_mismatch(value, of, names, struct))


def _string(value: Any, of: Type) -> Any:
    if type(value) is str:
        return value
    raise Mismatch


def _boolean(value: Any, of: Type) -> Any:
    if type(value) is bool:
        return value
    raise Mismatch


def _integer(value: Any, of: Type) -> Any:
    limit = _RANGES.get(of.format, 2**63)
    if type(value) is int and -limit <= value < limit:
        return value
    raise Mismatch


def _number(value: Any, of: Type) -> Any:
    if type(value) in (int, float):
        return plain_numbers(value)
    raise Mismatch


def _bytes(value: Any, of: Type) -> Any:
    if type(value) is not str:
        raise Mismatch
    try:
        raw = base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        raise _Wording(f"illegal base64 data at input byte {_first_bad(value)}") from None
    return base64.b64encode(raw).decode()


def _first_bad(text: str) -> int:
    match = re.search(r"[^A-Za-z0-9+/]", text)
    return match.start() if match and text[match.start() :].strip("=") else 4 * (len(text) // 4)


def _quantity(value: Any, of: Type) -> Any:
    if type(value) not in (str, int, float):
        raise _Wording(quantities.MESSAGE)
    try:
        return quantities.canonical(str(value).strip())
    except ValueError as error:
        raise _Wording(str(error)) from None


def _int_or_string(value: Any, of: Type) -> Any:
    if type(value) is str or (type(value) is int and -(2**31) <= value < 2**31):
        return value
    raise Mismatch


def _time(value: Any, of: Type) -> Any:
    micro = of.go == "v1.MicroTime"
    if type(value) is not str:
        raise _Wording(f"json: cannot unmarshal {_described(value, of)} into Go value of type string")
    if (_MICRO if micro else _TIME).match(value):
        return value
    try:
        when = datetime.fromisoformat(value)
        if when.tzinfo is None or "T" not in value:
            raise ValueError
        return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
        raise _Wording(f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"') from None


class _Wording(Exception):
    """A refusal in the words of a type of its own."""


_SCALARS: dict[str, Callable[[Any, Type], Any]] = {
    "string": _string,
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "bytes": _bytes,
    "quantity": _quantity,
    "int-or-string": _int_or_string,
    "time": _time,
}


def _described(value: Any, of: Type) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return f"number {json.dumps(value)}" if of.kind in ("integer", "int-or-string") else "number"
    return {str: "string", dict: "object", list: "array", type(None): "null"}.get(type(value), "value")


def _mismatch(value: Any, of: Type, names: str, struct: str) -> str:
    if of.kind == "int-or-string":
        # The one of its two types that anything but a text is taken for.
        return f"json: cannot unmarshal {_described(value, of)} into {_where(names, struct)} of type int32"
    return f"json: cannot unmarshal {_described(value, of)} into {_where(names, struct)} of type {of.go}"


def _where(names: str, struct: str) -> str:
    return f"Go struct field {struct}.{names}" if struct and names else "Go value"


def decode(obj: Object, kind: Kind, previous: Object | None = None) -> tuple[Object, list[str]]:
    """Return an object as it would be stored, and the paths of the fields that its kind doesn't have.

    Of a custom resource, only the metadata is looked at.

    :param previous: the object as it is stored, so that what is the same isn't decoded again.
    :raises StatusError: 400 for a value of a wrong type.
    """
    decoding = _Decoding()
    try:
        if kind.custom:
            # Its schema judges the rest.
            meta = decoding.value(obj["metadata"], _metadata(), "metadata", "", "")
            return {**obj, "metadata": meta}, decoding.unknown
        return decoding.object(obj, of_kind(kind), "", "", previous=previous), decoding.unknown
    except (Mismatch, _Wording) as error:
        raise undecodable(kind, str(error)) from None


def check_options(options: Any, kind: str) -> None:
    """Check the types of values in options of meta.k8s.io, such as DeleteOptions, that come as a body.

    :param kind: which options.
    :raises StatusError: 400 for a value of a wrong type.
    """
    of = definition(f"{_OPTIONS}.{kind}")
    if of is None or not isinstance(options, dict):
        return
    try:
        _Decoding().object(options, of, "", "")
    except (Mismatch, _Wording) as error:
        raise bad_request(str(error)) from None


def _metadata() -> Type:
    return definition(META) or ANY


def undecodable(kind: Kind, why: str) -> Undecodable:
    """Return 400 for a body that can't be taken for an object of its kind."""
    return Undecodable(kind.kind, kind.version, kind.kind, why)


def duplicates(raw: bytes, data: Any) -> tuple[list[str], dict[str, int]]:
    """Return the fields that a JSON body has more than once, and the places of all fields in the body's order.

    :param data: what the body was decoded to: where it says as much as the body does, there is nothing to look for,
        and no place is given.
    """
    if len(_encode(data)) == len(msgspec.json.format(raw, indent=-1)):
        return [], {}
    places: dict[str, int] = {}
    twice: list[str] = []
    numbers = itertools.count()

    def walk(value: Any, path: str) -> None:
        if isinstance(value, _Fields):
            seen: set[str] = set()
            for name, item in value:
                inner = f"{path}.{name}" if path else name
                place = next(numbers)
                if name in seen and inner not in twice:
                    twice.append(inner)
                    places[inner] = place
                seen.add(name)
                places.setdefault(inner, place)
                walk(item, inner)
        elif isinstance(value, list):
            for at, item in enumerate(value):
                walk(item, f"{path}[{at}]")

    walk(json.loads(raw, object_pairs_hook=_Fields), "")
    return (twice, places) if twice else ([], {})


class _Fields(tuple[tuple[str, Any], ...]):
    """An object's fields as they were written."""
