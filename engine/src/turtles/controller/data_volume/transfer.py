# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of disks of other namespaces, as pure functions.

A Pod uses claims of its own namespace only. So the copy is made beside its source, by a DataVolume there, and its
volume is handed over to a claim in the namespace that it is for (CDI's document "Namespace transfer").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from turtles.api import cdi
from turtles.api.conditions import condition_of
from turtles.api.data_sources import CopySource, copy_source
from turtles.api.kinds.data_volume import DATA_VOLUME
from turtles.api.objects import Object, controller_of, get, is_deleted
from turtles.api.phases import phase_of
from turtles.controller.data_volume.status import UNKNOWN_PROGRESS, Running

_PREFIX = "tmp-"
_IDLE = Running()
#: What of a DataVolume's spec goes for the one beside the source.
_FORM = ("pvc", "storage", "preallocation", "priorityClassName")


@dataclass(frozen=True)
class Aside:
    """What there is beside the source; None for what doesn't exist.

    :param copy: the DataVolume. :param claim: its claim. :param volume: the PersistentVolume of that.
    """

    copy: Object | None = None
    claim: Object | None = None
    volume: Object | None = None


NOTHING = Aside()


@dataclass(frozen=True)
class Move:
    """What is to happen until the copy has been handed over.

    :param create: the DataVolume to create beside the source.
    :param target: the spec of the claim to create.
    :param give: hand the volume over to that claim.
    """

    phase: str
    running: Running = _IDLE
    progress: str = UNKNOWN_PROGRESS
    create: Object | None = None
    target: Object | None = None
    give: bool = False


def source_elsewhere(data_volume: Object) -> CopySource | None:
    """Return what a DataVolume is to be a copy of, if that is in another namespace."""
    source = copy_source(data_volume)
    return source if source is not None and source.namespace != data_volume["metadata"]["namespace"] else None


def copy_name(data_volume: Object) -> str:
    """Return the name of the DataVolume beside the source."""
    return f"{_PREFIX}{data_volume['metadata']['uid']}"


def copied_for(data_volume: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return namespace, name and uid of the DataVolume that one beside a source is for; None for any other one."""
    metadata = data_volume["metadata"]
    namespace, slash, name = str((metadata.get("annotations") or {}).get(cdi.CLONE_TARGET) or "").partition("/")
    if not slash or not metadata["name"].startswith(_PREFIX):
        return None
    return namespace, name, metadata["name"].removeprefix(_PREFIX)


def copy_beside(data_volume: Object, source: CopySource) -> Object:
    """Return the DataVolume to create beside the source."""
    metadata, spec = data_volume["metadata"], data_volume["spec"]
    form = {key: spec[key] for key in _FORM if spec.get(key) is not None}
    return {
        "apiVersion": DATA_VOLUME.api_version,
        "kind": DATA_VOLUME.kind,
        "metadata": {
            "name": copy_name(data_volume),
            "namespace": source.namespace,
            "annotations": {
                cdi.BIND_IMMEDIATELY: "true",
                cdi.CLONE_TARGET: f"{metadata['namespace']}/{metadata['name']}",
            },
        },
        "spec": {"source": source.as_source(), **form},
    }


def reference_to(target: Object) -> Object:
    """Return the claimRef of a volume that is handed over to a claim."""
    metadata = target["metadata"]
    names = {key: metadata[key] for key in ("namespace", "name", "uid")}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **names}


def move(data_volume: Object, source: CopySource, aside: Aside) -> Move:
    """Decide what to do for a DataVolume whose claim isn't there: the copy is made first."""
    wanted, made = copy_beside(data_volume, source), aside.copy
    if made is None:
        return Move(cdi.CLONE_SCHEDULED, create=wanted)
    if is_deleted(made):
        return Move(cdi.CLONE_SCHEDULED)
    if copied_for(made) != copied_for({"metadata": {**wanted["metadata"]}}) or made["spec"] != wanted["spec"]:
        message = f"DataVolume {source.namespace}/{copy_name(data_volume)} belongs to something else; delete it"
        return Move(cdi.CLONE_SCHEDULED, Running(False, cdi.ERROR, message))
    phase = phase_of(made)
    if phase == cdi.SUCCEEDED:
        if why := _not_at_hand(aside):
            return Move(cdi.TRANSFER_IN_PROGRESS, Running(False, cdi.ERROR, why))
        return Move(cdi.TRANSFER_IN_PROGRESS, target=_target(aside))
    told = condition_of(made, cdi.RUNNING) or {}
    running = Running(told.get("status") == "True", told.get("reason") or "", told.get("message") or "")
    progress = get(made, "status", "progress") or UNKNOWN_PROGRESS
    return Move(phase or cdi.CLONE_SCHEDULED, running, progress)


def hand_over(target: Object, aside: Aside) -> Move:
    """Decide what to do for a claim that names the volume of a copy, which doesn't name it so far.

    :param target: the claim.
    """
    held = get(aside.volume, "spec", "claimRef") or {}
    if held.get("uid") == target["metadata"]["uid"]:
        return Move(cdi.TRANSFER_IN_PROGRESS)
    if why := _not_at_hand(aside):
        return Move(cdi.TRANSFER_IN_PROGRESS, Running(False, cdi.ERROR, why))
    return Move(cdi.TRANSFER_IN_PROGRESS, give=True)


def _not_at_hand(aside: Aside) -> str:
    """Return why the volume of a complete copy can't be handed over; empty if it can."""
    copy, claim, volume = aside.copy, aside.claim, aside.volume
    uid = get(copy, "metadata", "uid")
    if copy is None or claim is None or volume is None or (controller_of(claim) or {}).get("uid") != uid:
        return "the intermediate copy or its claim is gone; delete the DataVolume and create it again"
    if get(volume, "spec", "claimRef", "uid") != claim["metadata"]["uid"]:
        name = volume["metadata"]["name"]
        return f"PersistentVolume {name} no longer belongs to the copy's claim; delete the DataVolume"
    return ""


def _target(aside: Aside) -> Object:
    """Return the spec of the claim that a volume is handed over to: like that of the claim that has it."""
    claim = aside.claim or {}
    fields = ("accessModes", "volumeMode", "resources", "storageClassName", "volumeName")
    return {key: claim["spec"][key] for key in fields if claim["spec"].get(key) is not None}
