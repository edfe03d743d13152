# SPDX-License-Identifier: GPL-3.0-or-later
"""What a new VirtualMachineInstance gets from the presets that select it.

A preset gives whole parts of a domain, each only where the machine has nothing of that part. Where both have it and
differ, the machine keeps its own; the preset's other parts are given all the same. Presets that differ from each other
in a part can't both be meant: the machine is refused.

Rules: KubeVirt user guide, "Presets".
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from turtles.api import labels, quantity
from turtles.api.kind import GROUP, Refusal
from turtles.api.objects import Object, get
from turtles.api.selectors import selector_causes, selects

#: The kind of the objects that are applied.
PRESET = "VirtualMachineInstancePreset"
_DEPRECATED = "kubevirt.io/v1 VirtualMachineInstancePresets is now deprecated and will be removed in v2."
#: The version that the mark of a preset names: upstream's own, whatever version the preset was written in.
_MARK = f"{GROUP}/v1"


@dataclass(frozen=True)
class _Part:
    """A part of a domain that is given as a whole.

    :param name: how messages call it.
    :param path: of the object that holds it, below the domain.
    :param keys: of what it consists there.
    """

    name: str
    path: tuple[str, ...]
    keys: tuple[str, ...]

    def of(self, domain: Object) -> Object | None:
        """Return the part of a domain; None if it has nothing of it."""
        holder = get(domain, *self.path) if self.path else domain
        found = {key: holder[key] for key in self.keys if holder.get(key) is not None} if holder else {}
        return found or None

    def give(self, domain: Object, part: Object) -> None:
        """Set the part in a domain."""
        holder = domain
        for key in self.path:
            holder[key] = holder.get(key) or {}
            holder = holder[key]
        holder.update(copy.deepcopy(part))


_REQUESTS = _Part("resources.requests", ("resources",), ("requests",))
_OFFSET = _Part("clock.clockoffset", ("clock",), ("utc", "timezone"))
_PARTS = (
    _REQUESTS,
    _Part("cpu", (), ("cpu",)),
    _Part("firmware", (), ("firmware",)),
    _OFFSET,
    _Part("clock.timer", ("clock",), ("timer",)),
    _Part("features", (), ("features",)),
    _Part("devices.watchdog", ("devices",), ("watchdog",)),
    _Part("ioThreadsPolicy", (), ("ioThreadsPolicy",)),
)


def apply_presets(vmi: Object, presets: Sequence[Object]) -> None:
    """Apply the presets of its namespace to a new VirtualMachineInstance, in place.

    Those of which it then has a part are marked in its annotations.

    :raises Refusal: presets that select it contradict each other; the message has the names of all that do.
    """
    annotations = get(vmi, "metadata", "annotations") or {}
    if annotations.get(labels.EXCLUDE_PRESETS) == "true":
        return
    own = get(vmi, "metadata", "labels") or {}
    chosen = [preset for preset in presets if _is_for(preset["spec"], own)]
    chosen.sort(key=lambda preset: str(preset["metadata"]["name"]))
    _refuse_contradictions(chosen)
    for preset in chosen:
        if _merge(preset["spec"]["domain"], vmi["spec"]["domain"]):
            annotations = {**annotations, labels.PRESET_MARK_PREFIX + preset["metadata"]["name"]: _MARK}
            vmi["metadata"]["annotations"] = annotations


def preset_warnings(vmi: Object) -> list[str]:
    """Return the warning about a VirtualMachineInstance that depends on presets."""
    annotations = get(vmi, "metadata", "annotations") or {}
    return [_DEPRECATED] if any(key.startswith(labels.PRESET_MARK_PREFIX) for key in annotations) else []


def _is_for(spec: Object, own: Object) -> bool:
    """Say whether a preset is for a machine with these labels. One that was stored with faults is for none."""
    selector = spec.get("selector")
    return spec.get("domain") is not None and not selector_causes(selector, "") and selects(selector, own)


def _merge(preset: Object, domain: Object) -> bool:
    """Set the parts that a domain lacks; say whether it now has any part as the preset has it."""
    marked = False
    clock = domain.get("clock")
    for part in _PARTS:
        wanted = part.of(preset)
        # An offset is given only where there is no clock at all: one with timers alone means UTC.
        lacks = clock is None if part is _OFFSET else part.of(domain) is None
        if wanted and lacks:
            part.give(domain, wanted)
        marked |= wanted is not None and _same(part, wanted, part.of(domain))
    return marked


def _refuse_contradictions(presets: Sequence[Object]) -> None:
    found = []
    for first, second in combinations(presets, 2):
        if differences := list(_contradictions(second["spec"]["domain"], first["spec"]["domain"])):
            names = f"presets '{second['metadata']['name']}' and '{first['metadata']['name']}' conflict"
            found.append(f"{names}: {_listed(differences)}")
    if found:
        raise Refusal(f"VirtualMachinePresets cannot be applied due to conflicts: {_listed(found)}")


def _contradictions(one: Object, other: Object) -> Iterator[str]:
    for part in _PARTS:
        mine, theirs = part.of(one), part.of(other)
        if part is _OFFSET and one.get("clock") is not None and other.get("clock") is not None:
            mine, theirs = mine or {}, theirs or {}
        if mine is None or theirs is None:
            continue
        if part is _REQUESTS:
            yield from _request_contradictions(mine["requests"], theirs["requests"])
        elif mine != theirs:
            yield f"spec.{part.name}: {_shown(part, mine)} != {_shown(part, theirs)}"


def _request_contradictions(mine: Object, theirs: Object) -> Iterator[str]:
    for key in sorted(mine.keys() & theirs.keys()):
        if quantity.parse(mine[key]) != quantity.parse(theirs[key]):
            yield f"spec.resources.requests[{key}]: {mine[key]} != {theirs[key]}"


def _same(part: _Part, one: Object | None, other: Object | None) -> bool:
    if part is _REQUESTS and one and other:
        mine, theirs = (
            {key: quantity.parse(value) for key, value in each["requests"].items()} for each in (one, other)
        )
        return mine == theirs
    return one == other


def _shown(part: _Part, value: Object) -> str:
    shown: Any = value[part.keys[0]] if len(part.keys) == 1 else value
    return json.dumps(shown, sort_keys=True)


def _listed(messages: Sequence[str]) -> str:
    """Return messages as one, as Kubernetes puts several errors together."""
    return messages[0] if len(messages) == 1 else f"[{', '.join(messages)}]"
