# SPDX-License-Identifier: GPL-3.0-or-later
"""Label and field selectors: text or object in, a predicate out."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from turtles.standalone.apiserver.errors import bad_request

LabelPredicate = Callable[[Mapping[str, str]], bool]
#: One comparison of a field selector: path, whether equality is asked for, value.
FieldTerm = tuple[str, bool, str]

_SET = re.compile(r"^\s*([A-Za-z0-9_./-]+)\s+(in|notin)\s+\(([^()]*)\)\s*$")
_EQUAL = re.compile(r"^\s*([A-Za-z0-9_./-]+)\s*(==|=|!=)\s*([A-Za-z0-9_.-]*)\s*$")
_EXISTS = re.compile(r"^\s*(!?)\s*([A-Za-z0-9_./-]+)\s*$")
_COMPARE = re.compile(r"^\s*([A-Za-z0-9_./-]+)\s*([<>])\s*(-?\d+)\s*$")


def _split(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return parts


def _label_term(text: str) -> LabelPredicate:
    if match := _SET.match(text):
        key, operator, listed = match.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUAL.match(text):
        key, operator, value = match.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _COMPARE.match(text):
        key, operator, number = match.groups()
        return lambda labels: _compares(labels.get(key), operator, int(number))
    if match := _EXISTS.match(text):
        negated, key = match.groups()
        if negated:
            return lambda labels: key not in labels
        return lambda labels: key in labels
    raise bad_request(f"unable to parse requirement: {text!r} is not a label selector requirement")


def _compares(value: str | None, operator: str, number: int) -> bool:
    try:
        found = int(value or "")
    except ValueError:
        return False
    return found > number if operator == ">" else found < number


def parse_labels(text: str) -> LabelPredicate | None:
    """Return a predicate on labels for a selector such as ``a=b,c in (d,e),!f``; None for an empty one."""
    if not text.strip():
        return None
    terms = [_label_term(part) for part in _split(text)]
    if len(terms) == 1:
        return terms[0]
    return lambda labels: all(term(labels) for term in terms)


def _expression(expression: Mapping[str, Any]) -> LabelPredicate:
    key, operator = expression.get("key", ""), expression.get("operator")
    values = set(expression.get("values") or ())
    if operator == "In":
        return lambda labels: labels.get(key) in values
    if operator == "NotIn":
        return lambda labels: labels.get(key) not in values
    if operator == "Exists":
        return lambda labels: key in labels
    return lambda labels: key not in labels


def match_selector(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a metav1.LabelSelector selects ``labels``; an absent or empty one selects everything."""
    if not selector:
        return True
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_expression(expression)(labels) for expression in selector.get("matchExpressions") or ())


def parse_fields(text: str) -> list[FieldTerm]:
    """Return the comparisons of a field selector such as ``spec.nodeName=n1,status.phase!=Failed``."""
    terms: list[FieldTerm] = []
    for part in text.split(","):
        if not part.strip():
            continue
        for operator in ("!=", "==", "="):
            path, found, value = part.partition(operator)
            if found:
                terms.append((path.strip(), operator != "!=", value.strip()))
                break
        else:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
    return terms


def field_value(obj: Mapping[str, Any], path: str) -> str:
    """Return the text of a field named by a dotted path; the empty text when it isn't there."""
    value: Any = obj
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def match_fields(terms: list[FieldTerm], obj: Mapping[str, Any]) -> bool:
    """Whether an object satisfies all comparisons."""
    return all((field_value(obj, path) == value) == equal for path, equal, value in terms)
