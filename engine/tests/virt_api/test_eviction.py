# SPDX-License-Identifier: GPL-3.0-or-later
"""What evictions of launcher Pods are answered."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.kube.kubevirt import VMI
from turtles.kube.resources import POD
from turtles.virt_api.eviction import EvictionReview

from .fakes import FakeClient

WHY = "cannot migrate VMI: PVC data is not shared"


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    def event(self, obj: dict[str, Any], type_: str, reason: str, message: str) -> None:
        assert obj["kind"] == "VirtualMachineInstance"
        self.events.append((type_, reason, message))


def world(strategy: str | None, *, phase: str = "Running", **status: Any) -> tuple[FakeClient, Told, EvictionReview]:
    """A VMI on node n with its Pod, and a Pod of somebody else."""
    pod = {
        "metadata": {
            "name": "launcher",
            "uid": "pod",
            "namespace": "ns",
            "labels": {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": "uid"},
            "annotations": {"kubevirt.io/domain": "web"},
        },
        "status": {"phase": phase},
    }
    vmi = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "web", "namespace": "ns", "uid": "uid"},
        "spec": {"domain": {}, **({"evictionStrategy": strategy} if strategy else {})},
        "status": {
            "nodeName": "n",
            "conditions": [{"type": "LiveMigratable", "status": "False", "message": WHY}],
            **status,
        },
    }
    other = {"metadata": {"name": "other", "namespace": "ns"}, "status": {"phase": "Running"}}
    client, told = FakeClient((POD, pod), (POD, other), (VMI, vmi)), Told()
    return client, told, EvictionReview(client, told)  # type: ignore[arg-type]


def asked(name: str = "launcher", **more: Any) -> dict[str, Any]:
    return {"uid": "1", "namespace": "ns", "name": name, "operation": "CREATE", **more}


@pytest.mark.parametrize("strategy", [None, "None", "LiveMigrateIfPossible"])
def test_what_may_be_evicted(strategy: str | None) -> None:
    client, told, review = world(strategy)
    assert review(asked()) == {"allowed": True}
    assert not client.patches
    assert not told.events


@pytest.mark.parametrize("name", ["other", "nobody"])
def test_other_pods_are_nobody_s_business(name: str) -> None:
    assert world("LiveMigrate")[2](asked(name)) == {"allowed": True}


def test_a_pod_that_has_ended_may_go() -> None:
    assert world("LiveMigrate", phase="Failed")[2](asked()) == {"allowed": True}


MIGRATABLE = [{"type": "LiveMigratable", "status": "True"}]


@pytest.mark.parametrize("strategy", ["LiveMigrate", "LiveMigrateIfPossible"])
def test_a_machine_that_can_migrate_does(strategy: str) -> None:
    client, told, review = world(strategy, conditions=MIGRATABLE)
    assert review(asked(dryRun=True))["status"]["code"] == 429
    assert not client.patches
    answer = review(asked())
    assert answer["status"]["message"] == 'Eviction triggered evacuation of VMI "ns/web"'
    ((_, patch, _),) = client.patches
    assert patch[-1] == {"op": "add", "path": "/status/evacuationNodeName", "value": "n"}
    assert [event[1] for event in told.events] == ["EvacuationRequested"]
    assert "Pod launcher has to leave node n" in told.events[0][2]


def test_a_machine_that_would_have_to_migrate_stays() -> None:
    client, told, review = world("LiveMigrate")
    answer = review(asked())
    assert answer["allowed"] is False
    assert (answer["status"]["code"], answer["status"]["reason"]) == (429, "TooManyRequests")
    words = "VMI ns/web is configured with an eviction strategy but is not live-migratable"
    assert answer["status"]["message"].startswith(words)
    assert WHY in answer["status"]["message"]
    assert "stop it" in answer["status"]["message"]
    assert [event[:2] for event in told.events] == [("Warning", "EvictionRefused")]
    assert not client.patches
    assert review(asked(dryRun=True))["allowed"] is False
    assert len(told.events) == 1


def test_an_outer_controller_is_told_which_node_to_leave() -> None:
    client, told, review = world("External")
    assert review(asked(dryRun=True))["status"]["code"] == 429
    assert not client.patches
    answer = review(asked())
    assert answer["status"]["code"] == 429
    # the words that the descheduler looks for
    assert answer["status"]["message"] == 'Eviction triggered evacuation of VMI "ns/web"'
    ((path, patch, _),) = client.patches
    assert path.endswith("/virtualmachineinstances/web")
    assert patch[-1] == {"op": "add", "path": "/status/evacuationNodeName", "value": "n"}
    assert [event[1] for event in told.events] == ["EvacuationRequested"]


def test_it_is_told_once() -> None:
    client, told, review = world("External", evacuationNodeName="n")
    answer = review(asked())["status"]
    assert answer["code"] == 429
    assert answer["message"] == 'Evacuation in progress: Eviction triggered evacuation of VMI "ns/web"'
    assert not client.patches
    assert not told.events


@pytest.mark.parametrize(
    ("active", "expected"),
    [
        ({"pod": "n"}, False),
        ({"pod": "n", "target": "m"}, False),
        # the guest has left, or is on its way
        ({"target": "n"}, True),
        ({"pod": "m", "target": "n"}, True),
        # not handed to a node yet
        ({}, False),
    ],
)
def test_only_the_pod_with_the_guest_is_its_machines(active: dict[str, str], expected: bool) -> None:
    client, _, review = world("LiveMigrate", conditions=MIGRATABLE, activePods=active)
    assert review(asked())["allowed"] is expected
    assert bool(client.patches) is not expected


@pytest.mark.parametrize(
    ("owner", "phase", "message"),
    [
        ("launcher", "Running", "cannot evict hotplug pod: hp-1 associated with running vmi: web in namespace ns"),
        ("launcher", "Succeeded", None),
        ("gone", "Running", None),
        ("other", "Running", None),
        (None, "Running", None),
    ],
)
def test_volumes_of_a_guest_stay_as_long_as_it_does(owner: str | None, phase: str, message: str | None) -> None:
    client, _, review = world(None, phase=phase)
    metadata: dict[str, Any] = {"name": "hp-1", "namespace": "ns", "labels": {"kubevirt.io": "hotplug-disk"}}
    if owner:
        metadata["ownerReferences"] = [{"kind": "Pod", "name": owner}]
    client.create(POD, {"metadata": metadata, "status": {"phase": "Running"}})
    answer = review(asked("hp-1"))
    assert answer["allowed"] is (message is None)
    assert message is None or (answer["status"]["code"], answer["status"]["message"]) == (429, message)
