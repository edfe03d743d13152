# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from turtles.api.times import rfc3339
from turtles.controller.backoff import EVACUATION, WORKLOAD_UPDATE, pause_after
from turtles.controller.evacuation import has_to_leave

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DRAINED = {"spec": {"taints": [{"key": "kubevirt.io/drain", "effect": "NoSchedule"}]}}


def make(strategy: str = "LiveMigrate", migratable: str = "True", **status: Any) -> dict[str, Any]:
    conditions = [{"type": "LiveMigratable", "status": migratable}]
    return {
        "metadata": {"name": "web"},
        "spec": {"evictionStrategy": strategy},
        "status": {"phase": "Running", "nodeName": "one", "conditions": conditions, **status},
    }


@pytest.mark.parametrize(
    ("vmi", "node", "expected"),
    [
        (make(), None, False),
        (make(evacuationNodeName="one"), None, True),
        (make("LiveMigrateIfPossible", evacuationNodeName="one"), None, True),
        (make(evacuationNodeName="two"), None, False),
        (make(), DRAINED, True),
        (make("External", evacuationNodeName="one"), DRAINED, False),
        (make("None", evacuationNodeName="one"), DRAINED, False),
        (make(migratable="False", evacuationNodeName="one"), DRAINED, False),
        (make(phase="Scheduled", evacuationNodeName="one"), DRAINED, False),
    ],
)
def test_who_has_to_leave(vmi: dict[str, Any], node: Any, expected: bool) -> None:
    assert has_to_leave(vmi, node, "kubevirt.io/drain") is expected


def test_the_taint_is_the_configurations() -> None:
    assert not has_to_leave(make(), DRAINED, "example.org/maintenance")


def migration(phase: str, seconds: float, by: str | None = EVACUATION) -> dict[str, Any]:
    stamp = rfc3339(NOW - timedelta(seconds=seconds))
    annotations = {by: ""} if by else {}
    return {
        "metadata": {"creationTimestamp": stamp, "annotations": annotations},
        "status": {"phase": phase, "phaseTransitionTimestamps": [{"phaseTransitionTimestamp": stamp}]},
    }


@pytest.mark.parametrize(
    ("own", "seconds"),
    [
        ([], 0),
        ([migration("Succeeded", 1)], 0),
        ([migration("Failed", 1, None)], 0),
        ([migration("Failed", 300, WORKLOAD_UPDATE), migration("Failed", 5)], 35),
        ([migration("Failed", 5)], 15),
        ([migration("Failed", 30)], 0),
        ([migration("Failed", 300), migration("Failed", 5)], 35),
        ([migration("Failed", 300), migration("Succeeded", 200), migration("Failed", 5)], 15),
        ([migration("Failed", 100 + n) for n in range(20)], 540),
    ],
)
def test_pauses_after_failures_double(own: list[dict[str, Any]], seconds: float) -> None:
    assert pause_after(own, NOW) == seconds
