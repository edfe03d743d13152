# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kinds of snapshot.kubevirt.io share."""

from __future__ import annotations

from typing import Any

from turtles.api.kind import GROUP, Context, Version
from turtles.api.language import INVALID, NOT_FOUND, STRING, TIME, Cause, Struct, field
from turtles.api.objects import Object, get
from turtles.api.rules import Causes
from turtles.api.texts import from_json

VERSIONS = (
    Version("v1beta1", storage=True),
    Version(
        "v1alpha1",
        deprecation_warning="snapshot.kubevirt.io/v1alpha1 is now deprecated and will be removed in a future release.",
    ),
)

#: What patches may change: what a machine is, not which one it is.
_PATCHED = ("/spec/", "/metadata/labels/", "/metadata/annotations/")

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
    """Refuse a reference to anything but a VirtualMachine, for one reason."""
    if named.get("apiGroup") is None:
        yield Cause(NOT_FOUND, "missing apiGroup", f"{path}.apiGroup")
    elif named["apiGroup"] != GROUP:
        yield Cause(INVALID, "invalid apiGroup", f"{path}.apiGroup")
    elif named["kind"] != "VirtualMachine":
        yield Cause(INVALID, "invalid kind", f"{path}.kind")


def patch_causes(spec: Object) -> Causes:
    """Refuse patches of a new machine that aren't any, or change which machine it is."""
    for index, text in enumerate(spec.get("patches") or ()):
        here = f"spec.patches[{index}]"
        try:
            operation = from_json(text)
        except ValueError:
            yield Cause(INVALID, f"patch is not valid JSON ({text})", here)
            continue
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str) or "op" not in operation:
            yield Cause(INVALID, f"{here} is not an operation of a JSON patch: it needs op and path", here)
        elif not all(str(operation[key]).startswith(_PATCHED) for key in ("path", "from") if key in operation):
            yield Cause(INVALID, f"{here}: only {_PATCHED[0][:-1]} may be patched, not {operation['path']}", here)


def spec_stays(obj: Any, old: Any, context: Context) -> list[Cause]:
    """Return what is wrong with an update: the spec is what the object was created for."""
    if get(obj, "metadata", "deletionTimestamp") or get(obj, "spec") == get(old, "spec"):
        return []
    return [Cause(INVALID, "spec in immutable after creation", "spec")]
