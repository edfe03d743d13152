# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.api.conditions import get_condition
from turtles.api.configuration_reader import from_kubevirt
from turtles.controller.vm import larger_pod
from turtles.controller.vmi import comparison

GIB, OVERHEAD = 1 << 30, 100 << 20


def vmi(guest: int = GIB, migratable: str = "True", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "ns", "uid": "u", "labels": labels},
        "spec": {"domain": {"memory": {"guest": str(guest)}}},
        "status": {
            "phase": "Running",
            "nodeName": "n",
            "activePods": {"p": "n"},
            "memory": {"guestAtBoot": str(GIB)},
            "conditions": [{"type": "LiveMigratable", "status": migratable}],
        },
    }


def pod(limit: int | None) -> dict[str, Any]:
    limits = {} if limit is None else {"memory": str(limit)}
    return {
        "metadata": {
            "uid": "p",
            "name": "launcher",
            "annotations": {"kubevirt.io/memory-overhead-bytes": str(OVERHEAD)},
        },
        "spec": {"containers": [{"name": "compute", "image": "launcher:1", "resources": {"limits": limits}}]},
    }


@pytest.mark.parametrize(
    ("limit", "guest", "short"),
    [
        (None, 4 * GIB, False),
        (2 * GIB + OVERHEAD + (8 << 20), 2 * GIB, False),
        # page tables of what is added
        (2 * GIB + OVERHEAD, 2 * GIB, True),
        (2 * GIB, 2 * GIB, True),
    ],
)
def test_a_guest_grows_within_the_limit_of_its_pod(limit: int | None, guest: int, short: bool) -> None:
    change = {"domain": {"memory": {"guest": str(guest)}}}
    assert bool(larger_pod.shortage(vmi(), [pod(limit)], change)) is short


def test_what_does_not_grow_needs_no_larger_pod() -> None:
    assert not larger_pod.shortage(vmi(), [pod(GIB)], {"domain": {"cpu": {"sockets": 4}}})
    assert not larger_pod.shortage(vmi(), [], {"domain": {"memory": {"guest": "4Gi"}}})


@pytest.mark.parametrize(
    ("methods", "migratable", "expected"),
    [
        (["LiveMigrate"], "True", True),
        (["LiveMigrate"], "False", False),
        (["Evict"], "True", False),
        ([], "True", False),
    ],
)
def test_who_gets_one(methods: list[str], migratable: str, expected: bool) -> None:
    cluster = from_kubevirt({"spec": {"workloadUpdateStrategy": {"workloadUpdateMethods": methods}}})
    assert larger_pod.can_be_had(vmi(migratable=migratable), cluster) is expected


def test_the_condition_goes_with_the_small_pod() -> None:
    machine = vmi(2 * GIB)
    machine["status"]["conditions"] = larger_pod.needed(machine, "it is full", "2026-01-02T03:04:05Z")
    required = get_condition(machine["status"]["conditions"], "MigrationRequired")
    assert required is not None
    assert (required["status"], required["reason"]) == ("True", "AutoMigrationPending")
    assert required["message"] == "Migrating the machine to a larger Pod: it is full."
    comparison.note_size(machine, pod(2 * GIB))
    assert get_condition(machine["status"]["conditions"], "MigrationRequired")
    comparison.note_size(machine, pod(4 * GIB))
    assert [each["type"] for each in machine["status"]["conditions"]] == ["LiveMigratable"]


OUTDATED = {"kubevirt.io/outdatedLauncherImage": ""}


@pytest.mark.parametrize(
    ("image", "before", "after"),
    [
        ("launcher:1", {}, {}),
        ("launcher:1", OUTDATED, {}),
        ("launcher:2", {}, OUTDATED),
        ("launcher:2", {"a": "b"}, {"a": "b", **OUTDATED}),
        ("", OUTDATED, OUTDATED),
    ],
)
def test_machines_with_another_launcher_are_marked(image: str, before: dict[str, str], after: dict[str, str]) -> None:
    machine = vmi(**before)
    comparison.note_version(machine, pod(None), image)
    assert machine["metadata"]["labels"] == after
    assert machine["status"].get("launcherContainerImageVersion") == ("launcher:1" if image else None)
