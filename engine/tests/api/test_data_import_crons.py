# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission says about DataImportCrons, and when their time comes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from turtles.api.kind import Context
from turtles.api.kinds.data_import_cron import creator, default, default_update, validate, validate_update
from turtles.api.schedules import ScheduleError, next_time

PVC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


def cron(url: str = "docker://registry.example.com/web:1", name: str = "web", **spec: Any) -> dict:
    template = {"spec": {"source": {"registry": {"url": url}}, "pvc": PVC}}
    return {
        "metadata": {"name": name},
        "spec": {"template": template, "schedule": "30 3 * * *", "managedDataSource": "web", **spec},
    }


def _copy(name: str = "golden", **more: Any) -> dict:
    return {"spec": {"source": {"pvc": {"namespace": "images", "name": name}}, "pvc": PVC, **more}}


SNAPSHOT = {"spec": {"source": {"snapshot": {"namespace": "images", "name": "golden"}}, "pvc": PVC}}


@pytest.mark.parametrize(
    "obj",
    [
        cron(),
        cron(template=_copy()),
        cron(schedule=""),
        cron(schedule="@daily"),
        cron(importsToKeep=0, garbageCollect="Never", retentionPolicy="None"),
        cron(garbageCollect="", retentionPolicy="All"),
    ],
)
def test_what_is_sound(obj: dict) -> None:
    assert validate(obj) == []


BLANK = {"spec": {"source": {"blank": {}}, "pvc": PVC}}
SMALL = {"spec": {"source": {"registry": {"url": "docker://a"}}, "pvc": {"accessModes": ["ReadWriteOnce"]}}}


@pytest.mark.parametrize(
    ("obj", "field", "words"),
    [
        (cron(name="a" * 64), "metadata.name", "Name cannot be longer than 63 characters"),
        (cron(template=BLANK), "spec.Template", "Missing registry or pvc source"),
        (cron(template=SMALL), "spec.template.spec.PVC.resources.requests.size", "PVC size is missing"),
        (cron(url="oci-archive:/a.tar"), "spec.template.spec.source.registry.url", "use docker://"),
        (cron(url="docker://a@sha256:" + "0" * 64), "spec.template.spec.source.registry.url", "name a tag"),
        (cron(schedule="daily"), "spec.Schedule", "Illegal cron schedule"),
        (cron(schedule="0 0 30 2 *"), "spec.Schedule", "Illegal cron schedule"),
        (cron(schedule="61 * * * *"), "spec.Schedule", "Illegal cron schedule"),
        (cron(schedule="* * * * * *"), "spec.Schedule", "five fields"),
        (cron(importsToKeep=-1), "spec.ImportsToKeep", "Illegal ImportsToKeep value"),
        (cron(garbageCollect="Often"), "spec.GarbageCollect", "Illegal GarbageCollect value"),
        (cron(retentionPolicy="Some"), "spec.RetentionPolicy", "Illegal RetentionPolicy value"),
        (cron(managedDataSource=""), "spec.ManagedDataSource", "Illegal ManagedDataSource value"),
        (cron(managedDataSource="a" * 64), "spec.ManagedDataSource", "Name cannot be longer"),
        (cron(template=_copy(name="")), "spec.template.spec.source.PVC", "source PVC is not valid"),
        (cron(template=_copy(contentType="kubevirt")), "spec.Template", "Unsettable fields"),
        (cron(template=SNAPSHOT), "spec.Template", "Missing registry or pvc source"),
    ],
)
def test_what_is_refused(obj: dict, field: str, words: str) -> None:
    (cause,) = validate(obj)
    assert cause.field == field
    assert words in cause.message


def test_who_created_it() -> None:
    user = {"username": "ada", "groups": ["system:authenticated"]}
    made = default(cron(createdBy='{"username": "root"}'), Context(user=user))
    assert creator(made) == user
    # Nobody can change it, and whoever replaces the object needn't know
    assert default_update(cron(), made) == default_update(cron(createdBy="{}"), made) == made
    assert validate_update(default_update(cron(), made), made) == []
    for odd in (None, "", "{", "[]", '{"groups": []}'):
        assert creator(cron(createdBy=odd)) is None


def test_a_spec_stays_as_it_is() -> None:
    assert validate_update(cron(), cron(garbageCollect="Outdated", importsToKeep=3)) == []
    (cause,) = validate_update(cron(schedule="@daily"), cron())
    assert cause.message == "Cannot update DataImportCron Spec"
    leaving = cron(schedule="@daily")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert validate_update(leaving, cron()) == []


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("30 3 * * *", datetime(2026, 3, 2, 3, 30, tzinfo=UTC)),
        ("@hourly", datetime(2026, 3, 1, 13, tzinfo=UTC)),
        ("@weekly", datetime(2026, 3, 8, tzinfo=UTC)),
        ("  */20   * * * * ", datetime(2026, 3, 1, 12, 20, tzinfo=UTC)),
    ],
)
def test_when_a_schedules_time_comes(schedule: str, expected: datetime) -> None:
    assert next_time(schedule, datetime(2026, 3, 1, 12, 0, tzinfo=UTC)) == expected


def test_what_is_no_schedule() -> None:
    for text in ("", "@often", "* * * *", "a b c d e"):
        with pytest.raises(ScheduleError):
            next_time(text, datetime(2026, 1, 1, tzinfo=UTC))
