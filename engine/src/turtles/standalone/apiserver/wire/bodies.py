# SPDX-License-Identifier: GPL-3.0-or-later
"""Bodies of requests: JSON, YAML or protobuf in, data out, with the API server's words for what can't be read.

The words are those of Go's encoding/json and of ``transformDecodeError`` in k8s.io/apiserver, because people search
for them and programs match them.
"""

import contextlib
import json
import re
from itertools import chain
from typing import Any, ClassVar

import msgspec
import yaml

from turtles.standalone.apiserver.wire import protobuf
from turtles.standalone.apiserver.wire.encoding import decode, plain_numbers
from turtles.standalone.apiserver.wire.errors import StatusError, bad_request, quote, unsupported_media_type

#: Largest body of a request, in bytes.
MAX_BODY = 3 * 1024 * 1024
#: How deep YAML's collections may be nested.
MAX_DEPTH = 1000
#: How many values YAML may have, collections and keys included: each takes some microseconds.
MAX_VALUES = 250_000
#: Media types in which objects are sent and answered.
MEDIA_TYPES = ["application/json", "application/yaml", protobuf.MEDIA_TYPE]
_YAML = ("application/yaml", "application/apply-patch+yaml")
_SHOWN = 30
_TYPE_META = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'


class Unreadable(Exception):
    """A body that is no JSON or YAML."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML as kube-apiserver's library does, which knows neither dates nor numbers to the base of 60.

    PyYAML takes ``52:54:00:12:34:56`` for one number, and ``1e3`` for a text. Source: resolve.go of go-yaml, v2.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes YAML that PyYAML and go-yaml read in the same way."""


for _tag, _pattern, _first in (
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", "<<", "<"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _expression = re.compile(rf"(?:{_pattern})\Z")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _expression, list(_first))
    # A text that any of the two libraries takes for something else is written in quotes.
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _expression, list(_first))


def json_type(value: Any) -> str:
    """Return what Go's encoding/json calls a value: string, number, bool, array or object."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object" if isinstance(value, dict) else "null"


def read(raw: bytes, media_type: str, kind: str) -> Any:
    """Return the data of a body that holds an object.

    :param kind: which kind it should be, for the message; '' where that doesn't say.
    :raises StatusError: 400 for what can't be read, 415 for a type the server doesn't speak.
    """
    if media_type == protobuf.MEDIA_TYPE:
        return protobuf.parse(raw)
    if media_type not in ("", "application/json", *_YAML):
        raise unknown_format(MEDIA_TYPES)
    try:
        data = parse_yaml(raw) if media_type in _YAML else parse_json(raw)
        check_type_meta(data)
    except Unreadable as error:
        text = f"the object provided is unrecognized (must be of type {kind}): {error} ({summary(raw)})"
        raise bad_request(text if kind else str(error)) from None
    return {} if data is None else data


def is_yaml(media_type: str) -> bool:
    """Whether a body of a type is YAML."""
    return media_type in _YAML


def unknown_format(accepted: list[str]) -> StatusError:
    """Return 415 for a media type of a body that isn't one of those accepted."""
    text = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return unsupported_media_type(text)


def check_type_meta(data: Any) -> None:
    """Check that data is an object, and that its kind and apiVersion can be such.

    :param data: what a body was decoded to; None counts as an empty object.
    :raises Unreadable: if not.
    """
    prefix = "couldn't get version/kind; json parse error: json: cannot unmarshal"
    if data is not None and not isinstance(data, dict):
        raise Unreadable(f"{prefix} {json_type(data)} into Go value of type {_TYPE_META}")
    meta: dict[str, Any] = data or {}
    for name in ("apiVersion", "kind"):
        value = meta.get(name)
        if value is not None and not isinstance(value, str):
            raise Unreadable(f"{prefix} {json_type(value)} into Go struct field .{name} of type string")
    version = meta.get("apiVersion") or ""
    if version.count("/") > 1:
        raise Unreadable(f"unexpected GroupVersion string: {version}")


def summary(raw: bytes) -> str:
    """Return the beginning of a body, as text where it looks like JSON, in hexadecimal where not."""
    if not raw:
        return "<empty>"
    text = raw.decode(errors="replace").lstrip()
    if text.startswith("{"):
        return f"{raw[:_SHOWN].decode(errors='replace')} ..." if len(raw) > _SHOWN else raw.decode(errors="replace")
    return f"{raw[:_SHOWN].hex()} ..." if len(raw) > _SHOWN else raw.hex()


def parse_json(raw: bytes) -> Any:
    """Return the data of JSON.

    :raises Unreadable: with Go's description of what is wrong.
    """
    try:
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"couldn't get version/kind; json parse error: {describe(raw, error)}") from None


_AFTER = {
    "Expecting ',' delimiter": "after object key:value pair",
    "Expecting ':' delimiter": "after object key",
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Illegal trailing comma before end of object": "looking for beginning of object key string",
    "Invalid control character at": "in string literal",
    "Extra data": "after top-level value",
}


