# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about small devices."""

from __future__ import annotations

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.language import INVALID, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec, one_of


def _inputs(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, device in enumerate(get(spec, "domain", "devices", "inputs") or ()):
        here = f"{path}.domain.devices.inputs[{index}]"
        if (device.get("bus") or "usb") not in ("virtio", "usb"):
            yield Cause(INVALID, "Input device can have only virtio or usb bus.", f"{here}.bus")
        if device["type"] != "tablet":
            yield Cause(INVALID, "Input device can have only tablet type.", f"{here}.type")


def _watchdog(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    action = get(spec, "domain", "devices", "watchdog", "i6300esb", "action")
    here = f"{path}.domain.devices.watchdog.i6300esb.action"
    yield from one_of(action, here, ("poweroff", "reset", "shutdown"))


RULES: tuple[Rule, ...] = (
    _inputs,
    _watchdog,
)
