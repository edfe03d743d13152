# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of an object's fields, and what structured-merge-diff does with them.

A set is kept in the form in which managedFields store it (FieldsV1): steps ``f:name``, ``k:{"name":"a"}`` and
``v:"x"`` lead to sets below; an empty one is a field itself, and ``.`` says that a field with others below it is one
too. Sets are never changed once they are made. Source: sigs.k8s.io/structured-merge-diff, which decides all this for
kube-apiserver; KEP-555.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from turtles.api.texts import from_json
from turtles.standalone.apiserver.schema.types import ANY, Type, key_value

Set = Mapping[str, Any]
_SELF: dict[str, Any] = {}
_encode = msgspec.json.Encoder(order="deterministic").encode
_EMPTY: dict[str, Any] = {}


def is_member(node: Set) -> bool:
    """Say whether what a step leads to is itself in the set."""
    return not node or "." in node


def union(one: Set, other: Set) -> Set:
    """Return the fields of both."""
    if not one or not other:
        return one or other
    result = dict(one)
    for step, node in other.items():
        if step == ".":
            result["."] = _SELF
            continue
        other_node = result.get(step)
        result[step] = node if other_node is None else _both(other_node, node)
    return result


def union_of(sets: Sequence[Set]) -> Set:
    """Return the fields of all sets, of which there is one at least."""
    if len(sets) == 1:
        return sets[0]
    # One after another into one that grows would take the square of their number: it is copied each time.
    middle = len(sets) // 2
    return union(union_of(sets[:middle]), union_of(sets[middle:]))


def _both(one: Set, other: Set) -> Set:
    below = union({**one}, {**other})
    if not one or not other:
        return {".": _SELF, **below} if below else _SELF
    return below


_STEPS: dict[str, Callable[[str], bool]] = {
    "f:": lambda name: True,
    "k:": lambda keys: isinstance(_json(keys), dict),
    "v:": lambda value: _json(value) is not None,
    "i:": lambda index: re.fullmatch(r"[+-]?[0-9]{1,18}", index) is not None,
}


