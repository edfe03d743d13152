# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kinds of snapshot.kubevirt.io share."""

from __future__ import annotations

from typing import Any

from turtles.api.kind import GROUP, Context, Version
from turtles.api.language import INVALID, STRING, TIME, Cause, Struct, field
from turtles.api.objects import Object, get
from turtles.api.rules import Causes

VERSIONS = (
    Version("v1beta1", storage=True),
    Version(
        "v1alpha1",
        deprecation_warning="snapshot.kubevirt.io/v1alpha1 is now deprecated and will be removed in a future release.",
    ),
)

ERROR = Struct(
    "What went wrong last.",
    field("time", TIME, "When it went wrong."),
    field("message", STRING, "What went wrong."),
)


def reference(doc: str) -> Struct:
    """Return the type of a reference to an object of the same namespace."""
    return Struct(
        doc,
        field("apiGroup", STRING, "kubevirt.io."),
        field("kind", STRING, "VirtualMachine.", required=True),
        field("name", STRING, "Its name.", required=True),
    )


def reference_causes(named: Object, path: str) -> Causes:
    """Refuse a reference to anything but a VirtualMachine."""
    if named.get("apiGroup") != GROUP:
        message = f"invalid apiGroup: must be {GROUP}, not {named.get('apiGroup') or 'empty'}"
        yield Cause(INVALID, message, f"{path}.apiGroup")
    if named["kind"] != "VirtualMachine":
        yield Cause(INVALID, f"invalid kind: must be VirtualMachine, not {named['kind']}", f"{path}.kind")


def spec_stays(obj: Any, old: Any, context: Context) -> list[Cause]:
    """Return what is wrong with an update: the spec is what the object was created for."""
    if get(obj, "metadata", "deletionTimestamp") or get(obj, "spec") == get(old, "spec"):
        return []
    return [Cause(INVALID, "spec in immutable after creation", "spec")]
