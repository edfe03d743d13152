# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from turtles.controller.pool.machine import index_of, make_machine, make_revision, revision_name, updated
from turtles.controller.pool.plan import Observed, Plan, plan
from turtles.controller.pool.selection import SelectionError
from turtles.controller.pool.status import status

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STAMP = "2026-01-01T00:00:00Z"


def pool(generation: int = 1, *, memory: str = "64M", template: dict | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "pool.kubevirt.io/v1beta1",
        "kind": "VirtualMachinePool",
        "metadata": {"name": "web", "namespace": "ns", "uid": "pool", "generation": generation},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "virtualMachineTemplate": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "runStrategy": "Always",
                    "template": {"spec": {"domain": {"devices": {}, "memory": {"guest": memory}}, **(template or {})}},
                },
            },
            **spec,
        },
    }


def machine(
    index: int,
    of: dict | None = None,
    *,
    ready: bool = True,
    deleted: bool = False,
    created: str = STAMP,
    word: str = "Running",
    failures: int = 0,
    since: str = STAMP,
    labels: dict[str, str] | None = None,
    nodes: dict[str, str] | None = None,
) -> dict[str, Any]:
    found = make_machine(of or pool(), index)
    found["metadata"] |= {"uid": f"vm-{index}", "creationTimestamp": created}
    if deleted:
        found["metadata"]["deletionTimestamp"] = STAMP
    found["spec"]["template"]["metadata"]["labels"] |= labels or {}
    if nodes:
        found["spec"]["template"]["spec"]["nodeSelector"] = nodes
    condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": since}
    found["status"] = {"printableStatus": word, "conditions": [condition]}
    if failures:
        found["status"]["startFailure"] = {"consecutiveFailCount": failures}
    return found


def instance(of: dict, revision: str | None = "web-1", *, ready: bool = True, deleted: bool = False) -> dict[str, Any]:
    metadata = {"name": of["metadata"]["name"], "uid": "vmi", "namespace": "ns", "labels": {}}
    if revision:
        metadata["labels"] = {"kubevirt.io/vm-pool-revision-name": revision}
    if deleted:
        metadata["deletionTimestamp"] = STAMP
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": metadata, "status": {"phase": "Running", "conditions": conditions}}


def decide(
    wanted: dict, machines: list[dict], instances: list[dict] = (), pools: list[dict] = (), **names: Any
) -> Plan:
    """Decide with the revisions of these generations of the pool."""
    revisions = {revision_name(each): make_revision(each) for each in (*pools, wanted)}
    taken = [each["metadata"]["name"] for each in machines] + list(names.get("taken", ()))
    observed = Observed(taken, {each["metadata"]["name"]: each for each in instances}, revisions, NOW, lambda: 0.5)
    return plan(wanted, machines, observed)


def names(objects: Any) -> list[str]:
    return [each["metadata"]["name"] for each in objects]


# Scaling


@pytest.mark.parametrize(
    ("replicas", "indexes", "taken", "create"),
    [
        (3, [], [], [0, 1, 2]),
        (None, [], [], [0]),
        (3, [0, 2], [], [1]),
        (3, [1], ["web-0"], [2, 3]),
        (0, [], [], []),
        (1000, [], [], list(range(250))),
    ],
)
def test_free_indexes_are_used(replicas: int | None, indexes: list, taken: list, create: list) -> None:
    wanted = pool(replicas=replicas)
    assert (decide(wanted, [machine(index) for index in indexes], taken=taken).create or []) == create


def test_a_machine_on_its_way_out_keeps_its_name() -> None:
    machines = [machine(0), machine(1, deleted=True), machine(2)]
    decided = decide(pool(), machines)
    assert (decided.create, names(decided.release)) == ((), ["web-1"])


