# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose an object is among those that a selector chooses: own, to adopt, to release. Pure.

Rule: Kubernetes documentation, "Garbage Collection", and its controllers' handling of controller references.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from turtles.api.objects import Object, controller_of, is_deleted, labels_of, owner_reference
from turtles.api.selectors import selects


@dataclass(frozen=True)
class Claims:
    """The objects that have to do with an owner.

    :param own: it controls them, and selects them.
    :param orphans: it selects them, and nothing controls them: to be adopted.
    :param strays: it controls them, and doesn't select them any more: to be released.
    """

    own: list[Object] = field(default_factory=list)
    orphans: list[Object] = field(default_factory=list)
    strays: list[Object] = field(default_factory=list)


def claims(owner: Object, objects: Iterable[Object]) -> Claims:
    """Sort the objects of the owner's namespace; its `spec.selector` says which it selects."""
    claimed = Claims()
    for obj in objects:
        controller = controller_of(obj)
        selected = selects(owner["spec"]["selector"], labels_of(obj))
        if controller is not None and controller.get("uid") == owner["metadata"]["uid"]:
            (claimed.own if selected else claimed.strays).append(obj)
        elif controller is None and selected and not is_deleted(obj) and not is_deleted(owner):
            claimed.orphans.append(obj)
    return claimed


def references_with(obj: Object, owner: Object) -> list[Object]:
    """Return an object's owner references once the owner has adopted it."""
    return [*(obj["metadata"].get("ownerReferences") or ()), owner_reference(owner)]


def references_without(obj: Object, owner: Object) -> list[Object]:
    """Return an object's owner references once the owner has released it."""
    uid = owner["metadata"]["uid"]
    return [each for each in obj["metadata"].get("ownerReferences") or () if each.get("uid") != uid]
