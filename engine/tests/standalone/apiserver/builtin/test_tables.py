# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns and cells of built-in kinds that the parity corpus doesn't have."""

import pytest

from turtles.standalone.apiserver.builtin.pods import Pods
from turtles.standalone.apiserver.builtin.table import table
from turtles.standalone.apiserver.schema.kinds import BUILTIN


@pytest.mark.parametrize("kind", BUILTIN, ids=lambda kind: f"{kind.plural}.{kind.group}")
def test_every_column_is_described(kind) -> None:
    columns = table(kind, [], {})["columnDefinitions"]
    assert [one["name"] for one in columns if not one["description"]] == []
    assert {one["type"] for one in columns} <= {"string", "integer", "boolean", "date"}


def pod(spec: dict, status: dict) -> dict:
    cells = Pods().cells({"metadata": {"name": "p"}, "spec": spec, "status": status})
    return dict(zip([column.name for column in Pods.columns], cells, strict=True))


def test_sidecars_count_as_containers() -> None:
    """KEP-753."""
    spec = {"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]}
    running = {"ready": True, "started": True, "restartCount": 2, "state": {"running": {}}}
    waiting = {"ready": False, "restartCount": 0, "state": {"running": {}}}
    early = {"phase": "Pending", "initContainerStatuses": [{"name": "s", **running}, {"name": "i", **waiting}]}
    shown = pod(spec, early)
    assert (shown["Ready"], shown["Status"]) == ("1/2", "Init:1/2")
    done = {"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}
    containers = [{"name": "a", **running}]
    late = {
        "phase": "Running",
        "initContainerStatuses": [{"name": "s", **running}, done],
        "containerStatuses": containers,
    }
    shown = pod(spec, late)
    assert (shown["Ready"], shown["Status"], shown["Restarts"]) == ("2/2", "Running", "4")


def test_the_last_restart_is_told() -> None:
    before = {"terminated": {"exitCode": 1, "finishedAt": "2001-01-01T00:00:00Z"}}
    container = {"name": "a", "ready": True, "restartCount": 1, "state": {"running": {}}, "lastState": before}
    shown = pod({"containers": [{"name": "a"}]}, {"phase": "Running", "containerStatuses": [container]})
    assert shown["Restarts"].startswith("1 (")
    assert shown["Restarts"].endswith(" ago)")


def test_gated_pods_say_so() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
    assert pod({}, {"phase": "Pending", "conditions": [condition]})["Status"] == "SchedulingGated"
