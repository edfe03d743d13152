# SPDX-License-Identifier: GPL-3.0-or-later
"""What a preference requires of the machines that name it. Messages are those of the KubeVirt API."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from turtles.api import quantity
from turtles.api.kinds.preference import topology
from turtles.api.language import NOT_FOUND, Cause
from turtles.api.objects import get
from turtles.api.rules import Spec

_CPU = "spec.template.spec.domain.cpu"
#: Which fields make the vCPUs of a machine without an instance type, by how they are spread, and how messages put it.
_SPREADS = {
    topology.SOCKETS_CORES: ("sockets", "cores"),
    topology.CORES_THREADS: ("cores", "threads"),
    topology.SOCKETS_CORES_THREADS: ("sockets", "cores", "threads"),
}


def requirement_cause(instancetype: Spec | None, preference: Spec | None, spec: Spec) -> Cause | None:
    """Return the first requirement of a preference that a machine doesn't meet; None if it meets all.

    :param spec: of the machine's template, with its defaults.
    """
    required = (preference or {}).get("requirements") or {}
    for field, message in _unmet(required, instancetype, preference, spec):
        return Cause(NOT_FOUND, f"failure checking preference requirements: {message}", field)
    return None


def _unmet(required: Spec, instancetype: Spec | None, preference: Spec | None, spec: Spec) -> Iterator[tuple[str, str]]:
    if required.get("cpu") is not None:
        yield from _cpu(required["cpu"]["guest"], instancetype, preference, spec)
    if required.get("memory") is not None:
        yield from _memory(required["memory"]["guest"], instancetype, spec)
    architecture = required.get("architecture")
    if architecture is not None and spec.get("architecture") != architecture:
        message = (
            f"preference requires architecture {architecture} but {spec.get('architecture') or ''} is being requested"
        )
        yield "spec.template.spec.architecture", message


def _cpu(vcpus: int, instancetype: Spec | None, preference: Spec | None, spec: Spec) -> Iterator[tuple[str, str]]:
    if instancetype is not None:
        provided = instancetype["cpu"]["guest"]
        if provided < vcpus:
            message = (
                f"insufficient CPU resources of {provided} vCPU provided by instance type, preference requires "
                f"{vcpus} vCPU"
            )
            yield "spec.instancetype", message
        return
    cpu = get(spec, "domain", "cpu")
    if cpu is None:
        yield _CPU, f"no CPU resources provided by VirtualMachine, preference requires {vcpus} vCPU"
        return
    wanted = topology.preferred_topology(preference)
    if wanted == topology.SPREAD:
        _, word = topology.spread_options(preference)
        parts = _SPREADS[word]
    elif wanted == topology.ANY:
        parts, word = ("cores", "sockets", "threads"), "cores, sockets and threads"
    else:
        parts, word = (wanted,), wanted
    provided = prod(cpu.get(part) or 0 for part in parts)
    if provided < vcpus:
        message = (
            f"insufficient CPU resources of {provided} vCPU provided by VirtualMachine, preference requires {vcpus} "
            f"vCPU provided as {word}"
        )
        yield ", ".join(f"{_CPU}.{part}" for part in parts), message


def _memory(guest: Any, instancetype: Spec | None, spec: Spec) -> Iterator[tuple[str, str]]:
    if instancetype is not None:
        provided, field, whose = instancetype["memory"]["guest"], "spec.instancetype", "instance type"
    else:
        provided = get(spec, "domain", "memory", "guest") or 0
        field, whose = "spec.template.spec.domain.memory", "VirtualMachine"
    if quantity.parse(provided) < quantity.parse(guest):
        message = (
            f"insufficient Memory resources of {_text(provided)} provided by {whose}, preference requires "
            f"{_text(guest)}"
        )
        yield field, message


def _text(value: Any) -> str:
    return quantity.format_like(quantity.to_int(value), value)
