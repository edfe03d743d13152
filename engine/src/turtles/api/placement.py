# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the affinity and the spread of Pods, as Kubernetes judges them.

Rules and messages: Kubernetes API reference, "Pod", and its validation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from turtles.api.language import INVALID, Cause
from turtles.api.objects import Object
from turtles.api.rules import Causes, label_problems, subdomain_problems

_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_NAME_MESSAGE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_NAME.pattern}')"
)
_QUALIFIED = (
    "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    f"alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    f"'{_NAME.pattern}') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
)
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_VALUE.pattern}')"
)
_LONGEST = 63
_REQUIRED, _PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)
_NO_OPERATOR = "not a valid selector operator"


def affinity_causes(affinity: Object, path: str) -> Causes:
    """Return what is wrong with an affinity whose shape has been checked."""
    node = affinity.get("nodeAffinity")
    if node is not None:
        yield from _node_affinity(node, f"{path}.nodeAffinity")
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        for index, term in enumerate(terms.get(_REQUIRED) or ()):
            yield from _pod_term(term, f"{path}.{kind}.{_REQUIRED}[{index}]")
        for index, weighted in enumerate(terms.get(_PREFERRED) or ()):
            here = f"{path}.{kind}.{_PREFERRED}[{index}]"
            yield from _weight(weighted["weight"], f"{here}.weight")
            yield from _pod_term(weighted["podAffinityTerm"], f"{here}.podAffinityTerm")


def spread_causes(constraints: Sequence[Object], path: str) -> Causes:
    """Return what is wrong with topology spread constraints whose shape has been checked."""
    for index, constraint in enumerate(constraints):
        here = f"{path}[{index}]"
        key, action = constraint["topologyKey"], constraint["whenUnsatisfiable"]
        if constraint["maxSkew"] <= 0:
            yield _invalid(f"{here}.maxSkew", constraint["maxSkew"], "must be greater than zero")
        if key:
            yield from _key(key, f"{here}.topologyKey")
        else:
            yield _error(f"{here}.topologyKey", "Required value: can not be empty")
        yield from _one_of(action, f"{here}.whenUnsatisfiable", ("DoNotSchedule", "ScheduleAnyway"))
        if any(
            key == other["topologyKey"] and action == other["whenUnsatisfiable"] for other in constraints[index + 1 :]
        ):
            field = f"{here}.{{topologyKey, whenUnsatisfiable}}"
            yield _error(field, f"Duplicate value: {json.dumps(f'{{{key}, {action}}}')}")
        domains = constraint.get("minDomains")
        if domains is not None and domains <= 0:
            yield _invalid(f"{here}.minDomains", domains, "must be greater than 0")
        if domains is not None and action != "DoNotSchedule":
            detail = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
            yield _invalid(f"{here}.minDomains", domains, detail)
        for policy in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if constraint.get(policy) is not None:
                yield from _one_of(constraint[policy], f"{here}.{policy}", ("Honor", "Ignore"))
        # KubeVirt's field, which lacks the constraint's place in the list
        yield from _selector(constraint.get("labelSelector"), f"{path}.labelSelector")


def _node_affinity(affinity: Object, path: str) -> Causes:
    required = affinity.get(_REQUIRED)
    if required is not None:
        here = f"{path}.{_REQUIRED}.nodeSelectorTerms"
        if not required["nodeSelectorTerms"]:
            yield _error(here, "Required value: must have at least one node selector term")
        for index, term in enumerate(required["nodeSelectorTerms"]):
            yield from _node_term(term, f"{here}[{index}]")
    for index, preferred in enumerate(affinity.get(_PREFERRED) or ()):
        here = f"{path}.{_PREFERRED}[{index}]"
        yield from _weight(preferred["weight"], f"{here}.weight")
        yield from _node_term(preferred["preference"], f"{here}.preference")


def _weight(weight: int, here: str) -> Causes:
    if not 0 < weight <= 100:
        yield _invalid(here, weight, "must be in the range 1-100")


