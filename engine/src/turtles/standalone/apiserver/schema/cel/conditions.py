# SPDX-License-Identifier: GPL-3.0-or-later
"""matchConditions of webhooks.

Source: the Kubernetes documentation "Dynamic Admission Control", "Matching requests: matchConditions".
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from turtles.standalone.apiserver.schema.cel import engine, values
from turtles.standalone.apiserver.schema.cel.library.authorizer import AUTHORIZER, AccessCheck
from turtles.standalone.apiserver.wire.errors import Cause, Object, duplicate, invalid_value, required

MAX_CONDITIONS = 64
_NAME = re.compile(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
#: A form that needs no interpreter: all users but these.
_OTHER_USERS = re.compile(r"!\(request\.userInfo\.username in \[('[^'\\]*'(?:, *'[^'\\]*')*)\]\)")

_TEXT: Object = {"type": "string"}
_TEXTS: Object = {"type": "array", "items": _TEXT}


def _fields(*names: str) -> Object:
    return {"type": "object", "properties": dict.fromkeys(names, _TEXT)}


#: admission.k8s.io/v1 AdmissionRequest, as far as conditions see it.
_REQUEST: Object = {
    "type": "object",
    "properties": {
        "uid": _TEXT,
        "subResource": _TEXT,
        "requestSubResource": _TEXT,
        "name": _TEXT,
        "namespace": _TEXT,
        "operation": _TEXT,
        "dryRun": {"type": "boolean"},
        "kind": _fields("group", "version", "kind"),
        "requestKind": _fields("group", "version", "kind"),
        "resource": _fields("group", "version", "resource"),
        "requestResource": _fields("group", "version", "resource"),
        "options": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "userInfo": {
            "type": "object",
            "properties": {
                "username": _TEXT,
                "uid": _TEXT,
                "groups": _TEXTS,
                "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
    },
}


def is_simple(conditions: Any) -> bool:
    """Say whether conditions can be judged without an interpreter."""
    return all(_OTHER_USERS.fullmatch(str(one.get("expression", "")).strip()) for one in conditions)


def met(
    conditions: list[Object], request: Callable[[], Object], username: str, access: AccessCheck
) -> tuple[bool, list[str]]:
    """Return whether all conditions are met, and what went wrong with those that give no answer.

    One that is not met decides, whatever the others say.

    :param request: gives the AdmissionRequest.
    :param access: answers the variable ``authorizer``.
    """
    data: dict[str, Any] | None = None
    errors = []
    for one in conditions:
        expression = str(one["expression"]).strip()
        simple = _OTHER_USERS.fullmatch(expression)
        if simple:
            if username in re.findall("'([^']*)'", simple[1]):
                return False, []
            continue
        if data is None:
            review = request()
            data = {
                "request": {name: value for name, value in review.items() if name not in ("object", "oldObject")},
                "object": review.get("object"),
                "oldObject": review.get("oldObject"),
                "authorizer": {"@authz": {}},
            }
        try:
            if engine.evaluate(expression, data, access) is not True:
                return False, []
        except engine.EvaluationError as error:
            errors.append(f"expression '{expression}' resulted in error: {error}")
    return not errors, errors


def check(conditions: Any, path: str) -> list[Cause]:
    """Return what is wrong with a webhook's matchConditions."""
    if conditions is None:
        return []
    causes: list[Cause] = []
    if len(conditions) > MAX_CONDITIONS:
        text = f"Too many: {len(conditions)}: must have at most {MAX_CONDITIONS} items"
        causes.append(Cause("FieldValueTooMany", text, path))
    seen: set[str] = set()
    checker: engine.Checker | None = None
    for index, one in enumerate(conditions):
        where = f"{path}[{index}]"
        name, expression = one.get("name") or "", str(one.get("expression") or "").strip()
        if not name:
            causes.append(required(f"{where}.name"))
        elif not _NAME.match(name):
            text = "name part must consist of alphanumeric characters, '-', '_' or '.'"
            causes.append(invalid_value(f"{where}.name", name, text))
        elif name in seen:
            causes.append(duplicate(f"{where}.name", name))
        seen.add(name)
        if not expression:
            causes.append(required(f"{where}.expression"))
        elif not is_simple([one]):
            checker = checker or _checker()
            try:
                checker.check(expression)
            except engine.CompileError as error:
                causes.append(invalid_value(f"{where}.expression", expression, str(error)))
    return causes


def _checker() -> engine.Checker:
    types = values.Types()
    name = types.declare(_REQUEST)
    variables: Mapping[str, str] = {
        "object": "dyn",
        "oldObject": "dyn",
        "request": name,
        "authorizer": AUTHORIZER,
    }
    return engine.Checker(variables, types.pool())
