# SPDX-License-Identifier: GPL-3.0-or-later
"""The words that all components share: each has one home in `turtles.api`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from turtles.api import guests, objects, phases, times


def test_owner_reference_is_read_back_as_the_controller() -> None:
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "vm", "uid": "1"}}
    reference = objects.owner_reference(owner)
    assert objects.controller_of({"metadata": {"ownerReferences": [{"uid": "2"}, reference]}}) == reference
    assert (reference["uid"], reference["blockOwnerDeletion"]) == ("1", True)
    assert objects.controller_of({"metadata": {}}) is None


@pytest.mark.parametrize("obj", [{}, {"metadata": None}, {"metadata": []}, {"metadata": {"deletionTimestamp": None}}])
def test_what_has_no_deletion_timestamp_is_not_deleted(obj: dict) -> None:
    assert not objects.is_deleted(obj)
    assert objects.is_deleted({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})


def test_a_phase_is_recorded_once_and_the_old_list_is_kept() -> None:
    before = [{"phase": phases.PENDING, "phaseTransitionTimestamp": "t1"}]
    status: dict = {"phase": phases.PENDING, "phaseTransitionTimestamps": before}
    phases.set_phase(status, phases.RUNNING, "t2")
    phases.set_phase(status, phases.RUNNING, "t3")
    assert [entry["phaseTransitionTimestamp"] for entry in status["phaseTransitionTimestamps"]] == ["t1", "t2"]
    assert len(before) == 1
    phases.set_phase(status, phases.FAILED, "t4")
    vmi = {"status": status}
    assert phases.is_final(vmi)
    assert phases.was_running(vmi)


def test_times_are_utc_to_the_second() -> None:
    moment = datetime(2026, 1, 1, 1, 30, 0, 999, tzinfo=timezone(timedelta(hours=2)))
    assert times.rfc3339(moment) == "2025-12-31T23:30:00Z"
    assert times.parse_time("2025-12-31T23:30:00Z") == datetime(2025, 12, 31, 23, 30, tzinfo=UTC)
    assert times.parse_time("2025-12-31T23:30:00.5") == datetime(2025, 12, 31, 23, 30, 0, 500000, tzinfo=UTC)
    assert times.parse_time("yesterday") is times.parse_time(None) is None
    assert times.parse_time(times.now()) is not None


def test_guests() -> None:
    assert guests.grace_period({}) == guests.grace_period({"terminationGracePeriodSeconds": None}) == 30
    assert guests.grace_period({"terminationGracePeriodSeconds": 0}) == 0
    assert guests.firmware_uuid("testvmi") == guests.firmware_uuid("testvmi") != guests.firmware_uuid("other")
