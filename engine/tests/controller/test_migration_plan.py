# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from turtles.api import labels
from turtles.api.configuration import ClusterConfiguration, Migrations
from turtles.api.times import rfc3339
from turtles.controller.migration.plan import KEPT, Plan, Situation, plan, superfluous
from turtles.controller.migration.target import target_name, target_pod
from turtles.controller.pod.config import LauncherConfig

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ago(seconds: float) -> str:
    return rfc3339(NOW - timedelta(seconds=seconds))


def make(phase: str = "", name: str = "m", *, deleted: bool = False, age: float = 0, **status: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "creationTimestamp": ago(age)}
    metadata["finalizers"] = ["kubevirt.io/migrationJobFinalize"]
    if deleted:
        metadata["deletionTimestamp"] = ago(0)
    return {
        "metadata": metadata,
        "spec": {"vmiName": "web"},
        "status": {**({"phase": phase} if phase else {}), **status},
    }


def with_side(name: str) -> dict[str, Any]:
    migration = make("Pending")
    migration["spec"][name] = {"migrationID": "a"}
    return migration


def vmi(phase: str = "Running", migratable: str = "True", **state: Any) -> dict[str, Any]:
    conditions = [{"type": "LiveMigratable", "status": migratable, "reason": "R", "message": "because"}]
    status = {"phase": phase, "nodeName": "one", "activePods": {"source-uid": "one"}, "conditions": conditions}
    if state:
        status["migrationState"] = {"migrationUid": "uid-m", "sourceNode": "one", "targetNode": "two", **state}
        status["activePods"] = {**status["activePods"], "target-uid": "two"}  # type: ignore[dict-item]
    metadata = {"name": "web", "namespace": "ns", "uid": "vmi-uid", "labels": {labels.NODE_NAME: "one"}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": metadata,
        "spec": {"domain": {"memory": {"guest": "64M"}}},
        "status": status,
    }


def pod(*, running: bool = True, age: float = 1, phase: str = "Running", conditions: Any = ()) -> dict[str, Any]:
    state = {"running": {}} if running else {"waiting": {}}
    return {
        "metadata": {"name": "target", "namespace": "ns", "uid": "target-uid", "creationTimestamp": ago(age)},
        "spec": {"nodeName": "two"} if running else {},
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": "compute", "state": state}],
            "conditions": list(conditions),
        },
    }


SOURCE = {"metadata": {"name": "source", "uid": "source-uid"}, "spec": {}, "status": {"phase": "Running"}}


def decide(
    migration: dict[str, Any],
    found: Any,
    target: Any = None,
    *others: Any,
    nodes: dict[tuple[str, str], str] | None = None,
    **settings: int,
) -> Plan:
    cluster = ClusterConfiguration(migrations=Migrations(**settings))
    before = copy.deepcopy((migration, found, target))
    decided = plan(migration, Situation(found, target, SOURCE, others, cluster, nodes=nodes or {}), NOW)
    assert (migration, found, target) == before, "changed what is stored"
    return decided


def test_from_pending_to_scheduling() -> None:
    decided = decide(make(), vmi())
    assert decided.create_pod
    assert decided.status["phase"] == "Scheduling"


@pytest.mark.parametrize(
    ("found", "others", "settings"),
    [
        (vmi("Scheduled"), (), {}),
        (vmi(), (make("Running", "o"),), {}),
        (vmi(), (make("Pending", "o", age=9),), {}),
        (vmi(migrationUid="uid-x"), (), {}),
        (vmi(), ({**make("Running", "o"), "spec": {"vmiName": "other"}},), {"parallel_per_cluster": 1}),
        (
            vmi(),
            ({**make("Running", "o", migrationState={"sourceNode": "one"}), "spec": {"vmiName": "other"}},),
            {"parallel_outbound_per_node": 1},
        ),
    ],
)
def test_it_waits_for_its_turn(found: Any, others: Any, settings: dict[str, int]) -> None:
    decided = decide(make("Pending"), found, None, *others, **settings)
    assert not decided.create_pod
    assert decided.status["phase"] == "Pending"


def test_others_that_have_ended_or_leave_elsewhere_are_no_hindrance() -> None:
    elsewhere = {**make("Running", "o", migrationState={"sourceNode": "three"}), "spec": {"vmiName": "other"}}
    decided = decide(make("Pending"), vmi(), None, make("Failed", "f"), elsewhere, parallel_outbound_per_node=1)
    assert decided.create_pod


def waiting(name: str, priority: str | None = None, *, phase: str = "Pending", **more: Any) -> dict[str, Any]:
    spec = {"vmiName": name, **({"priority": priority} if priority else {})}
    return {**make(phase, name, **more), "spec": spec}


