# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.controller.ownership import claims
from turtles.controller.replicaset.plan import Backoff, plan, replica, status

NOW = "2026-01-01T00:00:00Z"


def replicaset(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": "web", "namespace": "ns", "uid": "rs"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"domain": {"memory": {"guest": "64M"}}}},
            **spec,
        },
    }


def vmi(
    name: str,
    phase: str = "Running",
    *,
    ready: bool = True,
    ran: bool = True,
    created: str = NOW,
    deleted: bool = False,
    owner: str | None = "rs",
    reason: str = "",
    **labels: str,
) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True" if ready else "False", "reason": reason}
    metadata: dict[str, Any] = {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": created}
    metadata["labels"] = labels or {"app": "web"}
    if owner:
        metadata["ownerReferences"] = [{"kind": "x", "name": "web", "uid": owner, "controller": True}]
    if deleted:
        metadata["deletionTimestamp"] = NOW
    history = [{"phase": "Running"}] if ran else []
    return {
        "metadata": metadata,
        "status": {"phase": phase, "conditions": [condition], "phaseTransitionTimestamps": history},
    }


def names(vmis: Any) -> list[str]:
    return [each["metadata"]["name"] for each in vmis]


@pytest.mark.parametrize(
    ("replicas", "there", "create", "delete"),
    [(3, 0, 3, 0), (3, 2, 1, 0), (3, 3, 0, 0), (3, 5, 0, 2), (0, 2, 0, 2), (None, 0, 1, 0), (1000, 0, 250, 0)],
)
def test_it_creates_what_is_missing_and_deletes_what_is_too_much(
    replicas: int | None, there: int, create: int, delete: int
) -> None:
    decided = plan(replicaset(replicas=replicas), [vmi(f"v{number}") for number in range(there)], Backoff(), 0)
    assert (decided.create, len(decided.delete), decided.wait) == (create, delete, None)


def test_those_at_their_end_are_replaced_and_deleted() -> None:
    there = [
        vmi("runs"),
        vmi("ended", "Succeeded"),
        vmi("failed", "Failed"),
        vmi("deleted", deleted=True),
        vmi("shuts-down", ready=False, reason="PodTerminating"),
    ]
    decided = plan(replicaset(), there, Backoff(), 0)
    assert decided.create == 2
    assert names(decided.finished) == ["ended", "failed", "shuts-down"]
    assert not decided.delete


def test_what_is_worth_least_goes_first() -> None:
    there = [
        vmi("old", created="2026-01-01T00:00:00Z"),
        vmi("new", created="2026-01-02T00:00:00Z"),
        vmi("unready", ready=False),
        vmi("starting", "Scheduling", ready=False, ran=False),
    ]
    for replicas, gone in ((3, ["starting"]), (2, ["starting", "unready"]), (1, ["starting", "unready", "new"])):
        assert names(plan(replicaset(replicas=replicas), there, Backoff(), 0).delete) == gone


@pytest.mark.parametrize("there", [[], [vmi("a"), vmi("b"), vmi("c"), vmi("d"), vmi("e", "Failed")]])
def test_a_paused_set_does_nothing(there: list[dict[str, Any]]) -> None:
    decided = plan(replicaset(paused=True), there, Backoff(), 0)
    assert (decided.create, decided.delete, decided.finished) == (0, (), ())


def test_instances_that_never_run_are_replaced_more_and_more_slowly() -> None:
    backoff, now = Backoff(), 100.0
    pauses = []
    for _ in range(7):
        decided = plan(replicaset(replicas=1), [vmi("a", "Failed", ran=False)], backoff, now)
        assert (decided.create, names(decided.finished)) == (0, ["a"])
        assert decided.wait
        pauses.append(decided.wait)
        assert plan(replicaset(replicas=1), [], decided.backoff, now).wait == decided.wait, "nor meanwhile"
        backoff, now = decided.backoff, now + decided.wait
        assert plan(replicaset(replicas=1), [], backoff, now).create == 1
    assert pauses == [10, 40, 90, 160, 250, 300, 300]
    ran = plan(replicaset(replicas=1), [vmi("a", "Failed")], backoff, now)
    assert (ran.create, ran.backoff) == (1, Backoff())


def test_a_replica_has_the_template_and_a_generated_name() -> None:
    found = replica(replicaset())
    assert found["metadata"] == {
        "generateName": "web",
        "namespace": "ns",
        "labels": {"app": "web"},
        "annotations": {},
        "ownerReferences": [
            {
                "apiVersion": "kubevirt.io/v1",
                "kind": "VirtualMachineInstanceReplicaSet",
                "name": "web",
                "uid": "rs",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    assert found["spec"] == {"domain": {"memory": {"guest": "64M"}}}, "each gets a firmware UUID of its own"
    named = replicaset(template={"metadata": {"name": "node-", "labels": {"app": "web"}}, "spec": {"domain": {}}})
    assert replica(named)["metadata"]["generateName"] == "node-"


def test_the_status_counts_and_says_what_is_wrong() -> None:
    there = [vmi("a"), vmi("b", ready=False), vmi("c", "Failed", ready=False)]
    found = status(replicaset(), there, None, NOW)
    assert found == {"replicas": 2, "readyReplicas": 1, "labelSelector": "app=web"}
    failed = status({**replicaset(paused=True), "status": found}, there, ("FailedCreate", "quota"), NOW)
    assert [(each["type"], each["reason"], each["message"]) for each in failed["conditions"]] == [
        ("ReplicaFailure", "FailedCreate", "quota"),
        ("ReplicaPaused", "Paused", "Controller got paused"),
    ]
    assert status({**replicaset(), "status": failed}, there, None, NOW) == found


def test_the_selector_as_text() -> None:
    selector = {
        "matchLabels": {"b": "1"},
        "matchExpressions": [
            {"key": "d", "operator": "NotIn", "values": ["y", "x"]},
            {"key": "a", "operator": "Exists"},
            {"key": "c", "operator": "In", "values": ["z"]},
            {"key": "e", "operator": "DoesNotExist"},
        ],
    }
    found = status(replicaset(selector=selector), [], None, NOW)["labelSelector"]
    assert found == "a,b=1,c in (z),d notin (x,y),!e"


def test_whose_instances_are() -> None:
    there = [
        vmi("own"),
        vmi("stray", app="other"),
        vmi("orphan", owner=None),
        vmi("other-orphan", owner=None, app="other"),
        vmi("deleted-orphan", owner=None, deleted=True),
        vmi("somebodys", owner="vm"),
    ]
    found = claims(replicaset(), there)
    assert [names(each) for each in (found.own, found.orphans, found.strays)] == [["own"], ["orphan"], ["stray"]]
    leaving = replicaset()
    leaving["metadata"]["deletionTimestamp"] = NOW
    assert not claims(leaving, there).orphans
