# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values as users write them: their types in users' words, and in Python's own types. Pure functions."""

from __future__ import annotations

import datetime
import json
import re

_LONGEST = 60
_DIGITS = re.compile("[0-9]{1,18}")


def is_number(text):
    """Return whether a text is a number of decimal digits that a program can count with.

    str.isdigit also says so of "²", and of more digits than int() reads.
    """
    return _DIGITS.fullmatch(text) is not None


def from_json(text):
    """Return what a text of JSON says.

    :raises ValueError: it is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def plain(value):
    """Return a value in the types that JSON and YAML have, without the subclasses Ansible marks values with.

    Dates, which YAML makes of unquoted text such as 2026-01-31, become text again.
    """
    if isinstance(value, dict):
        return {plain(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, str):
        return "".join(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    for own in (bool, int, float):
        if isinstance(value, own):
            return own(value)
    return value


def type_name(value):
    """Return what users call the type of a value: text, mapping, list, number, boolean or null."""
    if value is None:
        return "null"
    for types, name in (
        (str, "text"),
        (dict, "mapping"),
        ((list, tuple), "list"),
        (bool, "boolean"),
        ((int, float), "number"),
        ((datetime.date, datetime.time), "date"),
        (bytes, "sequence of bytes"),
    ):
        if isinstance(value, types):
            return name
    return type(value).__name__


def described(value):
    """Return a value with its type, for "must be a mapping, but is …": "the number 2", "a list"."""
    name = type_name(value)
    if name in ("text", "number", "boolean", "date"):
        shown = repr(plain(value))
        if len(shown) > _LONGEST:
            shown = "%s…" % shown[:_LONGEST]
        return "the %s %s" % (name, str(value).lower() if name == "boolean" else shown)
    return name if name in ("null", "text") else "a %s" % name