NODES = {("ns", "other"): "one", ("ns", "third"): "three"}
QUOTA = {"type": "migrationRejectedByResourceQuota", "status": "True"}


@pytest.mark.parametrize(
    ("own", "others", "begins"),
    [
        (None, [waiting("other")], False),  # whose name comes first is the older one
        (None, [waiting("other", age=-9)], True),
        ("system-critical", [waiting("other", "user-triggered")], True),
        ("system-maintenance", [waiting("other", "user-triggered", age=-9)], False),
        ("user-triggered", [waiting("other", "user-triggered", age=9)], False),
        ("user-triggered", [waiting("third", "system-critical", age=-9)], False),
        ("unknown", [waiting("third", "system-maintenance", age=-9)], False),
        # What can't begin itself keeps nobody
        (None, [waiting("other", "system-critical", deleted=True)], True),
        (None, [waiting("other", "system-critical", conditions=[QUOTA])], True),
        (None, [waiting("stopped", "system-critical")], True),
        # One of an instance is under way, the next one waits for that
        (None, [waiting("third", "system-critical"), waiting("third", phase="Scheduling")], True),
    ],
)
def test_who_comes_first(own: str | None, others: Any, begins: bool) -> None:
    under_way = sum(each["status"]["phase"] == "Scheduling" for each in others)
    found = vmi()
    decided = decide(waiting("web", own), found, None, *others, nodes=NODES, parallel_per_cluster=1 + under_way)
    assert decided.create_pod is begins


def test_those_that_leave_a_busy_node_keep_nobody_elsewhere() -> None:
    critical = [waiting("other", "system-critical"), waiting("busy", phase="Scheduling")]
    nodes = {**NODES, ("ns", "other"): "three", ("ns", "busy"): "three"}
    decided = decide(waiting("web"), vmi(), None, *critical, nodes=nodes, parallel_outbound_per_node=1)
    assert decided.create_pod
    decided = decide(
        waiting("web"), vmi(), None, *critical, nodes={**NODES, ("ns", "busy"): "one"}, parallel_outbound_per_node=1
    )
    assert not decided.create_pod, "one that has no state yet leaves its node, too"


@pytest.mark.parametrize(
    ("migration", "found", "target", "words"),
    [
        (make("Pending"), None, None, "is no longer running"),
        (make("Pending"), vmi("Failed"), None, "is no longer running"),
        (make("Pending"), vmi(migratable="False"), None, "Reason: R, Message: because"),
        (make("Pending", deleted=True), vmi(), None, "cancelled before it started"),
        (with_side("sendTo"), vmi(), None, "spec.sendTo is not supported by this engine: there is no synchronization"),
        (with_side("receive"), None, None, "spec.receive is not supported by this engine"),
        (make("Scheduling"), vmi(), None, "Pod is gone"),
        (make("Scheduling"), vmi(), pod(phase="Failed"), "Pod ended"),
        (make("Scheduling", deleted=True), vmi(), pod(), "cancelled before it started"),
        (make("Scheduling"), vmi(), pod(running=False, age=901), "does not start (gave up after 15 minutes)"),
        (
            make("Scheduling"),
            vmi(),
            pod(
                running=False,
                age=301,
                conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "full"}],
            ),
            "no node can take the guest: full (gave up after 5 minutes)",
        ),
        (make("Running"), vmi("Failed", startTimestamp=ago(1)), pod(), "ended during its migration"),
        (make("Running"), vmi(failed=True, failureReason="broken pipe"), pod(), "broken pipe"),
        (make("Running"), vmi(migrationUid="another"), pod(), "not migrated by this migration"),
    ],
)
def test_why_it_fails(migration: Any, found: Any, target: Any, words: str) -> None:
    decided = decide(migration, found, target)
    assert decided.status["phase"] == "Failed"
    ((type_, reason, message),) = decided.events
    assert (type_, reason) == ("Warning", "FailedMigration")
    assert words in message


def test_the_nodes_are_told_when_the_target_runs() -> None:
    assert decide(make("Scheduling"), vmi(), pod(running=False)).status["phase"] == "Scheduling"
    decided = decide(make("Scheduling"), vmi(), pod())
    assert decided.status["phase"] == "Scheduled"
    assert decided.vmi is not None
    state = decided.vmi["status"]["migrationState"]
    assert (state["sourceNode"], state["targetNode"], state["targetPod"]) == ("one", "two", "target")
    assert decided.vmi["status"]["activePods"] == {"source-uid": "one", "target-uid": "two"}
    assert decided.vmi["metadata"]["labels"][labels.MIGRATION_TARGET_NODE_NAME] == "two"


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ({"sourcePod": "source"}, "PreparingTarget"),
        ({"targetNodeAddress": "192.0.2.1"}, "TargetReady"),
        ({"targetNodeAddress": "192.0.2.1", "startTimestamp": ago(1)}, "Running"),
        ({"startTimestamp": ago(1), "completed": True, "endTimestamp": ago(0)}, "Succeeded"),
    ],
)
def test_phases_follow_what_the_nodes_say(state: dict[str, Any], phase: str) -> None:
    decided = decide(make("Scheduled"), vmi(**state), pod())
    assert decided.status["phase"] == phase
    assert decided.status["migrationState"]["migrationUid"] == "uid-m"


