# SPDX-License-Identifier: GPL-3.0-or-later
"""x-kubernetes-validations of custom resources.

Source: the Kubernetes documentation "Validation rules" (KEP-2876), "Validation ratcheting" (KEP-4008), and the
messages of k8s.io/apiextensions-apiserver.
"""

import json
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from turtles.standalone.apiserver.schema.cel import engine, values
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    duplicate,
    field_forbidden,
    invalid_value,
    not_supported,
    required,
)

Schema = Mapping[str, Any]
#: Longest time that the rules of one object may take, in seconds.
BUDGET_SECONDS = 1.0
MAX_MESSAGE = 2048
#: Stands for a value that isn't there: null is one that is.
ABSENT: Any = object()
REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")
_OLD = re.compile(r"\boldSelf\b")
_STRINGS = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'""")
#: Makes oldSelf an optional value, on a line of its own so that columns in messages stay right.
_BIND = "cel.bind(oldSelf, hasOldSelf ? optional.of(givenOldSelf) : optional.none(),\n"


class Rule(NamedTuple):
    """An entry of x-kubernetes-validations."""

    expression: str
    message: str
    message_expression: str
    reason: str
    field_path: str
    optional_old: bool

    @property
    def transition(self) -> bool:
        """Whether the rule compares with the value before."""
        return uses_old(self.expression)


class Node(NamedTuple):
    """The part of a schema that has rules at it or below."""

    rules: tuple[Rule, ...]
    schema: Schema
    properties: dict[str, "Node"]
    additional: "Node | None"
    items: "Node | None"


def uses_old(expression: str) -> bool:
    """Say whether an expression names oldSelf."""
    return _OLD.search(_STRINGS.sub('""', expression)) is not None


def collect(schema: Schema) -> Node | None:
    """Return a schema's rules, None when it has none anywhere."""
    properties = {
        name: child
        for name, inner in (schema.get("properties") or {}).items()
        if isinstance(inner, Mapping) and (child := collect(inner)) is not None
    }
    additional, items = schema.get("additionalProperties"), schema.get("items")
    below = collect(additional) if isinstance(additional, Mapping) else None
    inside = collect(items) if isinstance(items, Mapping) else None
    rules = tuple(_rule(one) for one in schema.get("x-kubernetes-validations") or ())
    if not (rules or properties or below or inside):
        return None
    return Node(rules, schema, properties, below, inside)


def _rule(one: Mapping[str, Any]) -> Rule:
    def text(name: str) -> str:
        return str(one.get(name) or "")

    return Rule(
        text("rule"),
        text("message"),
        text("messageExpression"),
        text("reason"),
        text("fieldPath"),
        bool(one.get("optionalOldSelf")),
    )


class _Exhausted(Exception):
    pass


class _Run:
    def __init__(self) -> None:
        self.causes: list[Cause] = []
        self.deadline = time.monotonic() + BUDGET_SECONDS

    def visit(self, node: Node, value: Any, old: Any, path: str, root: bool) -> None:
        if node.rules and value is not None:
            self.apply(node, value, old, path, root)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for name, item in value.items():
                inner = node.properties.get(name)
                child = f"{path}.{name}" if path else name
                if inner is None and node.additional is not None:
                    inner, child = node.additional, f"{path}[{name}]" if path else name
                if inner is not None:
                    self.visit(inner, item, before.get(name, ABSENT), child, False)
        elif isinstance(value, list) and node.items is not None:
            correlated = _correlate(node.schema, value, old)
            for index, (item, previous) in enumerate(zip(value, correlated, strict=True)):
                self.visit(node.items, item, previous, f"{path}[{index}]", False)

    def apply(self, node: Node, value: Any, old: Any, path: str, root: bool) -> None:
        unchanged = old is not ABSENT and old == value
        data: dict[str, Any] | None = None
        for rule in node.rules:
            transition = rule.transition
            if transition and old is ABSENT and not rule.optional_old:
                continue
            if unchanged and not transition:
                continue
            if time.monotonic() > self.deadline:
                raise _Exhausted
            if data is None:
                data = {"self": values.of(value, node.schema, root)}
            variables = dict(data)
            if transition and rule.optional_old:
                present = old is not ABSENT
                variables["hasOldSelf"] = present
                variables["givenOldSelf"] = values.of(old, node.schema, root) if present else None
            elif transition:
                variables["oldSelf"] = values.of(old, node.schema, root)
            self.judge(rule, node.schema, variables, path)

    def judge(self, rule: Rule, schema: Schema, data: Mapping[str, Any], path: str) -> None:
        prefix, suffix = (_BIND, "\n)") if "hasOldSelf" in data else ("", "")
        try:
            if engine.evaluate(f"{prefix}{rule.expression}{suffix}", data) is True:
                return
        except engine.BudgetError:
            raise _Exhausted from None
        except engine.EvaluationError as error:
            what = rule.message or f"rule: {rule.expression.strip()}"
            self.causes.append(self._cause(rule, schema, path, f"{error} evaluating {what}"))
            return
        message = rule.message or f"failed rule: {rule.expression.strip()}"
        if rule.message_expression:
            try:
                text = engine.evaluate(f"{prefix}{rule.message_expression}{suffix}", data)
            except engine.EvaluationError:
                text = None
            if isinstance(text, str) and text.strip() and "\n" not in text and len(text) <= MAX_MESSAGE:
                message = text.strip()
        self.causes.append(self._cause(rule, schema, path, message))

    def _cause(self, rule: Rule, schema: Schema, path: str, message: str) -> Cause:
        if rule.field_path:
            path = f"{path}{rule.field_path}" if path or rule.field_path.startswith("[") else rule.field_path[1:]
        path = path or "<nil>"
        if rule.reason == "FieldValueForbidden":
            return field_forbidden(path, message)
        if rule.reason == "FieldValueRequired":
            return required(path, message)
        if rule.reason == "FieldValueDuplicate":
            return duplicate(path, schema.get("type", ""))
        return invalid_value(path, schema.get("type", ""), message)


