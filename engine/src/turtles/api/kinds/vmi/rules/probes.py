# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about probes."""

from __future__ import annotations

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.kinds.vmi.rules.network import has_pod_network
from turtles.api.language import INVALID, REQUIRED, Cause
from turtles.api.rules import Causes, Spec

_PROBES = ("readinessProbe", "livenessProbe")
_HANDLERS = ("httpGet", "tcpSocket", "exec", "guestAgentPing")


def _handlers(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for name in _PROBES:
        probe = spec.get(name)
        if probe is None:
            continue
        here = f"{path}.{name}"
        count = sum(probe.get(handler) is not None for handler in _HANDLERS)
        if count > 1:
            yield Cause(INVALID, f"{here} must have exactly one probe type set", here)
        elif count < 1:
            message = f"either {here}.tcpSocket, {here}.exec or {here}.httpGet must be set if a {here} is specified"
            yield Cause(REQUIRED, message, here)


def _pod_network(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    if has_pod_network(spec):
        return
    for name in _PROBES:
        for handler in ("httpGet", "tcpSocket"):
            if (spec.get(name) or {}).get(handler) is not None:
                here = f"{path}.{name}.{handler}"
                yield Cause(INVALID, f"{here} is only allowed if the Pod Network is attached", here)


RULES: tuple[Rule, ...] = (_handlers, _pod_network)