def test_who_waits_for_its_end_finds_the_new_address() -> None:
    found = vmi(completed=True, startTimestamp=ago(5), endTimestamp=ago(1))
    found["status"]["interfaces"] = [{"ipAddresses": ["10.0.0.1"]}]
    target = pod()
    target["status"]["podIPs"] = [{"ip": "10.0.0.2"}]
    assert decide(make("Running"), found, target).status["phase"] == "Running"
    found["status"]["migrationState"]["endTimestamp"] = ago(60)
    assert decide(make("Running"), found, target).status["phase"] == "Succeeded"
    found["status"]["interfaces"] = [{"ipAddresses": ["10.0.0.2"]}]
    assert decide(make("Running"), found, target).status["phase"] == "Succeeded"


def test_deleting_it_asks_the_source_to_abort() -> None:
    decided = decide(make("Running", deleted=True), vmi(startTimestamp=ago(1)), pod())
    assert decided.status["phase"] == "Running"
    assert decided.vmi is not None
    assert decided.vmi["status"]["migrationState"]["abortRequested"]
    assert decided.status["conditions"][0]["type"] == "migrationAbortRequested"
    assert decided.finalizers is None


def test_a_target_that_goes_before_the_guest_leaves() -> None:
    decided = decide(make("PreparingTarget"), vmi(sourcePod="source"), None)
    assert decided.vmi is not None
    assert decided.vmi["status"]["migrationState"]["failed"]
    # on its way it is the source's word that counts
    assert decide(make("Running"), vmi(startTimestamp=ago(1)), None).vmi is None


def test_what_is_left_of_one_that_failed_goes() -> None:
    found = vmi(failed=True, completed=True)
    found["metadata"]["labels"][labels.MIGRATION_TARGET_NODE_NAME] = "two"
    target = pod()
    decided = decide(make("Failed"), found, target)
    assert decided.delete_pods == [target]
    assert decided.vmi is not None
    assert decided.vmi["status"]["activePods"] == {"source-uid": "one"}
    assert labels.MIGRATION_TARGET_NODE_NAME not in decided.vmi["metadata"]["labels"]
    assert decided.finalizers == []


def test_the_pod_with_the_guest_stays() -> None:
    found = vmi(completed=True)
    found["status"] |= {"nodeName": "two", "activePods": {"target-uid": "two"}}
    done = make("Succeeded", migrationState={"endTimestamp": ago(60), "sourcePod": "source"})
    assert decide(done, found, pod()).delete_pods == [SOURCE]
    assert decide(make("Failed"), found, pod()).delete_pods == []


def test_the_last_five_are_kept() -> None:
    ended = [make("Succeeded", f"m{age}", age=age) for age in range(8)]
    assert [each["metadata"]["name"] for each in superfluous(ended[0], ended[1:])] == ["m7", "m6", "m5"]
    assert len(ended) - 3 == KEPT
    assert superfluous(ended[0], [make("Running", "r", age=99)]) == []


def test_the_targets_pod() -> None:
    source = {
        "metadata": {
            "labels": {
                "host-model-cpu.node.kubevirt.io/Skylake": "true",
                "host-model-required-features.node.kubevirt.io/avx2": "true",
            }
        }
    }
    migration = {**make(), "spec": {"vmiName": "web", "addedNodeSelector": {"rack": "7"}}}
    found = vmi()
    found["spec"]["affinity"] = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]
            }
        }
    }
    made = target_pod(found, migration, LauncherConfig("launcher:1", kvm=True), source)
    assert made["metadata"]["name"] == target_name(found, migration)
    assert made["metadata"]["labels"][labels.MIGRATION_JOB_UID] == "uid-m"
    assert labels.NODE_NAME not in made["metadata"]["labels"]
    selector = made["spec"]["nodeSelector"]
    assert selector["rack"] == "7"
    assert selector["cpu-model-migration.node.kubevirt.io/Skylake"] == "true"
    assert selector["cpu-feature.node.kubevirt.io/avx2"] == "true"
    required = made["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    for term in required["nodeSelectorTerms"]:
        assert {"key": "metadata.name", "operator": "NotIn", "values": ["one"]} in term["matchFields"]
    emulated = target_pod(vmi(), migration, LauncherConfig("launcher:1", kvm=False), source)
    assert not any("cpu-model" in name for name in emulated["spec"]["nodeSelector"])