def describe(raw: bytes, error: Exception) -> str:
    """Return what Go's encoding/json says of a text that is no JSON."""
    text = raw.decode(errors="replace")
    try:
        json.loads(text)
    except json.JSONDecodeError as found:
        return _syntax(text, found)
    except RecursionError:
        return "exceeded max depth"
    except ValueError as found:
        # The interpreter reads no numbers of thousands of digits; nor do Kubernetes' types hold them.
        return str(found).partition(";")[0]
    return str(error)


def _syntax(text: str, error: json.JSONDecodeError) -> str:
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return "unexpected end of JSON input"
    position = error.pos
    character = text[position]
    if error.msg == "Expecting value":
        for literal in ("null", "true", "false"):
            if character == literal[0]:
                at = next((n for n, one in enumerate(literal) if text[position + n : position + n + 1] != one), 0)
                wrong = text[position + at : position + at + 1]
                if not wrong:
                    return "unexpected end of JSON input"
                return f"invalid character {_rune(wrong)} in literal {literal} (expecting '{literal[at]}')"
    where = _AFTER.get(error.msg, "looking for beginning of value")
    if where == "after object key:value pair" and _in_array(text[:position]):
        where = "after array element"
    return f"invalid character {_rune(character)} {where}"


def _rune(character: str) -> str:
    return "'\\''" if character == "'" else "'" + quote(character)[1:-1].replace('\\"', '"') + "'"


def _in_array(text: str) -> bool:
    depth: list[str] = []
    for one in re.sub(r'"(?:[^"\\]|\\.)*"', "", text):
        if one in "[{":
            depth.append(one)
        elif one in "]}" and depth:
            depth.pop()
    return bool(depth) and depth[-1] == "["


def parse_yaml(raw: bytes) -> Any:
    """Return the data of YAML.

    :raises Unreadable: what is wrong.
    """
    if raw[:1] == b"{":
        # JSON is YAML too, and read a hundred times faster as what it is; most of what clients call YAML is JSON.
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return plain_numbers(decode(raw))
    try:
        _check_structure(raw)
        # The first document is what counts, as with Kubernetes' library. The loader is a safe one, in C where there is.
        data = next(iter(yaml.load_all(raw, Loader=_Loader)), None)
        # Aliases make a few lines into gigabytes, so what would come out is measured before it does.
        if _size(data, {}) > MAX_BODY:
            raise ValueError(f"with its aliases filled in it has more than {MAX_BODY} characters")
        # YAML knows dates, sets and keys that aren't text; JSON's types are what an object may have.
        return plain_numbers(json.loads(json.dumps(data, default=_plain, allow_nan=False)))
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise Unreadable(f"yaml: {line}{error.problem}") from None
    except (yaml.YAMLError, ValueError, TypeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"yaml: {error}") from None


def dump_yaml(data: Any) -> bytes:
    """Return data as YAML."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False)
    return text.encode()


def repeated_keys(raw: bytes) -> list[str]:
    """Return which keys are more than once in one map of YAML, in the words of go-yaml.

    :param raw: what :func:`parse_yaml` can read.
    """
    texts: list[str] = []
    seen: set[int] = set()

    def walk(node: yaml.Node) -> None:
        # What an alias stands for is the same node again.
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            return
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                walk(item)
            return
        keys: set[tuple[str, str]] = set()
        for key, value in node.value:
            walk(value)
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            if (key.tag, key.value) in keys:
                name = quote(key.value) if key.tag.endswith(":str") else key.value
                texts.append(f"line {value.start_mark.line + 1}: key {name} already set in map")
            keys.add((key.tag, key.value))

    # Of several documents, the first counts.
    node = next(iter(yaml.compose_all(raw, Loader=_Loader)), None)
    if node is not None:
        walk(node)
    return texts


def _check_structure(raw: bytes) -> None:
    """Check that YAML isn't nested so deep that composing it, one C call within the other, ends the process.

    Nor may it have so many values that it takes long.

    :raises ValueError: it is, or has.
    """
    depth = values = 0
    try:
        for event in yaml.parse(raw, Loader=_Loader):
            if isinstance(event, yaml.NodeEvent):
                values += 1
                if values > MAX_VALUES:
                    raise ValueError(f"it has more than {MAX_VALUES} values; send it as JSON")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise ValueError(f"exceeded max depth of {MAX_DEPTH}")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.DocumentEndEvent):
                return
    except yaml.MarkedYAMLError as error:
        # PyYAML from 6.0.4 on has a limit of its own, in words of its own
        if "nesting depth" not in str(error.problem):
            raise
        raise ValueError(f"exceeded max depth of {MAX_DEPTH}") from None


def _size(value: Any, known: dict[int, int]) -> int:
    """Return about how many characters a value has as JSON.

    :param known: of what was measured already, for an alias is the same object again.
    """
    if isinstance(value, str):
        return len(value) + 2
    if not isinstance(value, dict | list):
        return 4
    size = known.get(id(value))
    if size is None:
        # What holds itself has no size, and is refused when it is written as JSON.
        known[id(value)] = 0
        parts = chain(value, value.values()) if isinstance(value, dict) else value
        size = known[id(value)] = 2 + sum(_size(one, known) for one in parts)
    return size


def _plain(value: Any) -> str:
    if hasattr(value, "isoformat"):
        text: str = value.isoformat()
        return text.replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no place in an object")