def test_machines_on_their_way_out_count_when_scaling_in() -> None:
    machines = [machine(0), machine(1, deleted=True), machine(2)]
    assert names(decide(pool(replicas=2), machines).delete) == []
    assert len(decide(pool(replicas=1), machines).delete) == 1


OLD, NEW = "2025-01-01T00:00:00Z", "2025-06-01T00:00:00Z"
FLEET = [machine(0, created=NEW), machine(1, created=OLD, ready=False), machine(10), machine(2, created=NEW)]


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        ({"sortPolicy": "AscendingOrder"}, ["web-0", "web-1"]),
        ({"sortPolicy": "DescendingOrder"}, ["web-10", "web-2"]),
        ({"sortPolicy": "Newest"}, ["web-10", "web-2"]),
        ({"sortPolicy": "Oldest"}, ["web-1", "web-0"]),
        # What doesn't work goes first
        ({"sortPolicy": "Random"}, ["web-1", "web-0"]),
        ({}, ["web-1", "web-0"]),
    ],
)
def test_sort_policies(policy: dict, chosen: list[str]) -> None:
    wanted = pool(replicas=2, scaleInStrategy={"proactive": {"selectionPolicy": policy}})
    assert names(decide(wanted, FLEET).delete) == chosen


@pytest.mark.parametrize(
    ("selectors", "chosen"),
    [
        ({"labelSelector": {"matchLabels": {"tier": "spare"}}}, ["web-1", "web-2"]),
        ({"nodeSelectorRequirementMatcher": [{"key": "rack", "operator": "In", "values": ["a"]}]}, ["web-0"]),
        ({"nodeSelectorRequirementMatcher": [{"key": "row", "operator": "Gt", "values": ["4"]}]}, ["web-2"]),
        ({"nodeSelectorRequirementMatcher": [{"key": "row", "operator": "Lt", "values": ["4"]}]}, ["web-1"]),
        (
            {
                "labelSelector": {"matchLabels": {"tier": "spare"}},
                "nodeSelectorRequirementMatcher": [{"key": "row", "operator": "Exists"}],
            },
            ["web-1", "web-2"],
        ),
    ],
)
def test_selectors_choose_what_may_go(selectors: dict, chosen: list[str]) -> None:
    spare = {"tier": "spare"}
    machines = [
        machine(0, nodes={"rack": "a"}),
        machine(1, labels=spare, nodes={"row": "3"}),
        machine(2, labels=spare, nodes={"row": "5"}),
    ]
    policy = {"sortPolicy": "AscendingOrder", "selectors": selectors}
    wanted = pool(replicas=0, scaleInStrategy={"proactive": {"selectionPolicy": policy}})
    assert names(decide(wanted, machines).delete) == chosen


def test_a_selector_that_makes_no_sense_is_told() -> None:
    selectors = {"nodeSelectorRequirementMatcher": [{"key": "row", "operator": "Like"}]}
    wanted = pool(replicas=0, scaleInStrategy={"proactive": {"selectionPolicy": {"selectors": selectors}}})
    with pytest.raises(SelectionError, match='"Like" is not a valid label selector operator'):
        decide(wanted, [machine(0)])


@pytest.mark.parametrize("strategy", [{"unmanaged": {}}, {"opportunistic": {}}])
def test_others_scale_in(strategy: dict) -> None:
    assert names(decide(pool(replicas=1, scaleInStrategy=strategy), FLEET).delete) == []


@pytest.mark.parametrize(
    ("strategy", "preserves"),
    [
        ({}, False),
        ({"proactive": {}}, False),
        ({"proactive": {"statePreservation": "Disabled"}}, False),
        ({"proactive": {"statePreservation": "Offline"}}, True),
        ({"opportunistic": {"statePreservation": "Offline"}}, True),
        ({"opportunistic": {}}, False),
    ],
)
def test_state_preservation(strategy: dict, preserves: bool) -> None:
    decided = decide(pool(scaleInStrategy=strategy), [machine(0, deleted=True)])
    assert (names(decided.release), decided.preserve) == (["web-0"], preserves)


