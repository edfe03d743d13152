# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs of components become the steps of one virtual machine. Pure functions on lines of text.

Every component logs JSON objects that name what they are about (see :mod:`turtles.log`): a VirtualMachine, a
VirtualMachineInstance, or a Pod.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

#: What begins a start: the first of these steps that the latest start has. A machine that was restarted has several.
_BEGINNINGS = ("VMI created", "Pod created")
#: Facts that every step of a trace shares, or that say who logged it.
_COMMON = frozenset({"timestamp", "level", "component", "msg", "namespace", "vm", "vmi", "uid"})
#: Characters of an instance's name that the name of its Pod has for certain.
_KEPT = 200


@dataclass(frozen=True)
class Step:
    """Something that a component logged.

    :param time: seconds since the epoch.
    :param facts: what it said besides, such as the name of a Pod.
    """

    time: float
    component: str
    message: str
    facts: Mapping[str, Any]

    def text(self) -> str:
        """Return what happened, in one line."""
        return " ".join([self.message, *(f"{key}={value}" for key, value in self.facts.items())])


def steps_of(namespace: str, name: str, lines: Iterable[str]) -> list[Step]:
    """Return what lines of logs say about a virtual machine, in the order of time.

    :param lines: of any components, in any order; those that aren't JSON objects, or are about others, don't count.
    """
    entries = [entry for line in lines if name[:_KEPT] in line and (entry := _parsed(line)) is not None]
    # Which Pods are its own, virt-controller says when it creates them.
    own = [entry for entry in entries if _names(namespace, name, entry)]
    pods = {entry["pod"] for entry in own if "pod" in entry}
    steps = (_step(entry) for entry in entries if _names(namespace, name, entry) or _is_of(namespace, pods, entry))
    return sorted((step for step in steps if step is not None), key=lambda step: step.time)


def latest_start(steps: Sequence[Step]) -> list[Step]:
    """Return the steps from the beginning of the latest start on; none if it isn't among them."""
    for beginning in _BEGINNINGS:
        for index in range(len(steps) - 1, -1, -1):
            if steps[index].message == beginning:
                return list(steps[index:])
    return []


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _names(namespace: str, name: str, entry: Mapping[str, Any]) -> bool:
    """Say whether an entry names the machine or its instance."""
    if entry.get("vmi") == f"{namespace}/{name}":
        return True
    return entry.get("namespace") == namespace and name in (entry.get("vm"), entry.get("vmi"))


def _is_of(namespace: str, pods: Collection[str], entry: Mapping[str, Any]) -> bool:
    """Say whether an entry is about one of these Pods."""
    return entry.get("namespace") == namespace and entry.get("pod") in pods


def _step(entry: Mapping[str, Any]) -> Step | None:
    try:
        time = datetime.fromisoformat(entry["timestamp"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None
    facts = {key: value for key, value in entry.items() if key not in _COMMON}
    return Step(time, str(entry.get("component")), str(entry.get("msg")), facts)