def _correlate(schema: Schema, value: list[Any], old: Any) -> list[Any]:
    """Return for each item of a list the item that it was: known for lists of type map only."""
    keys = schema.get("x-kubernetes-list-map-keys")
    if schema.get("x-kubernetes-list-type") != "map" or not isinstance(old, list) or not keys:
        return [ABSENT] * len(value)
    properties = (schema.get("items") or {}).get("properties") or {}

    def key(item: Any) -> str:
        if not isinstance(item, dict):
            return ""
        return repr([item.get(name, (properties.get(name) or {}).get("default")) for name in keys])

    before = {key(item): item for item in old}
    return [before.get(key(item), ABSENT) for item in value]


def evaluate(node: Node, value: Any, old: Any = ABSENT) -> list[Cause]:
    """Return what rules say of an object.

    :param old: the object before, for rules about changes; a rule about a part that didn't change isn't asked.
    """
    run = _Run()
    try:
        run.visit(node, value, old, "", True)
    except _Exhausted:
        run.causes.append(exhausted(value))
    return run.causes


def exhausted(value: Mapping[str, Any]) -> Cause:
    """Return the cause of an object whose rules take too much."""
    text = "validation failed due to running out of cost budget, no further validation rules will be run"
    return invalid_value("<nil>", value.get("kind", ""), text)


# -- rules themselves, when a definition brings them


def check(schema: Schema, path: str, old: Schema | None = None) -> list[Cause]:
    """Return what is wrong with the rules of a definition's version.

    :param path: of the schema in the definition.
    :param old: the schema before: rules that it had already aren't checked again.
    """
    causes: list[Cause] = []
    known = {str(one) for one in _all_rules(old)} if old is not None else set()
    sites = list(_sites(schema, path, True, True))
    if not sites:
        return []
    types = values.Types()
    named = [(site, types.declare(site.schema, site.root)) for site in sites]
    try:
        pool = types.pool()
    except TypeError:
        # A property that no message may have: rules are then checked for their syntax alone.
        pool, named = None, [(site, "dyn") for site, _ in named]
    for site, name in named:
        causes += _check_site(site, name, pool, known)
    return causes


class _Site(NamedTuple):
    schema: Schema
    path: str
    root: bool
    correlated: bool


def _all_rules(schema: Schema | None) -> list[Any]:
    return [rule for site in _sites(schema or {}, "", True, True) for rule in site.schema["x-kubernetes-validations"]]


def _sites(schema: Schema, path: str, root: bool, correlated: bool) -> list[_Site]:
    sites = []
    if schema.get("x-kubernetes-validations"):
        sites.append(_Site(schema, path, root, correlated))
    for name, inner in (schema.get("properties") or {}).items():
        if isinstance(inner, Mapping):
            sites += _sites(inner, f"{path}.properties[{name}]", False, correlated)
    additional, items = schema.get("additionalProperties"), schema.get("items")
    if isinstance(additional, Mapping):
        sites += _sites(additional, f"{path}.additionalProperties", False, correlated)
    if isinstance(items, Mapping):
        still = correlated and schema.get("x-kubernetes-list-type") == "map"
        sites += _sites(items, f"{path}.items", False, still)
    return sites


