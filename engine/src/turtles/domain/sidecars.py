# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hook sidecars a machine has: its own, and those of its network binding plugins. Pure."""

from collections.abc import Mapping
from typing import Any

from turtles.api.configuration import BindingPlugin
from turtles.api.hook_sidecars import HookSidecar, read
from turtles.api.kinds.vmi import interfaces


def of(vmi: Mapping[str, Any], bindings: Mapping[str, BindingPlugin]) -> tuple[HookSidecar, ...]:
    """Return all sidecars of a VMI: those that it asks for, then those of its network binding plugins.

    :param bindings: the plugins there are.
    :raises HookSidecarError: as :func:`turtles.api.hook_sidecars.read` does.
    """
    chosen = (each.get("binding") for each in interfaces.of(vmi["spec"]).values())
    named = dict.fromkeys(binding["name"] for binding in chosen if binding is not None)
    images = [bindings[name].sidecar_image for name in named if name in bindings]
    added = (HookSidecar(image, None, (), (), None, None) for image in images if image)
    return (*read(vmi["metadata"]), *added)
