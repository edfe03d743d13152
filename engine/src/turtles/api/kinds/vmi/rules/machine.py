# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about the machine itself: names, memory, processors, firmware, clock, strategies, small devices."""

from __future__ import annotations

import fnmatch
import uuid

from turtles.api import quantity
from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.rules.common import MAX_STRING, SERIAL, Rule
from turtles.api.language import INVALID, NOT_SUPPORTED, REQUIRED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec, label_problems, one_of, subdomain_problems

_MIN_MEMORY = 10**6


def _names(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    hostname, subdomain = spec.get("hostname"), spec.get("subdomain")
    if hostname and (problems := label_problems(hostname)):
        message = f"{path}.hostname does not conform to the kubernetes DNS_LABEL rules : {', '.join(problems)}"
        yield Cause(INVALID, message, f"{path}.hostname")
    if subdomain and (problems := subdomain_problems(subdomain)):
        message = f"{path}.subdomain does not conform to the kubernetes DNS_SUBDOMAIN rules : {', '.join(problems)}"
        yield Cause(INVALID, message, f"{path}.subdomain")


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


def _machine(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    machine = get(spec, "domain", "machine", "type")
    patterns = config.emulated_machines
    if machine and not any(fnmatch.fnmatchcase(machine, pattern) for pattern in patterns):
        here = f"{path}.domain.machine.type"
        message = f"{here} is not supported: {machine} (allowed values: [{' '.join(patterns)}])"
        yield Cause(INVALID, message, here)
    architecture = spec.get("architecture")
    if architecture and architecture != config.architecture:
        yield Cause(INVALID, f"unsupported architecture: {architecture}", f"{path}.architecture")


def _firmware(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    firmware = get(spec, "domain", "firmware") or {}
    serial = firmware.get("serial")
    here = f"{path}.domain.firmware.serial"
    if serial and len(serial) > MAX_STRING:
        yield Cause(INVALID, f"{here} must be less than or equal to {MAX_STRING} in length, if specified", here)
    if serial and not SERIAL.fullmatch(serial):
        message = f"{here} must be made up of the following characters [A-Za-z0-9_.+-], if specified"
        yield Cause(INVALID, message, here)
    if firmware.get("uuid"):
        try:
            uuid.UUID(firmware["uuid"])
        except ValueError:
            here = f"{path}.domain.firmware.uuid"
            yield Cause(INVALID, f"{here} must be a UUID, if specified", here)


def _clock(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    clock = get(spec, "domain", "clock") or {}
    here = f"{path}.domain.clock"
    if clock.get("utc") is not None and clock.get("timezone") is not None:
        yield Cause(INVALID, f"{here} must have only one of utc and timezone set", here)
    policies = {
        "hpet": ("delay", "catchup", "merge", "discard"),
        "pit": ("delay", "catchup", "discard"),
        "rtc": ("delay", "catchup"),
    }
    for name, allowed in policies.items():
        timer = get(clock, "timer", name) or {}
        yield from one_of(timer.get("tickPolicy"), f"{here}.timer.{name}.tickPolicy", allowed)
        yield from one_of(timer.get("track"), f"{here}.timer.{name}.track", ("guest", "wall"))


def _strategies(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    allowed = {
        "evictionStrategy": ("None", "LiveMigrate", "LiveMigrateIfPossible", "External"),
        "startStrategy": ("Paused",),
    }
    for name, values in allowed.items():
        value = spec.get(name)
        if value is not None and value not in values:
            here = f"{path}.{name}"
            yield Cause(INVALID, f"{here} is set with an unrecognized option: {value}", here)
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        here = f"{path}.terminationGracePeriodSeconds"
        yield Cause(INVALID, f"{here} '{grace}': must be greater than or equal to 0.", here)


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


RULES: tuple[Rule, ...] = (
    _names,
    _resources,
    _guest_memory,
    _machine,
    _firmware,
    _cpu_features,
    _clock,
    _strategies,
    _boot_order,
    _inputs,
    _watchdog,
)
