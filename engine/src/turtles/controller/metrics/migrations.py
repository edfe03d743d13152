# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of live migrations: how many are under way, how each ended, and when. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from turtles.api import migrations
from turtles.api.phases import phase_of
from turtles.api.times import parse_time
from turtles.controller.metrics.common import NONE
from turtles.metrics import Description, Sample

_SUCCEEDED, _FAILED = "kubevirt_vmi_migration_succeeded", "kubevirt_vmi_migration_failed"
_START, _END = "kubevirt_vmi_migration_start_time_seconds", "kubevirt_vmi_migration_end_time_seconds"
#: Gauges by the phases that they count. The empty phase is that of migrations nobody has looked at.
_COUNTED = {
    "unset": ("",),
    "pending": (migrations.PENDING,),
    "scheduling": (migrations.SCHEDULING,),
    "running": migrations.HANDED_OFF,
}

DESCRIPTIONS = (
    *(
        Description(f"kubevirt_vmi_migrations_in_{word}_phase", f"Number of current {word} migrations.")
        for word in _COUNTED
    ),
    Description(_SUCCEEDED, "Indicates if the VMI migration succeeded."),
    Description(_FAILED, "Indicates if the VMI migration failed."),
    Description(_START, "The time at which the migration started."),
    Description(_END, "The time at which the migration ended."),
)


def samples(listed: Sequence[Mapping[str, Any]], vmis: Sequence[Mapping[str, Any]]) -> Iterator[Sample]:
    """Return the samples of all migrations.

    :param listed: the VirtualMachineInstanceMigrations that there are.
    :param vmis: instances, whose ``status.migrationState`` has the times of the last migration.
    """
    phases = Counter(phase_of(migration) for migration in listed)
    for word, counted in _COUNTED.items():
        yield Sample(f"kubevirt_vmi_migrations_in_{word}_phase", {}, float(sum(phases[phase] for phase in counted)))
    for migration in listed:
        name = {migrations.SUCCEEDED: _SUCCEEDED, migrations.FAILED: _FAILED}.get(phase_of(migration))
        if name is not None:
            metadata = migration["metadata"]
            labels = {
                "vmi": migration["spec"].get("vmiName") or "",
                "vmim": metadata["name"],
                "namespace": metadata["namespace"],
            }
            yield Sample(name, labels, 1.0)
    names = {migration["metadata"]["uid"]: migration["metadata"]["name"] for migration in listed}
    for vmi in vmis:
        yield from _times(vmi, names)


def _times(vmi: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[Sample]:
    """Yield when an instance's last migration began and ended.

    :param names: of migrations, by uid.
    """
    state = migrations.state_of(vmi)
    labels = (
        {
            "node": vmi["status"].get("nodeName") or "",
            "namespace": vmi["metadata"]["namespace"],
            "name": vmi["metadata"]["name"],
            "migration_name": names.get(state.get("migrationUid") or "", NONE),
        }
        if state
        else {}
    )
    if start := parse_time(state.get("startTimestamp")):
        yield Sample(_START, labels, start.timestamp())
    if end := parse_time(state.get("endTimestamp")):
        yield Sample(_END, {**labels, "status": "failed" if state.get("failed") else "succeeded"}, end.timestamp())