def test_a_paused_pool_only_lets_go() -> None:
    decided = decide(pool(paused=True), [machine(0), machine(1, deleted=True)])
    assert decided == Plan(release=decided.release, preserve=False)
    assert names(decided.release) == ["web-1"]


# Updates

OLDER, NEWER = pool(1), pool(2, memory="96M")
UPDATED = [machine(index, NEWER) for index in range(3)]


@pytest.mark.parametrize(("strategy", "count"), [({}, 3), ({"opportunistic": {}}, 3), ({"unmanaged": {}}, 0)])
def test_machines_get_a_changed_template(strategy: dict, count: int) -> None:
    machines = [machine(index) for index in range(3)]
    wanted = copy.deepcopy(NEWER)
    wanted["spec"]["updateStrategy"] = strategy
    decided = decide(wanted, machines, [instance(each) for each in machines], [OLDER])
    assert (len(decided.update), names(decided.restart)) == (count, [])


@pytest.mark.parametrize(
    ("maximum", "unready", "restarted"),
    [
        (None, [], ["web-0", "web-1", "web-2"]),
        (1, [], ["web-0"]),
        (2, [], ["web-0", "web-1"]),
        ("50%", [], ["web-0"]),
        ("1%", [], ["web-0"]),
        # One that is down anyway is no loss, and leaves no room for others
        (1, [2], ["web-2"]),
        (2, [2], ["web-0", "web-2"]),
    ],
)
def test_instances_follow_as_far_as_may_be_missing(maximum: Any, unready: list[int], restarted: list[str]) -> None:
    wanted = copy.deepcopy(NEWER)
    wanted["spec"]["updateStrategy"] = {"proactive": {"selectionPolicy": {"sortPolicy": "AscendingOrder"}}}
    if maximum is not None:
        wanted["spec"]["maxUnavailable"] = maximum
    machines = [machine(index, NEWER, ready=index not in unready) for index in range(3)]
    instances = [instance(each, ready=index not in unready) for index, each in enumerate(machines)]
    assert names(decide(wanted, machines, instances, [OLDER]).restart) == restarted


def test_instances_on_their_way_out_count_as_missing() -> None:
    wanted = {**NEWER, "spec": {**NEWER["spec"], "maxUnavailable": 1}}
    instances = [instance(UPDATED[0], deleted=True), *(instance(each) for each in UPDATED[1:])]
    assert decide(wanted, UPDATED, instances, [OLDER]).restart == []


def test_so_do_those_that_were_asked_to_stop() -> None:
    wanted = {**NEWER, "spec": {**NEWER["spec"], "maxUnavailable": 1}}
    asked = copy.deepcopy(UPDATED[0])
    asked["status"]["stateChangeRequests"] = [{"action": "Stop", "uid": "vmi"}, {"action": "Start"}]
    machines = [asked, *UPDATED[1:]]
    assert decide(wanted, machines, [instance(each) for each in machines], [OLDER]).restart == []
    asked["status"]["stateChangeRequests"][0]["uid"] = "another"
    assert len(decide(wanted, machines, [instance(each) for each in machines], [OLDER]).restart) == 1


@pytest.mark.parametrize(
    ("template", "revision", "expected"),
    [
        (NEWER, "web-2", {}),
        (NEWER, "web-1", {"restart": ["web-0"]}),
        (NEWER, None, {"restart": ["web-0"]}),
        (NEWER, "web-0", {"restart": ["web-0"]}),
        # The same machine, however it is written
        (pool(2, memory="64000k"), "web-1", {"relabel": ["web-0"]}),
        (pool(2, maxUnavailable=1), "web-1", {"relabel": ["web-0"]}),
    ],
)
def test_what_becomes_of_an_instance(template: dict, revision: str | None, expected: dict) -> None:
    wanted = {**template, "spec": {**template["spec"], "replicas": 1}}
    machines = [machine(0, template)]
    decided = decide(wanted, machines, [instance(machines[0], revision)], [OLDER])
    found = {name: names(getattr(decided, name)) for name in ("restart", "relabel", "replace", "update")}
    assert {name: each for name, each in found.items() if each} == expected


