# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds that the engine serves: a module or package for each says everything about it.

A module that is added here is served. Its tuple `KINDS` has the kind; several if they differ in their scope only.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from turtles.api.kind import Kind


def _kinds() -> tuple[Kind, ...]:
    modules = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    kinds: list[Kind] = [kind for module in modules for kind in module.KINDS]
    return tuple(sorted(kinds, key=lambda kind: (kind.group, kind.kind)))


#: All kinds, by group and name.
KINDS = _kinds()


def read_by_others() -> tuple[Kind, ...]:
    """Return the kinds of which another reads objects while its own get their defaults (`Kind.reads`)."""
    names = {name for kind in KINDS for name in kind.reads}
    return tuple(kind for kind in KINDS if kind.kind in names)