def _check_site(site: _Site, name: str, pool: Any, known: set[str]) -> list[Cause]:
    causes: list[Cause] = []
    rules = site.schema["x-kubernetes-validations"]
    checker: engine.Checker | None = None
    seen: set[str] = set()
    for index, one in enumerate(rules if isinstance(rules, list) else ()):
        path = f"{site.path}.x-kubernetes-validations[{index}]"
        if not isinstance(one, Mapping):
            causes.append(invalid_value(path, one, "must be an object"))
            continue
        rule = _rule(one)
        causes += _check_fields(rule, site, path)
        if not rule.expression.strip():
            causes.append(required(f"{path}.rule", "rule is not specified"))
            continue
        if rule.expression in seen:
            causes.append(duplicate(f"{path}.rule", rule.expression))
        seen.add(rule.expression)
        if str(one) in known:
            continue
        if checker is None:
            shown = {"self": name, "oldSelf": name, "givenOldSelf": name, "hasOldSelf": "bool"}
            checker = engine.Checker(shown, pool)
        prefix, suffix = (_BIND, "\n)") if rule.optional_old else ("", "")
        try:
            checker.check(rule.expression, "bool", prefix, suffix)
        except engine.CompileError as error:
            text = str(error).replace("must evaluate", "cel expression must evaluate")
            causes.append(_unusable(f"{path}.rule", rule, text))
            continue
        if rule.transition and not site.correlated:
            text = "oldSelf cannot be used on the uncorrelatable portion of the schema within " + site.path
            causes.append(invalid_value(f"{path}.rule", rule.expression, text))
        if rule.message_expression:
            try:
                checker.check(rule.message_expression, "string", prefix, suffix)
            except engine.CompileError as error:
                text = (
                    str(error)
                    .replace("compilation failed", "messageExpression compilation failed")
                    .replace("must evaluate", "messageExpression must evaluate")
                )
                causes.append(_unusable(f"{path}.messageExpression", rule, text))
    return causes


def _unusable(path: str, rule: Rule, why: str) -> Cause:
    """Return the cause of an expression that can't be compiled; Kubernetes shows the whole rule, as Go prints it."""
    reason = f"(*apiextensions.FieldValueErrorReason)({json.dumps(rule.reason) if rule.reason else 'nil'})"
    shown = (
        f"apiextensions.ValidationRule{{Rule:{json.dumps(rule.expression)}, Message:{json.dumps(rule.message)}, "
        f"MessageExpression:{json.dumps(rule.message_expression)}, Reason:{reason}, "
        f"FieldPath:{json.dumps(rule.field_path)}, "
        f"OptionalOldSelf:(*bool)({'true' if rule.optional_old else 'nil'})}}"
    )
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {why}", path)


def _check_fields(rule: Rule, site: _Site, path: str) -> list[Cause]:
    causes: list[Cause] = []
    if rule.message and not rule.message.strip():
        causes.append(invalid_value(f"{path}.message", rule.message, "message must be non-empty if specified"))
    elif "\n" in rule.message:
        causes.append(invalid_value(f"{path}.message", rule.message, "message must not contain line breaks"))
    elif "\n" in rule.expression and not rule.message:
        causes.append(required(f"{path}.message", "message must be specified if rule contains line breaks"))
    elif len(rule.message) > MAX_MESSAGE:
        text = f"message must not be longer than {MAX_MESSAGE} characters"
        causes.append(invalid_value(f"{path}.message", rule.message[:10] + "...", text))
    if rule.reason and rule.reason not in REASONS:
        causes.append(not_supported(f"{path}.reason", rule.reason, sorted(REASONS)))
    if rule.field_path and not _reaches(site.schema, rule.field_path):
        text = "fieldPath must be a valid path: does not refer to a valid field"
        causes.append(invalid_value(f"{path}.fieldPath", rule.field_path, text))
    return causes


_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\['((?:[^'\\]|\\.)+)'\]")


def _reaches(schema: Schema, path: str) -> bool:
    position, inner = 0, schema
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            return False
        name, position = step[1] or step[2], step.end()
        subschema = (inner.get("properties") or {}).get(name) or inner.get("additionalProperties")
        if not isinstance(subschema, Mapping):
            return False
        inner = subschema
    return True
