# SPDX-License-Identifier: GPL-3.0-or-later
"""What a DataVolume's status says (CDI API reference, DataVolumeStatus). Pure."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from turtles.api import cdi
from turtles.api.conditions import conditions_in, set_condition
from turtles.api.data_sources import CLAIM, SNAPSHOT
from turtles.api.objects import Object

UNKNOWN_PROGRESS = "N/A"


@dataclass(frozen=True)
class Running:
    """What the importer does.

    :param status: True while it works.
    :param reason: why it doesn't, in one word. :param message: for humans.
    """

    status: bool = False
    reason: str = ""
    message: str = ""


def is_copy(data_volume: Object) -> bool:
    """Say whether a DataVolume is the copy of another disk."""
    source = data_volume["spec"].get("source") or {}
    return any(source.get(kind) is not None for kind in (CLAIM, SNAPSHOT))


def status(
    data_volume: Object,
    target: Object | None,
    phase: str,
    running: Running,
    now: str,
    *,
    progress: str = UNKNOWN_PROGRESS,
    restarts: int = 0,
) -> Object:
    """Return a DataVolume's whole status.

    :param target: its claim, or None.
    """
    name = data_volume["metadata"]["name"]
    new: Object = copy.deepcopy(data_volume.get("status") or {})
    conditions = conditions_in(new)
    bound = _bound(name, target)
    if phase == cdi.SUCCEEDED:
        complete = "Clone Complete" if is_copy(data_volume) else "Import Complete"
        complete = "Upload Complete" if data_volume["spec"]["source"].get("upload") is not None else complete
        running, progress = Running(False, "Completed", complete), "100.0%"
        ready = ("True", "", "")
    elif running.status:
        ready = ("False", "TransferRunning", "")
    else:
        ready = ("False", running.reason or bound[1], "")
    for type_, (state, reason, message) in (
        (cdi.BOUND, bound),
        (cdi.RUNNING, ("True" if running.status else "False", running.reason, running.message)),
        (cdi.READY, ready),
    ):
        set_condition(conditions, type_, state, reason, message, now, probe_time=False)
    new |= {"phase": phase, "progress": progress, "restartCount": restarts}
    if target is not None:
        new["claimName"] = name
    return new


def _bound(name: str, target: Object | None) -> tuple[str, str, str]:
    if target is None:
        return "Unknown", "NotFound", "No PVC found"
    phase = (target.get("status") or {}).get("phase") or "Pending"
    if phase == "Bound":
        return "True", "Bound", f"PVC {name} Bound"
    return "False", phase, f"PVC {name} {phase}"
