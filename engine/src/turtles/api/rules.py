# SPDX-License-Identifier: GPL-3.0-or-later
"""What the validation of all kinds shares: types, metadata, choices, names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from turtles.api.language import INVALID, NOT_SUPPORTED, Cause, Type

Spec = Mapping[str, Any]
Causes = Iterator[Cause]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def schema_causes(obj: Any, spec: Type) -> list[Cause]:
    """Return what is wrong with the shape of an object's spec. Rules may rely on the shape if that is nothing."""
    if not isinstance(obj, dict):
        return [Cause(INVALID, "the object is not a JSON object")]
    causes: list[Cause] = []
    spec.check(obj.get("spec"), "spec", causes)
    return causes


def idle_warnings(value: Any, of: Type, path: str = "spec") -> list[str]:
    """Return the warnings about what has no effect in the value at `path`."""
    return [f"{here} has no effect in this engine" for here in of.idle(value, path)]


def is_well_formed(obj: Any, spec: Type) -> bool:
    """Say whether defaults can be set in an object: its spec passes the schema's check, and its metadata is sound."""
    if schema_causes(obj, spec):
        return False
    metadata = obj.get("metadata") or {}
    if not isinstance(metadata, dict):
        return False
    maps = [metadata.get(key) or {} for key in ("labels", "annotations")]
    return isinstance(metadata.get("finalizers") or [], list) and all(isinstance(each, dict) for each in maps)


def check_metadata(metadata: Any, path: str, causes: list[Cause]) -> None:
    """Append to `causes` what is wrong with the shape of metadata, an object's or a template's."""
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        causes.append(Cause(INVALID, f"{path} must be of type object", path))
        return
    for key in ("labels", "annotations"):
        values = metadata.get(key)
        if values is None:
            continue
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            causes.append(Cause(INVALID, f"{path}.{key} must be an object whose values are strings", f"{path}.{key}"))


def one_of(value: Any, here: str, allowed: tuple[str, ...]) -> Causes:
    """Refuse a value that is set and isn't one of those allowed."""
    if value and value not in allowed:
        yield Cause(NOT_SUPPORTED, f"{here} has invalid value {value}, must be one of: [{' '.join(allowed)}]", here)


def label_problems(name: str) -> list[str]:
    """Return what keeps a name from being a DNS label (RFC 1123), in Kubernetes' words."""
    problems = []
    if len(name) > 63:
        problems.append("must be no more than 63 characters")
    if _SUBDOMAIN.fullmatch(name) and "." in name:
        problems.append("must not contain dots")
    elif not _LABEL.fullmatch(name):
        problems.append(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
            "end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
            f"'{_LABEL.pattern}')"
        )
    return problems


def subdomain_problems(name: str) -> list[str]:
    """Return what keeps a name from being a DNS subdomain (RFC 1123), in Kubernetes' words."""
    problems = []
    if len(name) > 253:
        return ["must be no more than 253 characters"]
    if not _SUBDOMAIN.fullmatch(name):
        problems.append(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
            f"'{_SUBDOMAIN.pattern}')"
        )
    return problems
