# SPDX-License-Identifier: GPL-3.0-or-later
"""What the functions of the library are made with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

#: A value of a type that Kubernetes adds, as a map with one key of its own.
Tagged = dict[str, Any]


class Function(NamedTuple):
    """An overload: types as CEL writes them, the receiver first for a member."""

    name: str
    member: bool
    parameters: tuple[str, ...]
    result: str
    call: Callable[..., Any]


def member(name: str, result: str, call: Callable[..., Any], *parameters: str) -> Function:
    """Return a function that is called on a receiver, its first parameter."""
    return Function(name, True, parameters, result, call)


def free(name: str, result: str, call: Callable[..., Any], *parameters: str) -> Function:
    """Return a function that has no receiver."""
    return Function(name, False, parameters, result, call)


def plain(value: Any) -> Any:
    """Return a value of the interpreter as Python has it."""
    return value.plain_value() if hasattr(value, "plain_value") else value


def items_of(values: Iterable[Any]) -> list[Any]:
    """Return the items of a list as Python has them."""
    return [plain(value) for value in values]


def tagged_value(value: Tagged, tag: str) -> Any:
    """Return what is in a tagged value.

    :raises ValueError: it has another tag.
    """
    if tag not in value:
        raise ValueError("no such overload")
    return plain(value[tag])


def can(make: Callable[[str], Any]) -> Callable[[str], bool]:
    """Return a function that tells whether `make` accepts a text."""

    def check(text: str) -> bool:
        try:
            make(text)
        except ValueError:
            return False
        return True

    return check