def _node_term(term: Object, path: str) -> Causes:
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        here = f"{path}.matchExpressions[{index}]"
        yield from _requirement(requirement, here, numbers=True)
    for index, requirement in enumerate(term.get("matchFields") or ()):
        here, values = f"{path}.matchFields[{index}]", requirement.get("values") or ()
        if requirement["operator"] not in ("In", "NotIn"):
            yield _invalid(f"{here}.operator", requirement["operator"], _NO_OPERATOR)
        elif len(values) != 1:
            detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            yield _error(f"{here}.values", f"Required value: {detail}")
        if requirement["key"] != "metadata.name":
            yield _invalid(f"{here}.key", requirement["key"], "not a valid field selector key")
            continue
        for position, value in enumerate(values):
            for problem in subdomain_problems(value):
                yield _invalid(f"{here}.values[{position}]", value, problem)


def _pod_term(term: Object, path: str) -> Causes:
    for name in ("labelSelector", "namespaceSelector"):
        yield from _selector(term.get(name), f"{path}.{name}")
    for namespace in term.get("namespaces") or ():
        for problem in label_problems(namespace):
            yield _invalid(f"{path}.namespace", namespace, problem)
    key = term["topologyKey"]
    if not key:
        yield _error(f"{path}.topologyKey", "Required value: can not be empty")
    yield from _key(key, f"{path}.topologyKey")


def _selector(selector: Object | None, path: str) -> Causes:
    if selector is None:
        return
    here = f"{path}.matchLabels"
    for key, value in (selector.get("matchLabels") or {}).items():
        yield from _key(key, here)
        yield from _value(value, here)
    for index, requirement in enumerate(selector.get("matchExpressions") or ()):
        here = f"{path}.matchExpressions[{index}]"
        yield from _requirement(requirement, here)
        for position, value in enumerate(requirement.get("values") or ()):
            yield from _value(value, f"{here}.values[{position}]")


def _requirement(requirement: Object, here: str, *, numbers: bool = False) -> Causes:
    """Check a requirement on a label.

    :param numbers: it may compare numbers, as those on nodes can.
    """
    operator, values = requirement["operator"], requirement.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            detail = "must be specified when `operator` is 'In' or 'NotIn'"
            yield _error(f"{here}.values", f"Required value: {detail}")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            yield _error(f"{here}.values", f"Forbidden: {detail}")
    elif numbers and operator in ("Gt", "Lt"):
        if len(values) != 1:
            detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            yield _error(f"{here}.values", f"Required value: {detail}")
    else:
        yield _invalid(f"{here}.operator", operator, _NO_OPERATOR)
    yield from _key(requirement["key"], f"{here}.key")


def _key(key: str, here: str) -> Causes:
    for problem in _qualified_problems(key):
        yield _invalid(here, key, problem)


def _value(value: str, here: str) -> Causes:
    if len(value) > _LONGEST:
        yield _invalid(here, value, f"must be no more than {_LONGEST} bytes")
    if not _VALUE.fullmatch(value):
        yield _invalid(here, value, _VALUE_MESSAGE)


def _qualified_problems(key: str) -> Iterator[str]:
    prefix, slash, name = key.rpartition("/")
    if key.count("/") > 1:
        yield _QUALIFIED
        return
    if slash and not prefix:
        yield "prefix part must be non-empty"
    elif slash:
        for problem in subdomain_problems(prefix):
            yield f"prefix part {problem}"
    if not name:
        yield "name part must be non-empty"
    elif len(name) > _LONGEST:
        yield f"name part must be no more than {_LONGEST} bytes"
    if not _NAME.fullmatch(name):
        yield f"name part {_NAME_MESSAGE}"


def _one_of(value: str, here: str, allowed: Sequence[str]) -> Causes:
    if value not in allowed:
        listed = ", ".join(f'"{each}"' for each in allowed)
        yield _error(here, f"Unsupported value: {json.dumps(value)}: supported values: {listed}")


def _invalid(field: str, value: Any, detail: str) -> Cause:
    return _error(field, f"Invalid value: {json.dumps(value)}: {detail}")


def _error(field: str, body: str) -> Cause:
    return Cause(INVALID, f"{field}: {body}", field)