def test_other_data_volumes_need_another_machine() -> None:
    wanted = pool(2, replicas=1)
    wanted["spec"]["virtualMachineTemplate"]["spec"]["dataVolumeTemplates"] = [{"metadata": {"name": "disk"}}]
    machines = [machine(0, wanted)]
    assert names(decide(wanted, machines, [instance(machines[0])], [OLDER]).replace) == ["web-0"]


def test_opportunistic_updates_restart_nothing() -> None:
    wanted = {**NEWER, "spec": {**NEWER["spec"], "updateStrategy": {"opportunistic": {}}}}
    assert decide(wanted, UPDATED, [instance(each) for each in UPDATED], [OLDER]).restart == []


def test_revisions_go_when_nothing_refers_to_them() -> None:
    wanted = pool(4, memory="96M")
    machines = [machine(index, wanted) for index in range(3)]
    instances = [instance(machines[0], "web-2"), *(instance(each, "web-4") for each in machines[1:])]
    pools = [pool(1), pool(2, memory="80M"), pool(3)]
    assert decide(wanted, machines, instances, pools).prune == ["web-1", "web-3"]


def test_what_an_update_keeps() -> None:
    live = machine(1)
    live["metadata"]["labels"]["mine"] = "yes"
    live["metadata"]["annotations"] = {"given": "1", "kubevirt.io/latest-observed-api-version": "v1"}
    domain = live["spec"]["template"]["spec"]["domain"]
    domain |= {"firmware": {"uuid": "u", "serial": "s"}, "machine": {"type": "q35"}}
    live["spec"]["runStrategy"] = "Halted"
    live["spec"]["template"]["spec"]["architecture"] = "amd64"
    before = {"metadata": {"annotations": {"given": "1"}}}
    after = updated(NEWER, live, before)
    assert after["metadata"]["labels"] == {"app": "web", "mine": "yes", "kubevirt.io/vm-pool-revision-name": "web-2"}
    assert after["metadata"]["annotations"] == {"kubevirt.io/latest-observed-api-version": "v1"}
    new = after["spec"]["template"]["spec"]["domain"]
    assert new["memory"] == {"guest": "96M"}
    assert (new["firmware"], new["machine"]) == ({"uuid": "u", "serial": "s"}, {"type": "q35"})
    assert (after["spec"]["runStrategy"], after["spec"]["template"]["spec"]["architecture"]) == ("Always", "amd64")


# Healing


@pytest.mark.parametrize(
    ("healing", "state", "heals", "wait"),
    [
        (None, {"failures": 9}, False, None),
        ({}, {"failures": 2}, False, None),
        ({}, {"failures": 3}, True, None),
        ({"startUpFailureThreshold": 1}, {"failures": 1}, True, None),
        ({}, {"word": "ErrImagePull", "since": "2025-12-31T23:54:59Z"}, True, None),
        ({}, {"word": "ErrImagePull", "since": "2025-12-31T23:56:00Z"}, False, 60.0),
        (
            {"minFailingToStartDuration": "10s"},
            {"word": "ErrorUnschedulable", "since": "2025-12-31T23:59:50Z"},
            True,
            None,
        ),
        ({}, {"word": "Starting", "since": OLD}, False, None),
        ({}, {"word": "ErrImagePull", "since": OLD, "ready": True}, False, None),
    ],
)
def test_what_fails_to_start_is_replaced(healing: dict | None, state: dict, heals: bool, wait: float | None) -> None:
    wanted = pool(replicas=1, **({} if healing is None else {"autohealing": healing}))
    decided = decide(wanted, [machine(0, **{"ready": False, **state})])
    assert (names(decided.delete), decided.wait) == (["web-0"] if heals else [], wait)


