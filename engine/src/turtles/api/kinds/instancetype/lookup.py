# SPDX-License-Identifier: GPL-3.0-or-later
"""The instance type, preference, or revision of one, that counts for a VirtualMachine."""

from __future__ import annotations

import base64
import json
from typing import Any

from turtles.api import labels
from turtles.api.kind import Missing
from turtles.api.kinds.instancetype.matchers import REVISION, Find, Matcher, label_value, namespace_of
from turtles.api.objects import Object, get


def find_spec(vm: Object, matcher: Matcher, find: Find) -> Object | None:
    """Return the spec that counts for a VirtualMachine; None if its matcher names nothing.

    :raises Missing: it doesn't exist, or is no such object.
    """
    if (revision := find_revision(vm, matcher, find)) is not None:
        return revision_spec(revision, matcher)
    obj = find_object(vm, matcher, find)
    return None if obj is None else dict(obj["spec"])


def find_object(vm: Object, matcher: Matcher, find: Find) -> Object | None:
    """Return the object that a VirtualMachine's matcher names; None if it names none.

    :raises Missing: it doesn't exist.
    """
    wanted = matcher.of(vm)
    if wanted is None:
        return None
    kind = matcher.kind_of(wanted)
    return find(kind, namespace_of(vm) if kind == matcher.kind else "", wanted.get("name") or "")


def find_revision(vm: Object, matcher: Matcher, find: Find) -> Object | None:
    """Return the ControllerRevision that counts for a VirtualMachine instead of the object; None if there is none.

    :raises Missing: it is named and doesn't exist.
    """
    wanted = matcher.of(vm)
    if wanted is None:
        return None
    if named := wanted.get("revisionName"):
        return find(REVISION, namespace_of(vm), named)
    in_use = get(vm, "status", matcher.reference, "controllerRevisionRef", "name")
    if not in_use:
        return None
    revision = find(REVISION, namespace_of(vm), in_use)
    of = get(revision, "metadata", "labels") or {}
    named = (label_value(wanted.get("name") or ""), matcher.kind_of(wanted))
    return revision if (of.get(labels.REVISION_OF_NAME), of.get(labels.REVISION_OF_KIND)) == named else None


def revision_spec(revision: Object, matcher: Matcher) -> Object:
    """Return the spec of which a ControllerRevision is a copy.

    :raises Missing: it is a copy of something else.
    """
    spec = _of_first_versions(get(revision, "data", "spec"))
    if causes := matcher.validate({"spec": spec}):
        name = revision["metadata"]["name"]
        raise Missing(f'ControllerRevision "{name}" holds no {matcher.kind}: {causes[0].message}')
    return dict(spec)


def _of_first_versions(spec: Any) -> Any:
    """Return the spec in a ControllerRevision: KubeVirt's first ones, of v1alpha1, hold it as bytes."""
    if not isinstance(spec, str):
        return spec
    try:
        return json.loads(base64.b64decode(spec, validate=True))
    except (ValueError, RecursionError):
        return spec
