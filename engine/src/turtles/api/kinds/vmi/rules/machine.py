# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about the machine as a whole: names, type, firmware, clock, strategies."""

from __future__ import annotations

import fnmatch
import uuid

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.rules.common import MAX_STRING, SERIAL, Rule
from turtles.api.language import INVALID, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec, label_problems, one_of, subdomain_problems


def _names(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    hostname, subdomain = spec.get("hostname"), spec.get("subdomain")
    if hostname and (problems := label_problems(hostname)):
        message = f"{path}.hostname does not conform to the kubernetes DNS_LABEL rules : {', '.join(problems)}"
        yield Cause(INVALID, message, f"{path}.hostname")
    if subdomain and (problems := subdomain_problems(subdomain)):
        message = f"{path}.subdomain does not conform to the kubernetes DNS_SUBDOMAIN rules : {', '.join(problems)}"
        yield Cause(INVALID, message, f"{path}.subdomain")


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


RULES: tuple[Rule, ...] = (
    _names,
    _machine,
    _firmware,
    _clock,
    _strategies,
)
