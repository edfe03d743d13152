# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions on strings: those of cel-go's extension "strings", and regular expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from turtles.standalone.apiserver.schema.cel.library.function import (
    Function,
    free,
    items_of,
    member,
    plain,
)

_MISSING = object()


def _char_at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise ValueError(f"index out of range: {index}")
    return text[index : index + 1]


def _index_of(text: str, part: str, start: int = 0) -> int:
    if not 0 <= start <= len(text):
        raise ValueError(f"index out of range: {start}")
    return text.find(part, start)


def _last_index_of(text: str, part: str, last: int | None = None) -> int:
    if last is None:
        return text.rfind(part)
    if not 0 <= last <= len(text):
        raise ValueError(f"index out of range: {last}")
    return text.rfind(part, 0, last + len(part))


def _substring(text: str, start: int, end: int | None = None) -> str:
    end = len(text) if end is None else end
    if not 0 <= start <= end <= len(text):
        raise ValueError(f"index out of range: {start}, {end}")
    return text[start:end]


def _replace(text: str, old: str, new: str, limit: int = -1) -> str:
    return text.replace(old, new, limit)


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not separator:
        parts = list(text)
        return parts if limit < 0 or len(parts) <= limit else [*parts[: limit - 1], "".join(parts[limit - 1 :])]
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _lower_ascii(text: str) -> str:
    return "".join(chr(ord(one) + 32) if "A" <= one <= "Z" else one for one in text)


def _upper_ascii(text: str) -> str:
    return "".join(chr(ord(one) - 32) if "a" <= one <= "z" else one for one in text)


def _join(values: Sequence[Any], separator: str = "") -> str:
    return separator.join(items_of(values))


def quote(text: str) -> str:
    """Return a text in double quotes, as CEL writes it."""
    escapes = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
    quoted = "".join(escapes.get(one, one) for one in text.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{quoted}"'


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return "[" + ", ".join(_shown(plain(one)) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_shown(key)}: {_shown(plain(value[key]))}" for key in sorted(value)) + "}"
    return str(value)


_CLAUSE = re.compile(r"%(?:\.(\d+))?([%sdfeboxX])")


def _format(template: str, arguments: Sequence[Any]) -> str:
    values: Iterator[Any] = iter(items_of(arguments))

    def fill(match: re.Match[str]) -> str:
        precision, clause = match.groups()
        if clause == "%":
            return "%"
        value: Any = next(values, _MISSING)
        if value is _MISSING:
            raise ValueError("index out of range: not enough arguments to format")
        if clause == "s":
            return _shown(value)
        if clause == "f":
            return f"{float(value):.{precision or 6}f}"
        if clause == "e":
            return f"{float(value):.{precision or 6}e}"
        if clause in "xX" and isinstance(value, str | bytes):
            data = value.encode() if isinstance(value, str) else value
            return data.hex() if clause == "x" else data.hex().upper()
        return format(int(value), clause)

    return _CLAUSE.sub(fill, template)


def _find(text: str, pattern: str) -> str:
    import re2

    match = re2.search(pattern, text)
    return str(match.group(0)) if match else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    import re2

    matches = [match.group(0) for match in re2.finditer(pattern, text)]
    return matches if limit < 0 else matches[:limit]


FUNCTIONS: tuple[Function, ...] = (
    member("charAt", "string", _char_at, "string", "int"),
    member("indexOf", "int", _index_of, "string", "string"),
    member("indexOf", "int", _index_of, "string", "string", "int"),
    member("lastIndexOf", "int", _last_index_of, "string", "string"),
    member("lastIndexOf", "int", _last_index_of, "string", "string", "int"),
    member("substring", "string", _substring, "string", "int"),
    member("substring", "string", _substring, "string", "int", "int"),
    member("replace", "string", _replace, "string", "string", "string"),
    member("replace", "string", _replace, "string", "string", "string", "int"),
    member("split", "list(string)", _split, "string", "string"),
    member("split", "list(string)", _split, "string", "string", "int"),
    member("join", "string", _join, "list(string)"),
    member("join", "string", _join, "list(string)", "string"),
    member("lowerAscii", "string", _lower_ascii, "string"),
    member("upperAscii", "string", _upper_ascii, "string"),
    member("trim", "string", lambda text: text.strip(), "string"),
    member("format", "string", _format, "string", "list(dyn)"),
    free("strings.quote", "string", quote, "string"),
    member("find", "string", _find, "string", "string"),
    member("findAll", "list(string)", _find_all, "string", "string"),
    member("findAll", "list(string)", _find_all, "string", "string", "int"),
)
