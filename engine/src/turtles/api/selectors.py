# SPDX-License-Identifier: GPL-3.0-or-later
"""Label selectors: whether one selects, and what is wrong with one.

Rules and messages: Kubernetes API reference, "LabelSelector", and its validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api.language import INVALID, REQUIRED, Cause

_WITH_VALUES = ("In", "NotIn")
_WITHOUT_VALUES = ("Exists", "DoesNotExist")
_TEXTS = {"In": "{} in ({})", "NotIn": "{} notin ({})", "Exists": "{}", "DoesNotExist": "!{}"}


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Say whether a LabelSelector without faults selects an object with these labels; an empty one selects all."""
    selector = selector or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(requirement, labels) for requirement in selector.get("matchExpressions") or ())


def _holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = requirement["key"], requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def selector_causes(selector: Mapping[str, Any] | None, path: str) -> list[Cause]:
    """Return what is wrong with the requirements of a LabelSelector whose shape has been checked."""
    causes: list[Cause] = []
    for index, requirement in enumerate((selector or {}).get("matchExpressions") or ()):
        here, operator = f"{path}.matchExpressions[{index}]", requirement["operator"]
        values = requirement.get("values") or []
        if operator in _WITH_VALUES and not values:
            message = f"{here}.values: must be specified when `operator` is 'In' or 'NotIn'"
            causes.append(Cause(REQUIRED, message, f"{here}.values"))
        elif operator in _WITHOUT_VALUES and values:
            message = f"{here}.values: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(Cause(INVALID, message, f"{here}.values"))
        elif operator not in (*_WITH_VALUES, *_WITHOUT_VALUES):
            message = f"{here}.operator: {operator!r} is not a valid label selector operator"
            causes.append(Cause(INVALID, message, f"{here}.operator"))
    return causes


def choice_causes(selector: Mapping[str, Any] | None, labels: Mapping[str, str], path: str) -> list[Cause]:
    """Return what is wrong with a LabelSelector that has to select what a template with these labels makes."""
    if causes := selector_causes(selector, path):
        return causes
    return [] if selects(selector, labels) else [Cause(INVALID, "selector does not match labels.", path)]


def as_text(selector: Mapping[str, Any] | None) -> str:
    """Return a LabelSelector as `kubectl -l` and autoscalers take it, in order of its keys."""
    selector = selector or {}
    terms = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for requirement in selector.get("matchExpressions") or ():
        key, values = requirement["key"], ",".join(sorted(requirement.get("values") or ()))
        terms.append((key, _TEXTS[requirement["operator"]].format(key, values)))
    return ",".join(text for _, text in sorted(terms, key=lambda term: term[0]))
