# SPDX-License-Identifier: GPL-3.0-or-later
"""What instance types and preferences share: the group, and that each is two kinds, for one namespace and for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from turtles.api.kind import CREATE, MANAGED_BY_USERS, UPDATE, Context, Kind, Version, Webhook
from turtles.api.language import Cause, Struct, field

GROUP = "instancetype.kubevirt.io"
_VERSIONS = (Version("v1beta1", storage=True),)


def chosen_kind(
    name: str,
    doc: str,
    short_names: tuple[str, ...],
    spec: Struct,
    *,
    namespaced: bool,
    validate: Callable[[Any, Context], list[Cause]],
    warn: Callable[[Any], list[str]],
) -> Kind:
    """Return a kind whose objects VirtualMachines name.

    :param spec: its fields.
    """
    singular = name.lower()
    return Kind(
        kind=name,
        plural=f"{singular}s",
        group=GROUP,
        versions=_VERSIONS,
        namespaced=namespaced,
        short_names=short_names,
        categories=("all",) if namespaced else (),
        schema=Struct(doc, field("spec", spec, spec.doc, required=True)),
        rights=MANAGED_BY_USERS,
        webhooks=(Webhook(f"{singular}-validator.instancetype", f"/{singular}s-validate", (CREATE, UPDATE)),),
        validate=validate,
        warn=warn,
    )
