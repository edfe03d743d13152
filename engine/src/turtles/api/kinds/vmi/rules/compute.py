# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about processors, memory, and what the Pod requests for them."""

from __future__ import annotations

from turtles.api import quantity
from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.language import INVALID, NOT_SUPPORTED, REQUIRED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec

_MIN_MEMORY = 10**6


def _resources(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    requests = get(spec, "domain", "resources", "requests") or {}
    limits = get(spec, "domain", "resources", "limits") or {}
    where = f"{path}.domain.resources"
    for kind, values in (("requests", requests), ("limits", limits)):
        for name in ("memory", "cpu"):
            here = f"{where}.{kind}.{name}"
            amount = quantity.parse(values.get(name, 0))
            if amount < 0:
                yield Cause(INVALID, f"{here} '{values[name]}': must be greater than or equal to 0.", here)
            elif name == "memory" and kind == "requests" and 0 < amount < _MIN_MEMORY:
                yield Cause(INVALID, f"{here} '{values[name]}': must be greater than or equal to 1M.", here)
    for name in ("memory", "cpu"):
        limit = quantity.parse(limits.get(name, 0))
        if limit > 0 and quantity.parse(requests.get(name, 0)) > limit:
            here = f"{where}.requests.{name}"
            message = f"{here} '{requests[name]}' is greater than {where}.limits.{name} '{limits[name]}'"
            yield Cause(INVALID, message, here)


def _guest_memory(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    guest = get(spec, "domain", "memory", "guest")
    if guest is None:
        return
    here = f"{path}.domain.memory.guest"
    amount = quantity.parse(guest)
    if amount < _MIN_MEMORY:
        yield Cause(INVALID, f"{here} '{guest}': must be greater than or equal to 1M.", here)
    limit = get(spec, "domain", "resources", "limits", "memory")
    if limit is not None and 0 < quantity.parse(limit) < amount:
        message = f"{here} '{guest}' must be equal to or less than the memory limit "
        yield Cause(INVALID, f"{message}{path}.domain.resources.limits.memory '{limit}'", here)


def no_memory(spec: Spec, path: str) -> Causes:
    """Tell if nothing says how much memory the machine has. A template may leave that to its instances."""
    requested = get(spec, "domain", "resources", "requests", "memory")
    limit = get(spec, "domain", "resources", "limits", "memory")
    guest = get(spec, "domain", "memory", "guest")
    if guest is None and not any(amount and quantity.parse(amount) for amount in (requested, limit)):
        message = (
            f"no memory requested, at least one of '{path}.domain.memory.guest', "
            f"'{path}.domain.memory.hugepages.pageSize' or '{path}.domain.resources.requests.memory' must be set"
        )
        yield Cause(REQUIRED, message, f"{path}.domain.memory.guest")


def _cpu_features(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, feature in enumerate(get(spec, "domain", "cpu", "features") or ()):
        policy = feature.get("policy") or ""
        if policy not in ("", "force", "require", "optional", "disable", "forbid"):
            message = f"CPU feature {feature['name']} uses policy {policy} that is not supported."
            yield Cause(NOT_SUPPORTED, message, f"{path}.domain.cpu.features[{index}].policy")


RULES: tuple[Rule, ...] = (
    _resources,
    _guest_memory,
    _cpu_features,
)