def _json(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return None


def is_set(fields: Any) -> bool:
    """Say whether something that a client sent is a set of fields, as far as steps are of kinds that are known."""
    if not isinstance(fields, dict):
        return False
    for step, node in fields.items():
        known = _STEPS.get(step[:2])
        if not is_set(node) or (known is not None and not known(step[2:])):
            return False
    return True


def difference(one: Set, other: Set) -> Set:
    """Return the fields of ``one`` that aren't in ``other``."""
    if not other:
        return one
    result: dict[str, Any] = {}
    same = True
    for step, node in one.items():
        if step == ".":
            continue
        other_node = other.get(step)
        if other_node is None:
            result[step] = node
            continue
        kept = is_member(node) and not is_member(other_node)
        below = difference(node, other_node) if node else _EMPTY
        below = {name: inner for name, inner in below.items() if name != "."}
        if below or kept:
            result[step] = {".": _SELF, **below} if kept and below else below
        same = same and step in result and result[step] == node
    if "." in one:
        result["."] = _SELF
    return one if same and len(result) == len(one) else result


def intersection(one: Set, other: Set) -> Set:
    """Return the fields that are in both."""
    result: dict[str, Any] = {}
    for step, node in one.items():
        other_node = other.get(step)
        if step == "." or other_node is None:
            continue
        member = is_member(node) and is_member(other_node)
        below = intersection(node, other_node) if node and other_node else _EMPTY
        if member or below:
            result[step] = {".": _SELF, **below} if member and below else below
    return result


def paths(fields: Set, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield a set's fields as steps: those of a level before what is below them."""
    steps = sorted(step for step in fields if step != ".")
    yield from ((*prefix, step) for step in steps if is_member(fields[step]))
    for step in steps:
        yield from paths(fields[step], (*prefix, step))


def show(path: tuple[str, ...]) -> str:
    """Return a field as messages name it: ``.spec.ports[name="http"].port``."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("k:"):
            keys = json.loads(step[2:])
            text += "[" + ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(keys.items())) + "]"
        else:
            text += f"[={step[2:]}]"
    return text


# -- fields of objects


def step_of(item: Any, of: Type) -> str:
    """Return the step to an item of a list that is a map or a set."""
    if of.list_type == "set":
        return "v:" + _encode(item).decode()
    keys = {}
    for key in sorted(of.keys):
        value = key_value(item, key, of.element) if isinstance(item, dict) else None
        if value is not None:
            keys[key] = value
    return "k:" + _encode(keys).decode()


def _children(value: Any, of: Type) -> Iterator[tuple[str, Any, Type]]:
    """Yield step, value and type of what is below a value; nothing below what counts as one field."""
    if isinstance(value, dict):
        if of.kind == "object" and not of.atomic:
            for name, item in value.items():
                yield f"f:{name}", item, of.field(name)
    elif isinstance(value, list) and of.kind == "list" and of.list_type != "atomic":
        for item in value:
            yield step_of(item, of), item, of.element or ANY


def everything(value: Any, of: Type) -> Set:
    """Return all that is below a value, itself included: what becomes owned where it is new."""
    if type(value) not in (dict, list):
        return _SELF
    below: dict[str, Any] = {}
    for step, item, inner in _children(value, of.of(value)):
        below[step] = everything(item, inner) if type(item) in (dict, list) else _SELF
    return {".": _SELF, **below} if below else _SELF


def named(value: Any, of: Type) -> Set:
    """Return the fields that a configuration names: what applying it owns."""
    of = of.of(value)
    result: dict[str, Any] = {}
    for step, item, inner in _children(value, of):
        below = named(item, inner)
        part = step.startswith("f:") and step[2:] in of.fields
        result[step] = below if not below or part else {".": _SELF, **below}
    return result


def with_parents(fields: Set, of: Type) -> Set:
    """Return a set with the named fields above its fields."""
    result: dict[str, Any] = {}
    for step, node in fields.items():
        if step == "." or not node:
            result[step] = node
            continue
        field = step.startswith("f:")
        inner = (of.field(step[2:]) if field else of.element) or ANY
        below = dict(with_parents(node, inner if inner.kind != "any" else _guess(node)))
        if field and step[2:] in of.fields:
            below["."] = _SELF
        result[step] = below
    return result


_FREE = ANY.of({})
_FREE_LIST = ANY.of([])


def _guess(node: Set) -> Type:
    return _FREE if any(step.startswith("f:") for step in node) else _FREE_LIST


class Comparison:
    """What changed between two states of an object."""

    __slots__ = ("added", "modified", "removed")

    def __init__(self, added: Set, removed: Set, modified: Set) -> None:
        self.added, self.removed, self.modified = added, removed, modified

    @property
    def changed(self) -> Set:
        """What has a new value."""
        return union(self.added, self.modified)

    def without(self, ignored: Callable[[Set], Set]) -> "Comparison":
        """Return the comparison without fields that count for nobody."""
        return Comparison(ignored(self.added), ignored(self.removed), ignored(self.modified))


def compare(old: Any, new: Any, of: Type) -> Comparison:
    """Return what is different in ``new``."""
    return Comparison(*_compare(old, new, of.of(new if new is not None else old)))


def _compare(old: Any, new: Any, of: Type) -> tuple[Set, Set, Set]:
    added: dict[str, Any] = {}
    removed: dict[str, Any] = {}
    modified: dict[str, Any] = {}
    before = {step: (item, inner) for step, item, inner in _children(old, of)}
    for step, item, inner in _children(new, of):
        if step not in before:
            added[step] = everything(item, inner)
            continue
        was, _ = before.pop(step)
        if was == item:
            continue
        if _as_one(was, item, inner):
            modified[step] = _SELF
            continue
        for target, part in zip((added, removed, modified), _compare(was, item, inner.of(item or was)), strict=True):
            if part:
                target[step] = part
    for step, (item, inner) in before.items():
        removed[step] = everything(item, inner)
    return added, removed, modified


def _as_one(old: Any, new: Any, of: Type) -> bool:
    """Say whether two different values are compared as wholes."""
    of = of.of(new if new is not None else old)
    if not old and not new:
        return True
    if of.kind == "object":
        return of.atomic or not isinstance(old or {}, dict) or not isinstance(new or {}, dict)
    if of.kind == "list":
        return of.list_type == "atomic" or not isinstance(old or [], list) or not isinstance(new or [], list)
    return True


# -- changes


def merge(live: Any, config: Any, of: Type) -> Any:
    """Return ``live`` with everything that a configuration names set to its value."""
    of = of.of(config)
    if isinstance(live, dict) and isinstance(config, dict) and of.kind == "object" and not of.atomic:
        result = dict(live)
        for name, item in config.items():
            result[name] = merge(live[name], item, of.field(name)) if name in live else item
        return result
    if isinstance(live, list) and isinstance(config, list) and of.kind == "list" and of.list_type != "atomic":
        element = of.element or ANY
        wanted = {step_of(item, of): item for item in config}
        items = []
        for item in live:
            step = step_of(item, of)
            items.append(merge(item, wanted.pop(step), element) if step in wanted else item)
        return [*items, *wanted.values()]
    return config


def remove(value: Any, fields: Set, of: Type) -> Any:
    """Return a value without some fields; None for one that loses all it has."""
    of = of.of(value)
    if isinstance(value, dict) and value:
        if of.atomic:
            return None
        kept = {}
        for name, item in value.items():
            node = fields.get(f"f:{name}")
            if node is None:
                kept[name] = item
            elif not is_member(node):
                kept[name] = remove(item, node, of.field(name))
        return kept or None
    if isinstance(value, list) and value:
        if of.list_type == "atomic":
            return None
        items = []
        for item in value:
            node = fields.get(step_of(item, of))
            if node is None:
                items.append(item)
            elif not is_member(node):
                items.append(remove(item, node, of.element or ANY))
        return items or None
    return value


_EXPECTED: dict[str, tuple[Any, str]] = {
    "object": (dict, "map"),
    "list": (list, "list"),
    "string": (str, "string"),
    "boolean": (bool, "boolean"),
    "integer": (int | float, "numeric (int or float)"),
    "number": (int | float, "numeric (int or float)"),
}


def problems(config: Any, of: Type, path: str = "") -> Iterator[str]:
    """Yield why a configuration can't be applied: fields that aren't in the schema, items that can't be told apart."""
    of = of.of(config)
    wanted = _EXPECTED.get(of.kind)
    if config is not None and wanted is not None and not isinstance(config, wanted[0]):
        yield f"{path}: expected {wanted[1]}, got &{{{config}}}"
    elif isinstance(config, dict) and of.kind == "object":
        for name, item in config.items():
            if name not in of.fields and of.element is None:
                if not of.preserve:
                    yield f"{path}.{name}: field not declared in schema"
                continue
            yield from problems(item, of.field(name), f"{path}.{name}")
    elif isinstance(config, list) and of.kind == "list":
        seen: set[str] = set()
        for at, item in enumerate(config):
            where = f"{path}[{at}]"
            if of.list_type == "map":
                if not isinstance(item, dict):
                    yield f"{path}: element {at}: associative list may not have non-map elements"
                    continue
                missing = [key for key in of.keys if key_value(item, key, of.element) is None]
                if len(missing) == len(of.keys):
                    what = "key field" if len(missing) == 1 else "keys"
                    yield (
                        f"{path}: element {at}: associative list with keys has an element that omits {what} "
                        f"{', '.join(json.dumps(key) for key in missing)} (and doesn't have default value)"
                    )
                    continue
            if of.list_type != "atomic":
                step = step_of(item, of)
                if step in seen:
                    yield f"{path}: duplicate entries for key {show((step,))}"
                seen.add(step)
                where = path + show((step,))
            yield from problems(item, of.element or ANY, where)
