# SPDX-License-Identifier: GPL-3.0-or-later
"""What a DataSource's status and labels say (CDI API reference, DataSourceStatus). Pure."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from turtles.api import cdi
from turtles.api.conditions import conditions_in, set_condition
from turtles.api.data_sources import CLAIM, CopySource, Find, Unresolved, resolve
from turtles.api.objects import Object, get
from turtles.api.phases import phase_of


@dataclass(frozen=True)
class Disk:
    """What there is of a disk; None for what doesn't exist.

    :param obj: the claim or the VolumeSnapshot. :param data_volume: the one that fills the claim.
    """

    obj: Object | None = None
    data_volume: Object | None = None


def source_of(data_source: Object, find: Find) -> CopySource | Unresolved:
    """Return what a DataSource leads to, or why it leads to nothing."""
    try:
        return resolve(data_source, find)
    except Unresolved as error:
        return error


def status(data_source: Object, source: CopySource | Unresolved, disk: Disk, now: str) -> Object:
    """Return a DataSource's whole status.

    :param source: what it leads to. :param disk: what there is of that. :param now: as the API writes it.
    """
    new: Object = copy.deepcopy(data_source.get("status") or {})
    if isinstance(source, Unresolved):
        new.pop("source", None)
        state = ("False", source.reason, str(source))
    else:
        new["source"] = source.as_source()
        state = _readiness(source, disk)
    set_condition(conditions_in(new), cdi.READY, *state, now, probe_time=False)
    return new


def _readiness(source: CopySource, disk: Disk) -> tuple[str, str, str]:
    if disk.obj is None:
        return "False", "NotFound", "PVC not found" if source.kind == CLAIM else "Snapshot not found"
    if source.kind != CLAIM and not get(disk.obj, "status", "readyToUse"):
        return "False", "SnapshotNotReady", "Snapshot is not ready to use"
    if disk.data_volume is not None and not cdi.is_populated(disk.data_volume):
        phase = phase_of(disk.data_volume) or cdi.PENDING
        return "False", phase, f"Import DataVolume phase {phase}"
    return "True", "Ready", "DataSource is ready to be consumed"
