# SPDX-License-Identifier: GPL-3.0-or-later
"""Label and field selectors: text or object in, a predicate out."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from turtles.standalone.apiserver.schema.metadata import validate_labels
from turtles.standalone.apiserver.wire.errors import bad_request, quote

LabelPredicate = Callable[[Mapping[str, str]], bool]
#: One comparison of a field selector: path, whether equality is asked for, value.
FieldTerm = tuple[str, bool, str]

_SYMBOLS = ("==", "!=", "=", "!", ">", "<", "(", ")", ",")
_WORD = re.compile(r"\s*(==|!=|[=!><(),]|[^\s=!><(),]+|$)")
_OPERATORS = "in, notin, =, ==, !=, gt, lt"


class _Parser:
    """A label selector's parser: that of k8s.io/apimachinery/pkg/labels, with its words for what is wrong."""

    def __init__(self, text: str) -> None:
        self._words: list[str] = [word for word in _WORD.findall(text) if word] + [""]
        self._at = 0

    def _peek(self) -> str:
        return self._words[self._at]

    def _next(self) -> str:
        word = self._words[self._at]
        self._at = min(self._at + 1, len(self._words) - 1)
        return word

    def parse(self) -> list[LabelPredicate]:
        predicates: list[LabelPredicate] = []
        while word := self._peek():
            if word in _SYMBOLS and word != "!":
                raise bad_request(f"found '{word}', expected: !, identifier, or 'end of string'")
            try:
                predicates.append(self._requirement())
            except ValueError as error:
                raise bad_request(f"unable to parse requirement: {error}") from None
            word = self._next()
            if word == ",":
                after = self._peek()
                if not after or (after in _SYMBOLS and after != "!"):
                    raise bad_request(f"found '{after}', expected: identifier after ','")
            elif word:
                raise bad_request(f"found '{word}', expected: ',' or 'end of string'")
        return predicates

    def _requirement(self) -> LabelPredicate:
        word = self._next()
        negated = word == "!"
        if negated:
            word = self._next()
        key = self._identifier(word)
        for cause in label_key_causes(key):
            raise ValueError(f"<nil>: {cause}")
        if negated:
            return lambda labels: key not in labels
        if self._peek() in ("", ","):
            return lambda labels: key in labels
        operator = self._next()
        if operator in ("in", "notin"):
            values = self._values()
            self._check_values(key, values)
            return (
                (lambda labels: labels.get(key) in values)
                if operator == "in"
                else (lambda labels: labels.get(key) not in values)
            )
        if operator not in ("=", "==", "!=", ">", "<"):
            raise ValueError(f"found '{operator}', expected: {_OPERATORS}")
        value = "" if self._peek() in ("", ",") else self._identifier(self._next())
        self._check_values(key, [value])
        if operator in "><":
            return _comparison(key, operator, value)
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value

    @staticmethod
    def _identifier(word: str) -> str:
        if not word or word in _SYMBOLS:
            raise ValueError(f"found '{word}', expected: identifier")
        return word

    def _values(self) -> list[str]:
        word = self._next()
        if word != "(":
            raise ValueError(f"found '{word}' expected: '('")
        values: list[str] = []
        word = self._next()
        while word != ")":
            if word == ",":
                values.append("")
                word = self._next()
                continue
            if not word or word in _SYMBOLS:
                raise ValueError(f"found '{word}', expected: ',', ')' or identifier")
            values.append(word)
            word = self._next()
            if word == ",":
                word = self._next()
                if word == ")":
                    values.append("")
            elif word != ")":
                raise ValueError(f"found '{word}', expected: ',' or ')'")
        # Nothing between the brackets is the empty value, as nothing after an equals sign is.
        return values or [""]

    @staticmethod
    def _check_values(key: str, values: list[str]) -> None:
        for index, value in enumerate(values):
            for cause in label_value_causes(value):
                raise ValueError(f"values[{index}][{key}]: {cause}")


def _comparison(key: str, operator: str, value: str) -> LabelPredicate:
    try:
        number = int(value)
    except ValueError:
        text = "for 'Gt', 'Lt' operators, the value must be an integer"
        raise ValueError(f"values[0]: Invalid value: {quote(value)}: {text}") from None
    return lambda labels: _compares(labels.get(key), operator, number)


def label_key_causes(key: str) -> list[str]:
    """Return what is wrong with the key of a label."""
    return [cause.message for cause in validate_labels({key: ""}, "")]


def label_value_causes(value: str) -> list[str]:
    """Return what is wrong with the value of a label."""
    return [cause.message for cause in validate_labels({"key": value}, "")]


def _compares(value: str | None, operator: str, number: int) -> bool:
    try:
        actual = int(value or "")
    except ValueError:
        return False
    return actual > number if operator == ">" else actual < number


def parse_labels(text: str) -> LabelPredicate | None:
    """Return a predicate on labels for a selector such as ``a=b,c in (d,e),!f``; None for an empty one.

    :raises StatusError: 400 for what is no selector.
    """
    terms = _Parser(text).parse()
    if len(terms) < 2:
        return terms[0] if terms else None
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
    """Return the comparisons of a field selector such as ``spec.nodeName=n1,status.phase!=Failed``.

    :raises StatusError: 400 for a part that is no comparison.
    """
    terms: list[FieldTerm] = []
    for part in text.split(","):
        if not part.strip():
            continue
        for operator in ("!=", "==", "="):
            path, separator, value = part.partition(operator)
            if separator:
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
