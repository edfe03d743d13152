# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.domain import migration
from turtles.domain.migration import Progress, Settings, Verdict

GIB = 1 << 30
XML = """<domain><devices>
<disk><source file="/var/run/kubevirt-ephemeral-disks/disk-data/root/disk.qcow2"/><target dev="vda"/></disk>
<disk><source file="/var/run/kubevirt-private/vmi-disks/data/disk.img"/><target dev="vdb"/></disk>
<disk><source file="/var/run/kubevirt-ephemeral-disks/cloud-init-data/s/x.iso"/><target dev="vdc"/><readonly/></disk>
<disk device="cdrom"><target dev="sda"/></disk>
</devices></domain>"""


@pytest.mark.parametrize(
    ("how", "elapsed", "stuck", "mode", "verdict"),
    [
        (Settings(), 10, 0, "PreCopy", Verdict.GO_ON),
        (Settings(), 151, 0, "PreCopy", Verdict.ABORT),
        (Settings(), 149, 151, "PreCopy", Verdict.ABORT),
        (Settings(post_copy=True, disruption=True), 151, 0, "PreCopy", Verdict.POST_COPY),
        (Settings(disruption=True), 151, 0, "PreCopy", Verdict.PAUSE),
        (Settings(disruption=True), 200, 0, "Paused", Verdict.GO_ON),
        (Settings(disruption=True), 200, 151, "Paused", Verdict.ABORT),
        # Neither side has all of the memory any more
        (Settings(post_copy=True), 9999, 9999, "PostCopy", Verdict.GO_ON),
    ],
)
def test_when_a_migration_is_given_up(how: Settings, elapsed: float, stuck: float, mode: str, verdict: Verdict) -> None:
    found, why = migration.judge(how, Progress(1, 1000 - stuck), elapsed, 1000, mode)
    assert (found, bool(why)) == (verdict, verdict is Verdict.ABORT)


def test_progress_is_what_is_left_becoming_less() -> None:
    progress = Progress(100 << 20, 1.0)
    assert progress.seen(100 << 20, 5.0).since == progress.seen(200 << 20, 5.0).since == 1.0
    assert progress.seen(50 << 20, 5.0) == Progress(50 << 20, 5.0)


def test_the_time_there_is_grows_with_what_is_copied() -> None:
    state = {"migrationConfiguration": {"completionTimeoutPerGiB": 10, "bandwidthPerMigration": "64Mi"}}
    assert migration.settings(state, 100).seconds == 10
    assert migration.settings(state, 4 * GIB).seconds == 40
    assert migration.settings(state, 0).bandwidth == 64 << 20
    assert migration.settings({}, 0) == Settings()
    assert migration.settings({"migrationConfiguration": {"maxDowntimeMs": 50}}, 0).max_downtime == 50


def test_disks_of_the_pod_are_copied_and_claims_are_shared() -> None:
    assert migration.copied_disks(XML) == ["vda"]


@pytest.mark.parametrize(
    ("source", "driver", "expected"),
    [
        ('file="/var/run/kubevirt-private/vmi-disks/data/disk.img"', '<driver cache="none"/>', []),
        ('file="/var/run/kubevirt-private/vmi-disks/data/disk.img"', '<driver cache="directsync"/>', []),
        ('file="/var/run/kubevirt-private/vmi-disks/data/disk.img"', '<driver cache="writeback"/>', ["vda"]),
        ('file="/var/run/kubevirt-private/vmi-disks/data/disk.img"', "", ["vda"]),
        ('dev="/dev/data"', '<driver cache="writethrough"/>', ["vda"]),
        ('file="/var/run/kubevirt-ephemeral-disks/disk-data/root/disk.qcow2"', '<driver cache="writeback"/>', []),
    ],
)
def test_shared_disks_in_the_caches_of_two_nodes(source: str, driver: str, expected: list[str]) -> None:
    disk = f'<disk>{driver}<source {source}/><target dev="vda"/></disk>'
    assert migration.cached_disks(f"<domain><devices>{disk}</devices></domain>") == expected


def test_several_connections() -> None:
    def vmi(text: str) -> dict[str, Any]:
        return {"metadata": {"annotations": {"kubevirt.io/multiThreadedQemuMigration": text}}}

    assert migration.connections(vmi("8"), post_copy=False) == 8
    assert migration.connections(vmi("8"), post_copy=True) == 0, "QEMU can't have both"
    assert migration.connections({"metadata": {}}, post_copy=False) == 0
    for text in ("", "0", "256", "-1", "four", "²"):
        with pytest.raises(ValueError, match="is not a number of connections, from 1 to 255"):
            migration.connections(vmi(text), post_copy=False)
