# SPDX-License-Identifier: GPL-3.0-or-later
"""Specs that can't be changed, as those of most kinds of CDI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from turtles.api.kind import DEFAULT_CONTEXT, Context
from turtles.api.language import DUPLICATE, INVALID, Cause, Struct
from turtles.api.objects import get, is_deleted
from turtles.api.rules import Causes

#: Longest name that goes into a label.
LONGEST_NAME = 63


def constant_spec(kind: str, spec: Struct) -> Callable[[Any, Any, Context], list[Cause]]:
    """Return the `validate_update` of a kind whose spec can't be changed, in CDI's words."""

    def validate_update(obj: Any, old: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
        if is_deleted(obj) if isinstance(obj, dict) else False:
            return []
        before, after = (spec.canonical(get(each, "spec") or {}) for each in (old, obj))
        return [Cause(DUPLICATE, f"Cannot update {kind} Spec", f"{kind}.Spec")] if before != after else []

    return validate_update


def name_causes(obj: Any, name: str | None = None, here: str = "metadata.name") -> Causes:
    """Refuse a name that doesn't go into a label, in CDI's words.

    :param name: the object's own if not given.
    """
    if len(str(get(obj, "metadata", "name") if name is None else name)) > LONGEST_NAME:
        yield Cause(INVALID, f"Name cannot be longer than {LONGEST_NAME} characters", here)
