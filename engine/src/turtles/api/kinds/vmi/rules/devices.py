# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about small devices, and the order in which devices are booted."""

from __future__ import annotations

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.language import INVALID, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec, one_of


def _boot_order(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    seen: set[int] = set()
    for kind in ("disks", "interfaces"):
        for index, device in enumerate(get(spec, "domain", "devices", kind) or ()):
            order = device.get("bootOrder")
            if order is None:
                continue
            here = f"{path}.domain.devices.{kind}[{index}]"
            if order < 1:
                yield Cause(INVALID, f"{here} must have a boot order > 0, if supplied", f"{here}.bootOrder")
            elif order in seen:
                message = f"Boot order for {here}.bootOrder already set for a different device."
                yield Cause(INVALID, message, f"{here}.bootOrder")
            seen.add(order)


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
    _boot_order,
    _inputs,
    _watchdog,
)