# Machines


@pytest.mark.parametrize(
    ("name", "index"),
    [("web-0", 0), ("web-12", 12), ("web", None), ("web-01", None), ("web-a", None), ("db-1", None), ("web-1-2", None)],
)
def test_index_of(name: str, index: int | None) -> None:
    assert index_of(pool(), name) == index


@pytest.mark.parametrize(
    ("options", "configmaps", "secrets"),
    [
        ({}, "", ""),
        ({"appendIndexToConfigMapRefs": True}, "-7", ""),
        ({"appendIndexToSecretRefs": True}, "", "-7"),
        ({"appendIndexToConfigMapRefs": True, "appendIndexToSecretRefs": True}, "-7", "-7"),
    ],
)
def test_references_get_the_index(options: dict, configmaps: str, secrets: str) -> None:
    volumes = [
        {"name": "a", "configMap": {"name": "c"}},
        {"name": "b", "secret": {"secretName": "s"}},
        {"name": "c", "cloudInitNoCloud": {"secretRef": {"name": "s"}, "networkDataSecretRef": {"name": "n"}}},
        {"name": "d", "cloudInitConfigDrive": {"secretRef": {"name": "s"}}},
        {"name": "e", "sysprep": {"configMap": {"name": "c"}}},
        {"name": "f", "sysprep": {"secret": {"name": "s"}}},
        {"name": "g", "persistentVolumeClaim": {"claimName": "shared"}},
    ]
    made = make_machine(pool(nameGeneration=options, template={"volumes": volumes}), 7)
    assert made["spec"]["template"]["spec"]["volumes"] == [
        {"name": "a", "configMap": {"name": f"c{configmaps}"}},
        {"name": "b", "secret": {"secretName": f"s{secrets}"}},
        {
            "name": "c",
            "cloudInitNoCloud": {"secretRef": {"name": f"s{secrets}"}, "networkDataSecretRef": {"name": f"n{secrets}"}},
        },
        {"name": "d", "cloudInitConfigDrive": {"secretRef": {"name": f"s{secrets}"}}},
        {"name": "e", "sysprep": {"configMap": {"name": f"c{configmaps}"}}},
        {"name": "f", "sysprep": {"secret": {"name": f"s{secrets}"}}},
        {"name": "g", "persistentVolumeClaim": {"claimName": "shared"}},
    ]


def test_data_volumes_get_the_index() -> None:
    volumes = [
        {"name": "a", "dataVolume": {"name": "disk"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "disk"}},
        {"name": "c", "dataVolume": {"name": "other"}},
    ]
    wanted = pool(template={"volumes": volumes})
    wanted["spec"]["virtualMachineTemplate"]["spec"]["dataVolumeTemplates"] = [{"metadata": {"name": "disk"}}]
    spec = make_machine(wanted, 2)["spec"]
    assert spec["dataVolumeTemplates"] == [{"metadata": {"name": "disk-2"}}]
    assert [list(each.values())[1] for each in spec["template"]["spec"]["volumes"]] == [
        {"name": "disk-2"},
        {"claimName": "disk-2"},
        {"name": "other"},
    ]


def test_status() -> None:
    found = status(pool(paused=True), [machine(0), machine(1, ready=False)], ("FailedScaleOut", "no"), STAMP)
    assert (found["replicas"], found["readyReplicas"], found["labelSelector"]) == (2, 1, "app=web")
    assert [(each["type"], each["reason"], each["message"]) for each in found["conditions"]] == [
        ("ReplicaFailure", "FailedScaleOut", "no"),
        ("ReplicaPaused", "SuccessfulPaused", "Pool controller is paused"),
    ]
    assert "conditions" not in status({**pool(), "status": found}, [], None, STAMP)
