# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from turtles.api.configuration import ClusterConfiguration
from turtles.api.configuration_reader import from_kubevirt
from turtles.api.times import rfc3339
from turtles.controller.backoff import WORKLOAD_UPDATE
from turtles.controller.shared import Shared
from turtles.controller.workload_update.controller import WorkloadUpdateController
from turtles.controller.workload_update.plan import LOOK, Plan, plan

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LONG_AGO = float("inf")
BOTH = ["LiveMigrate", "Evict"]


def kubevirt(*methods: str, deployed: bool = True, **strategy: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "kubevirt"},
        "spec": {"workloadUpdateStrategy": {"workloadUpdateMethods": list(methods), **strategy}},
        "status": {
            "phase": "Deployed",
            "observedDeploymentID": "launcher:2" if deployed else "launcher:1",
            "targetDeploymentID": "launcher:2",
        },
    }


def machine(
    name: str, image: str = "launcher:1", *, migratable: bool = True, phase: str = "Running", **status: Any
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ns"},
        "status": {
            "phase": phase,
            "launcherContainerImageVersion": image,
            "conditions": [{"type": "LiveMigratable", "status": str(migratable)}],
            **status,
        },
    }


def move(name: str, phase: str, seconds: float) -> dict[str, Any]:
    stamp = rfc3339(NOW - timedelta(seconds=seconds))
    return {
        "metadata": {"namespace": "ns", "creationTimestamp": stamp, "annotations": {WORKLOAD_UPDATE: ""}},
        "spec": {"vmiName": name},
        "status": {"phase": phase, "phaseTransitionTimestamps": [{"phaseTransitionTimestamp": stamp}]},
    }


def planned(
    obj: dict[str, Any], vmis: list[dict[str, Any]], moves: Any = (), since: float = LONG_AGO
) -> tuple[Plan, list[str], list[str]]:
    cluster: ClusterConfiguration = from_kubevirt(obj)
    found = plan(obj, vmis, moves, cluster, "launcher:2", NOW, since)
    return found, *([vmi["metadata"]["name"] for vmi in chosen] for chosen in (found.migrate, found.evict))


@pytest.mark.parametrize(
    ("methods", "migrate", "evict"),
    [
        ([], [], []),
        (["LiveMigrate"], ["moves"], []),
        (["Evict"], [], ["moves", "stays"]),
        (BOTH, ["moves"], ["stays"]),
    ],
)
def test_machines_with_an_old_launcher_are_updated(methods: list[str], migrate: list[str], evict: list[str]) -> None:
    vmis = [
        machine("moves"),
        machine("stays", migratable=False),
        machine("new", "launcher:2"),
        machine("starts", phase="Scheduled"),
        machine("unknown", ""),
    ]
    found, *names = planned(kubevirt(*methods), vmis)
    assert names == [migrate, evict]
    assert found.outdated == 2, "it is told in any case"
    assert found.wait == (LOOK if methods else None)


def test_machines_on_their_way_out_are_left_alone() -> None:
    leaving = machine("leaves")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert planned(kubevirt(*BOTH), [leaving])[0] == Plan(0)


def test_nothing_happens_before_the_engine_is_deployed() -> None:
    assert planned(kubevirt(*BOTH, deployed=False), [machine("web")])[0] == Plan(1)


def test_as_many_migrate_as_the_configuration_allows() -> None:
    vmis = [machine(f"web{number}") for number in range(7)]
    moves = [move("web0", "Running", 5), move("other", "Pending", 5), move("web3", "Succeeded", 100)]
    _, names, _ = planned(kubevirt("LiveMigrate"), vmis, moves)
    # two of five places are taken; web0 is on its way, and web3 had its turn
    assert names == ["web1", "web2", "web4"]


def test_one_that_failed_waits() -> None:
    vmis = [machine("web")]
    assert planned(kubevirt("LiveMigrate"), vmis, [move("web", "Failed", 5)])[1] == []
    assert planned(kubevirt("LiveMigrate"), vmis, [move("web", "Failed", 25)])[1] == ["web"]


def test_one_that_migrates_is_not_evicted() -> None:
    on_its_way = machine("web", migratable=False, migrationState={"migrationUid": "u"})
    assert planned(kubevirt("Evict"), [on_its_way])[2] == []
    assert planned(kubevirt("Evict"), [machine("web")], [move("web", "Scheduling", 1)])[2] == []


@pytest.mark.parametrize(
    ("strategy", "since", "count", "wait"),
    [
        ({}, LONG_AGO, 10, LOOK),
        ({}, 59.0, 0, 1.0),
        ({}, 10.0, 0, LOOK),
        ({"batchEvictionSize": 3}, 60.0, 3, LOOK),
        ({"batchEvictionSize": 0}, LONG_AGO, 0, LOOK),
        ({"batchEvictionInterval": "5s"}, 5.0, 10, 5.0),
        ({"batchEvictionInterval": "0s"}, 0.0, 10, 1.0),
    ],
)
def test_machines_are_evicted_in_batches(strategy: dict[str, Any], since: float, count: int, wait: float) -> None:
    vmis = [machine(f"web{number:02}", migratable=False) for number in range(12)]
    found, _, names = planned(kubevirt("Evict", **strategy), vmis, since=since)
    assert len(names) == count
    assert found.wait == wait


def test_a_machine_whose_pod_is_too_small_is_migrated_and_never_evicted() -> None:
    small, fixed = machine("small", "launcher:2"), machine("fixed", "launcher:2", migratable=False)
    for each in (small, fixed):
        each["status"]["conditions"].append({"type": "MigrationRequired", "status": "True"})
    found, *names = planned(kubevirt(*BOTH), [small, fixed])
    assert names == [["small"], []]
    assert found.outdated == 0


class _Caches:
    """Caches with one KubeVirt object, which note what is to be called for changes."""

    def __init__(self) -> None:
        self.kubevirts = self.vmis = self.pods = self

    def list(self) -> list[dict[str, Any]]:
        return [{"metadata": {"namespace": "kubevirt", "name": "kubevirt"}}]

    def informer(self, _: Any) -> _Caches:
        return self


def test_a_machine_more_or_less_to_be_updated_calls_for_a_look() -> None:
    caches: Any = _Caches()
    shared = Shared(caches, caches, caches, caches, lambda: from_kubevirt(None))
    controller = WorkloadUpdateController(shared, "launcher:2")
    (_, trigger, _) = controller.controller().triggers
    before, after = machine("web", "launcher:2"), machine("web", "launcher:2")
    after["status"]["conditions"].append({"type": "MigrationRequired", "status": "True"})
    assert trigger.keys(None, before) == trigger.keys(before, before) == trigger.keys(after, after) == []
    assert trigger.keys(before, after) == trigger.keys(after, None) == [("kubevirt", "kubevirt")]
