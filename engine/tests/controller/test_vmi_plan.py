# SPDX-License-Identifier: GPL-3.0-or-later
import copy
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import jsonpatch
import pytest

from turtles.api import configuration, configuration_reader, labels
from turtles.api.changes import json_diff, merge_diff
from turtles.api.rules import label_problems, subdomain_problems
from turtles.api.times import rest_of, rfc3339
from turtles.controller.heartbeats import Heartbeats, silent_for
from turtles.controller.node import failed, is_alive
from turtles.controller.pod import placement
from turtles.controller.pod.config import LauncherConfig
from turtles.controller.pod.launcher import launcher_pod, pod_name
from turtles.controller.pod.memory import overhead
from turtles.controller.server import image_volumes, mounts_images, pulls_again
from turtles.controller.vmi.controller import limited_resources
from turtles.controller.vmi.patches import gate_patch, vmi_patch
from turtles.controller.vmi.plan import plan
from turtles.controller.vmi.status import GATE_ENDED, GATE_OPEN, GATE_PAUSED, GATE_TERMINATING

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAMP = "2026-01-02T03:04:05Z"


def make_vmi(phase: str = "Pending", *, deleted: bool = False, spec: dict | None = None, **status: object) -> dict:
    metadata = {
        "name": "testvm",
        "namespace": "ns",
        "uid": "vmi-uid",
        "resourceVersion": "7",
        "finalizers": [labels.VMI_FINALIZER],
        "labels": {"app": "web"},
        "annotations": {"note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }
    if deleted:
        metadata["deletionTimestamp"] = STAMP
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": metadata,
        "spec": spec or {"domain": {"memory": {"guest": "64M"}}},
        "status": {"phase": phase, **status},
    }


def make_pod(phase: str = "Pending", *, ready: bool = False, deleted: bool = False, node: str = "", **status) -> dict:
    conditions = [{"type": "ContainersReady", "status": "True"}] if ready else []
    conditions += status.pop("conditions", [])
    metadata = {"name": pod_name(make_vmi()), "namespace": "ns", "uid": "pod-uid"}
    if deleted:
        metadata["deletionTimestamp"] = STAMP
    spec = {"containers": [{"image": "launcher:1"}], **({"nodeName": node} if node else {})}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase, "conditions": conditions, **status}}


def condition(vmi: dict, type_: str) -> tuple | None:
    for each in vmi["status"]["conditions"]:
        if each["type"] == type_:
            return each["status"], each.get("reason"), each.get("message")
    return None


def waiting(reason: str) -> list:
    return [{"name": "compute", "state": {"waiting": {"reason": reason, "message": f"{reason}: no such image"}}}]


def terminated(message: str = "", finished: str = STAMP) -> list:
    return [
        {
            "name": "compute",
            "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": message, "finishedAt": finished}},
        }
    ]


def test_a_new_vmi_gets_a_pod() -> None:
    vmi = make_vmi()
    before = copy.deepcopy(vmi)
    decided = plan(vmi, [], {}, NOW)
    assert vmi == before
    assert decided.create_pod
    assert decided.vmi["status"]["phase"] == "Scheduling"
    assert condition(decided.vmi, "Ready")[:2] == ("False", "GuestNotRunning")
    assert decided.vmi["status"]["phaseTransitionTimestamps"] == [
        {"phase": "Scheduling", "phaseTransitionTimestamp": STAMP}
    ]


def test_a_missing_claim_is_waited_for() -> None:
    spec = {"domain": {}, "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "claim"}}]}
    decided = plan(make_vmi("", spec=spec), [], {"claim": None}, NOW)
    assert not decided.create_pod
    assert decided.vmi["status"]["phase"] == "Pending"
    assert condition(decided.vmi, "Synchronized")[1] == "FailedPvcNotFound"
    assert [event[1] for event in decided.events] == ["FailedPvcNotFound"]
    pvc = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    decided = plan(decided.vmi, [], {"claim": pvc}, NOW)
    assert decided.create_pod
    assert condition(decided.vmi, "Synchronized") is None
    assert decided.vmi["status"]["volumeStatus"][0]["persistentVolumeClaimInfo"] == {
        "claimName": "claim",
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "requests": {"storage": "1Gi"},
        "filesystemOverhead": "0.06",
    }


@pytest.mark.parametrize(
    ("vmi", "pods", "phase"),
    [
        (make_vmi("Pending"), [make_pod()], "Scheduling"),
        (make_vmi("Scheduling"), [make_pod("Running", node="n")], "Scheduling"),
        (make_vmi("Scheduling"), [make_pod("Running", node="n", ready=True)], "Scheduled"),
        (make_vmi("Scheduling"), [make_pod("Failed")], "Failed"),
        (make_vmi("Scheduling"), [make_pod(deleted=True)], "Failed"),
        (make_vmi("Scheduling"), [], "Failed"),
        (make_vmi("Pending", deleted=True), [], "Failed"),
        (make_vmi("Scheduling", deleted=True), [make_pod("Running", node="n", ready=True)], "Failed"),
        (make_vmi("Scheduled"), [], "Failed"),
        (make_vmi("Running"), [], "Failed"),
        (make_vmi("Running"), [make_pod("Running")], "Running"),
        (make_vmi("Running"), [make_pod("Running", deleted=True)], "Running"),
        (make_vmi("Running", deleted=True), [make_pod("Running")], "Running"),
        (make_vmi("Succeeded"), [], "Succeeded"),
    ],
)
def test_phases(vmi: dict, pods: list, phase: str) -> None:
    decided = plan(vmi, pods, {}, NOW)
    assert decided.vmi["status"]["phase"] == phase
    assert not decided.create_pod
    if phase in ("Failed", "Succeeded"):
        assert decided.delete_pods == [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    else:
        assert not decided.delete_pods


def test_the_node_takes_over() -> None:
    pod = make_pod("Running", node="n", ready=True, qosClass="Burstable")
    decided = plan(make_vmi("Scheduling"), [pod], {}, NOW)
    assert decided.vmi["metadata"]["labels"] == {"app": "web", "kubevirt.io/nodeName": "n"}
    status = decided.vmi["status"]
    assert (status["nodeName"], status["activePods"], status["runtimeUser"], status["qosClass"]) == (
        "n",
        {"pod-uid": "n"},
        107,
        "Burstable",
    )
    assert status["launcherContainerImageVersion"] == "launcher:1"
    assert decided.gate == GATE_OPEN


@pytest.mark.parametrize(
    ("state", "mesh_ready", "up"),
    [("running", True, True), ("running", False, False), ("waiting", True, False)],
)
def test_a_probe_of_the_guest_does_not_keep_it_from_starting(state: str, mesh_ready: bool, up: bool) -> None:
    statuses = [
        {"name": "compute", "ready": False, "state": {state: {}}},
        {"name": "mesh", "ready": mesh_ready, "state": {"running": {}}},
    ]
    pod = make_pod("Running", node="n", containerStatuses=statuses)
    pod["spec"]["containers"] = [{"name": "compute", "image": "launcher:1", "readinessProbe": {"exec": {}}}]
    phase = plan(make_vmi("Scheduling"), [pod], {}, NOW).vmi["status"]["phase"]
    assert phase == ("Scheduled" if up else "Scheduling")
    del pod["spec"]["containers"][0]["readinessProbe"]
    assert plan(make_vmi("Scheduling"), [pod], {}, NOW).vmi["status"]["phase"] == "Scheduling"


def test_an_obstacle_keeps_the_pod_from_being_made() -> None:
    obstacle = "spec.networks[0].resourceClaim is not supported"
    decided = plan(make_vmi(), [], {}, NOW, obstacles=[obstacle])
    assert not decided.create_pod
    assert decided.vmi["status"]["phase"] == "Pending"
    assert condition(decided.vmi, "Synchronized") == ("False", "FailedCreate", obstacle)
    assert list(decided.events) == [("Warning", "FailedCreate", obstacle)]
    again = plan(decided.vmi, [], {}, NOW, obstacles=[obstacle])
    assert not again.events, "once is enough"
    assert again.wait
    assert plan(decided.vmi, [], {}, NOW).create_pod, "the configuration may have changed"


def test_a_vsock_address_comes_with_the_pod() -> None:
    spec = {"domain": {"memory": {"guest": "64M"}, "devices": {"autoattachVSOCK": True}}}
    first = plan(make_vmi(spec=spec), [], {}, NOW).vmi["status"]["VSOCKCID"]
    second = plan(make_vmi(spec=spec), [], {}, NOW, addresses={first}).vmi["status"]["VSOCKCID"]
    assert first != second
    assert plan(make_vmi(spec=spec, VSOCKCID=7), [], {}, NOW).vmi["status"]["VSOCKCID"] == 7
    assert "VSOCKCID" not in plan(make_vmi(), [], {}, NOW).vmi["status"]


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "CreateContainerError", "ErrImageNotRunnable"])
def test_trouble_of_a_container_is_shown_and_taken_back(reason: str) -> None:
    first = plan(make_vmi("Scheduling"), [make_pod(containerStatuses=waiting(reason))], {}, NOW)
    assert condition(first.vmi, "Synchronized") == ("False", reason, f"{reason}: no such image")
    ((type_, told, message),) = first.events
    assert (type_, told) == ("Warning", reason)
    assert message.startswith(f"{reason}: no such image; ")
    again = plan(first.vmi, [make_pod(containerStatuses=waiting(reason))], {}, NOW)
    assert not again.events
    assert not vmi_patch(first.vmi, again.vmi)
    assert condition(plan(first.vmi, [make_pod()], {}, NOW).vmi, "Synchronized") is None


def test_a_container_that_is_being_made_is_no_trouble() -> None:
    decided = plan(make_vmi("Scheduling"), [make_pod(containerStatuses=waiting("ContainerCreating"))], {}, NOW)
    assert condition(decided.vmi, "Synchronized") is None


def test_an_unschedulable_pod() -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    first = plan(make_vmi("Scheduling"), [make_pod(conditions=[scheduled])], {}, NOW)
    assert condition(first.vmi, "PodScheduled") == ("False", "Unschedulable", "0/1 nodes")
    assert condition(plan(first.vmi, [make_pod()], {}, NOW).vmi, "PodScheduled") is None


def test_the_launchers_last_words() -> None:
    pod = make_pod("Failed", containerStatuses=terminated("volume root: image x has no /disk\n"))
    decided = plan(make_vmi("Scheduling"), [pod], {}, NOW)
    assert decided.failure == "the virt-launcher Pod ended: volume root: image x has no /disk"
    assert condition(decided.vmi, "Synchronized")[1] == "LauncherFailed"


def test_the_node_agent_has_the_last_word() -> None:
    recent = (NOW - timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    decided = plan(make_vmi("Running"), [make_pod("Failed", containerStatuses=terminated(finished=recent))], {}, NOW)
    assert (decided.vmi["status"]["phase"], decided.wait) == ("Running", 3)
    later = plan(
        make_vmi("Running"),
        [make_pod("Failed", containerStatuses=terminated(finished=recent))],
        {},
        NOW + timedelta(seconds=4),
    )
    assert later.vmi["status"]["phase"] == "Failed"
    assert "exit" in later.failure or "Error 1" in later.failure


@pytest.mark.parametrize(
    ("phase", "pod", "expected"),
    [
        ("Running", make_pod(conditions=[{"type": "Ready", "status": "True"}]), ("True", None)),
        ("Running", make_pod(conditions=[{"type": "Ready", "status": "False", "reason": "R"}]), ("False", "R")),
        ("Running", make_pod(), ("False", "PodConditionMissing")),
        ("Running", make_pod(deleted=True), ("False", "PodTerminating")),
        ("Scheduled", make_pod(conditions=[{"type": "Ready", "status": "True"}]), ("False", "GuestNotRunning")),
    ],
)
def test_ready(phase: str, pod: dict, expected: tuple) -> None:
    assert condition(plan(make_vmi(phase), [pod], {}, NOW).vmi, "Ready")[:2] == expected


@pytest.mark.parametrize("gate", ["True", "False"])
@pytest.mark.parametrize("phase", ["Scheduled", "Running"])
def test_a_guest_that_is_to_shut_down_is_not_ready(phase: str, gate: str) -> None:
    """From the deletion on, though its Pod is ready until the guest has shut down."""
    conditions = [
        {"type": "Ready", "status": gate, "reason": "ReadinessGatesNotReady"},
        {"type": labels.UNPAUSED_READINESS_GATE, "status": "True"},
    ]
    pod = make_pod("Running", ready=True, conditions=conditions)
    vmi = make_vmi(phase, deleted=True, conditions=[{"type": "Ready", "status": "True"}])
    decided = plan(vmi, [pod], {}, NOW)
    assert condition(decided.vmi, "Ready") == ("False", "PodTerminating", "virt-launcher pod is terminating")
    assert decided.delete_pods == [], "it shuts down first"


def test_a_guest_whose_launcher_is_silent_is_not_ready() -> None:
    silent = {"type": "Synchronized", "status": "False", "reason": "LauncherUnresponsive", "message": "since 5 s"}
    pod = make_pod("Running", ready=True, conditions=[{"type": "Ready", "status": "True"}])
    decided = plan(make_vmi("Running", conditions=[silent]), [pod], {}, NOW)
    assert condition(decided.vmi, "Ready") == ("False", "LauncherUnresponsive", "since 5 s")
    decided = plan(make_vmi("Running", conditions=[]), [pod], {}, NOW)
    assert condition(decided.vmi, "Ready")[0] == "True"


@pytest.mark.parametrize(
    ("gate", "paused", "writes"), [("True", "", False), ("False", "", False), ("False", "True", True)]
)
def test_a_gate_that_the_kubelet_has_yet_to_read_is_not_worth_a_write(gate: str, paused: str, writes: bool) -> None:
    """One that is opened in this very moment, as after a migration, is no other."""
    was = {
        "type": "Ready",
        "status": "False",
        "reason": "GuestNotRunning",
        "message": "Guest VM is not reported as running",
        "lastTransitionTime": STAMP,
        "lastProbeTime": None,
    }
    pod = make_pod(
        "Running",
        ready=True,
        conditions=[
            {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"},
            {"type": labels.UNPAUSED_READINESS_GATE, "status": gate},
        ],
    )
    conditions = [was, {"type": "Paused", "status": "True"}] if paused else [was]
    vmi = make_vmi("Running", conditions=conditions)
    assert bool(vmi_patch(vmi, plan(vmi, [pod], {}, NOW).vmi)) is writes


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_the_end_is_told_in_one_write(phase: str) -> None:
    pod = make_pod("Running", ready=True, conditions=[{"type": "Ready", "status": "True"}])
    vmi = make_vmi(phase, conditions=[{"type": "Ready", "status": "True"}])
    decided = plan(vmi, [pod], {}, NOW)
    assert decided.delete_pods == [pod]
    assert condition(decided.vmi, "Ready")[:2] == ("False", "PodTerminating")
    pod["metadata"]["deletionTimestamp"] = STAMP
    assert vmi_patch(decided.vmi, plan(decided.vmi, [pod], {}, NOW).vmi) == []


@pytest.mark.parametrize(
    ("vmi", "gate"),
    [
        (make_vmi("Scheduled"), GATE_OPEN),
        (make_vmi("Running"), GATE_OPEN),
        (make_vmi("Running", conditions=[{"type": "Paused", "status": "True"}]), GATE_PAUSED),
        (make_vmi("Scheduled", spec={"domain": {}, "startStrategy": "Paused"}), None),
        (make_vmi("Running", spec={"domain": {}, "startStrategy": "Paused"}), GATE_OPEN),
        # Services send nothing to a guest that shuts down, or has ended
        (make_vmi("Running", deleted=True), GATE_TERMINATING),
        (make_vmi("Scheduled", deleted=True), GATE_TERMINATING),
        (
            make_vmi("Failed", phaseTransitionTimestamps=[{"phase": "Failed", "phaseTransitionTimestamp": STAMP}]),
            GATE_ENDED,
        ),
    ],
)
def test_readiness_gate(vmi: dict, gate: tuple[str, str, str] | None) -> None:
    assert plan(vmi, [make_pod("Running")], {}, NOW).gate == gate


def test_readiness_gate_patch() -> None:
    pod = make_pod("Running", ready=True)
    patched = jsonpatch.apply_patch(pod, gate_patch(pod, GATE_OPEN, STAMP))
    assert [each["type"] for each in patched["status"]["conditions"]] == [
        "ContainersReady",
        labels.UNPAUSED_READINESS_GATE,
    ]
    assert gate_patch(patched, GATE_OPEN, STAMP) == []
    assert gate_patch(patched, GATE_PAUSED, STAMP)[0]["op"] == "test"


def test_a_final_vmi_is_released_when_its_pods_are_gone() -> None:
    vmi = make_vmi("Succeeded", deleted=True, activePods={"pod-uid": "n"})
    vmi["metadata"]["finalizers"].append(labels.VM_FINALIZER)
    assert plan(vmi, [make_pod(deleted=True)], {}, NOW).vmi["metadata"]["finalizers"] == vmi["metadata"]["finalizers"]
    last = plan(vmi, [], {}, NOW).vmi
    assert last["metadata"]["finalizers"] == [labels.VM_FINALIZER]
    assert "activePods" not in last["status"]
    assert plan(make_vmi("Succeeded"), [], {}, NOW).vmi["metadata"]["finalizers"] == [labels.VMI_FINALIZER]


@pytest.mark.parametrize(
    ("deleted", "age", "told", "wait"),
    [
        (None, 1, False, 4),  # the kubelet may know more
        (None, 6, False, None),
        (None, 1, True, None),
        ("2026-01-02T03:04:04Z", 1, False, 4),  # by its VM, after it had failed
        ("2026-01-02T03:04:00Z", 1, False, None),  # somebody wanted its end
    ],
)
def test_the_kubelet_has_a_moment_to_say_why_a_pod_ended(
    deleted: str | None, age: int, told: bool, wait: float | None
) -> None:
    failed_at = (NOW - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
    vmi = make_vmi("Failed", phaseTransitionTimestamps=[{"phase": "Failed", "phaseTransitionTimestamp": failed_at}])
    if deleted:
        vmi["metadata"]["deletionTimestamp"] = deleted
    oom = [{"name": "compute", "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": STAMP}}}]
    pod = make_pod("Running", node="n", **({"containerStatuses": oom} if told else {}))
    decided = plan(vmi, [pod], {}, NOW)
    assert (decided.delete_pods, decided.wait) == (([], wait) if wait else ([pod], None))
    assert [event[1] for event in decided.events] == (["LauncherOOMKilled"] if told else [])


def test_why_its_pod_ended_is_in_a_condition_too() -> None:
    vmi = make_vmi("Failed", conditions=[{"type": "Synchronized", "status": "False", "reason": "LauncherUnresponsive"}])
    oom = [{"name": "compute", "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": STAMP}}}]
    decided = plan(vmi, [make_pod("Failed", node="n", containerStatuses=oom)], {}, NOW)
    assert condition(decided.vmi, "Synchronized")[:2] == ("False", "LauncherOOMKilled")


REJECTED = {"reason": "UnexpectedAdmissionError", "message": "Allocate failed due to no healthy devices present"}


def rejected_pod(age: float, **more: object) -> dict:
    pod = make_pod("Failed", node="n", **{**REJECTED, **more})
    pod["metadata"]["creationTimestamp"] = rfc3339(NOW - timedelta(seconds=age))
    return pod


def scheduling_since(seconds: float, **status: object) -> dict:
    stamp = rfc3339(NOW - timedelta(seconds=seconds))
    entry = {"phase": "Scheduling", "phaseTransitionTimestamp": stamp}
    return make_vmi("Scheduling", phaseTransitionTimestamps=[entry], **status)


@pytest.mark.parametrize("reason", ["UnexpectedAdmissionError", "OutOfmemory", "NodeShutdown"])
def test_a_pod_that_its_node_rejects_is_replaced(reason: str) -> None:
    """No start fails because a device plugin is away for a moment, as while virt-handler restarts."""
    first = plan(scheduling_since(0), [rejected_pod(0, reason=reason)], {}, NOW)
    assert first.vmi["status"]["phase"] == "Scheduling"
    assert not first.failure
    assert (list(first.delete_pods), first.wait) == ([], 1)
    status, told, message = condition(first.vmi, "Synchronized")
    assert (status, told) == ("False", "PodRejected")
    assert reason in message
    assert [event[1] for event in first.events] == ["PodRejected"]
    pod = rejected_pod(2, reason=reason)
    second = plan({**scheduling_since(2), "status": first.vmi["status"]}, [pod], {}, NOW)
    assert (second.delete_pods, second.events) == ([pod], [])
    pod["metadata"]["deletionTimestamp"] = STAMP
    waiting_for_its_end = plan(second.vmi, [pod], {}, NOW)
    assert (list(waiting_for_its_end.delete_pods), waiting_for_its_end.failure) == ([], "")
    third = plan(second.vmi, [], {}, NOW)
    assert third.create_pod
    assert not third.lost_pod
    assert condition(third.vmi, "Synchronized") is None
    assert [each["phase"] for each in third.vmi["status"]["phaseTransitionTimestamps"]] == ["Scheduling"]


@pytest.mark.parametrize(("since", "pause"), [(0, 1), (10, 5), (3600, 30)])
def test_pods_are_replaced_ever_more_rarely(since: float, pause: float) -> None:
    assert plan(scheduling_since(since), [rejected_pod(0)], {}, NOW).wait == pause


@pytest.mark.parametrize(
    "more", [{"containerStatuses": terminated()}, {"reason": "Evicted"}, {"reason": "", "message": "no word"}]
)
def test_a_pod_that_ran_or_was_evicted_is_not_rejected(more: dict) -> None:
    assert plan(scheduling_since(60), [rejected_pod(60, **more)], {}, NOW).vmi["status"]["phase"] == "Failed"


def test_a_lost_pod_is_looked_for_before_the_vmi_fails() -> None:
    assert plan(make_vmi("Running"), [], {}, NOW).lost_pod


def test_patches_of_an_owned_vmi_only_test_what_they_touch() -> None:
    running = make_vmi("Running", conditions=[], nodeName="n")
    patch = vmi_patch(running, plan(running, [make_pod("Running")], {}, NOW).vmi)
    assert {operation["path"] for operation in patch} == {"/status/conditions"}
    assert jsonpatch.apply_patch(running, patch)["status"]["conditions"][0]["type"] == "Ready"
    pending = make_vmi()
    paths = [operation["path"] for operation in vmi_patch(pending, plan(pending, [], {}, NOW).vmi)]
    assert "/metadata/resourceVersion" in paths


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 2}),
        ({}, {"s": {"a": 1}}),
        ({"s": {"a": 1}}, {"s": {}}),
        ({"s": {"a/b": 1, "c": [1]}}, {"s": {"a/b": 2, "d~": 3}}),
    ],
)
def test_json_diff_and_merge_diff_lead_to_the_new_object(old: dict, new: dict) -> None:
    patch = json_diff(old, new, [("s", "*"), ("a",)])
    assert jsonpatch.apply_patch(old, patch) == new
    assert bool(patch) == (old != new)
    assert bool(merge_diff(old, new)) == (old != new)


# The Pod


def launched(spec: dict, **config: object) -> dict:
    return launcher_pod(
        make_vmi(spec={"domain": {"memory": {"guest": "64M"}}, **spec}),
        LauncherConfig("launcher:1", **{"image_volumes": True, **config}),
    )


def test_limits_where_a_quota_demands_them() -> None:
    spec = {"domain": {"memory": {"guest": "64M"}, "cpu": {"cores": 2}}}
    free, limited = (
        launched(spec, limited=frozenset(names))["spec"]["containers"][0]["resources"]
        for names in ((), ("cpu", "memory"))
    )
    assert not {"cpu", "memory"} & free["limits"].keys()
    assert limited["requests"] == free["requests"]
    assert limited["limits"]["cpu"] == "2"
    assert int(limited["limits"]["memory"]) == 2 * int(free["requests"]["memory"])
    own = {**spec["domain"], "resources": {"limits": {"cpu": "3", "memory": "128M"}}}
    with_quota, without = (
        launched({"domain": own}, limited=frozenset(names))["spec"]["containers"][0]
        for names in (("cpu", "memory"), ())
    )
    assert with_quota == without
    many = {**spec["domain"], "resources": {"requests": {"cpu": "2500m"}}}
    resources = launched({"domain": many}, limited=frozenset(("cpu",)))["spec"]["containers"][0]["resources"]
    assert resources["limits"]["cpu"] == "2500m", "a limit below the request would be refused"
    disk = [{"name": "root", "containerDisk": {"image": "x"}}]
    pod = launched({**spec, "volumes": disk}, limited=frozenset(("cpu",)), image_volumes=False)["spec"]
    assert all("cpu" in each["resources"]["limits"] for each in (*pod["containers"], *pod["initContainers"]))


def test_quotas_that_demand_limits() -> None:
    def quota(*hard: str) -> dict:
        return {"spec": {"hard": dict.fromkeys(hard, "1")}}

    assert limited_resources([quota("pods", "requests.memory")]) == frozenset()
    assert limited_resources([quota("limits.memory"), quota("limits.cpu", "pods")]) == {"memory", "cpu"}


def test_who_is_to_leave_a_node_says_so() -> None:
    leaving = make_vmi("Running", nodeName="n", evacuationNodeName="n")
    assert condition(plan(leaving, [make_pod("Running", node="n")], {}, NOW).vmi, "EvictionRequested") == (
        "True",
        "EvictionRequested",
        "the virt-launcher Pod has to leave node n",
    )
    leaving["status"]["evacuationNodeName"] = "m"
    assert condition(plan(leaving, [make_pod("Running", node="n")], {}, NOW).vmi, "EvictionRequested") is None


def test_an_agent_that_does_nothing_is_reported() -> None:
    vmi = make_vmi(
        "Scheduled",
        nodeName="n",
        phaseTransitionTimestamps=[
            {"phase": "Scheduled", "phaseTransitionTimestamp": rfc3339(NOW - timedelta(seconds=29))}
        ],
    )
    pods = [make_pod("Running", node="n", ready=True)]
    early = plan(vmi, pods, {}, NOW)
    assert (early.wait, condition(early.vmi, "Synchronized"), early.events) == (1, None, [])
    late = plan(vmi, pods, {}, NOW + timedelta(seconds=1))
    message = "virt-handler on node n has not started the guest within 30 s; its launcher keeps waiting"
    assert condition(late.vmi, "Synchronized") == ("False", "NodeAgentNotResponding", message)
    assert late.events == [
        (
            "Warning",
            "NodeAgentNotResponding",
            f"{message}; check that virt-handler is running on that node, and its log",
        )
    ]
    assert (late.wait, late.delete_pods, late.failure) == (None, [], "")
    again = plan(late.vmi, pods, {}, NOW + timedelta(seconds=90))
    assert (again.vmi["status"], again.events) == (late.vmi["status"], [])


@pytest.mark.parametrize(
    "change",
    [
        lambda vmi, pod: vmi["status"].update(phase="Running"),
        lambda vmi, pod: vmi["status"].update(
            conditions=[{"type": "Synchronized", "status": "False", "reason": "Synchronizing with the Domain failed."}]
        ),
        lambda vmi, pod: vmi["metadata"].update(deletionTimestamp=STAMP),
        lambda vmi, pod: pod["metadata"].update(deletionTimestamp=STAMP),
    ],
)
def test_an_agent_that_works_is_left_alone(change: Callable[[dict, dict], None]) -> None:
    vmi, pod = (
        make_vmi(
            "Scheduled",
            nodeName="n",
            phaseTransitionTimestamps=[
                {"phase": "Scheduled", "phaseTransitionTimestamp": rfc3339(NOW - timedelta(hours=1))}
            ],
        ),
        make_pod("Running", node="n", ready=True),
    )
    change(vmi, pod)
    decided = plan(vmi, [pod], {}, NOW)
    assert "NodeAgentNotResponding" not in json.dumps([decided.vmi, list(decided.events)])


def test_pod_shape() -> None:
    pod = launched(
        {
            "hostname": "web",
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": {"disk": "ssd"},
            "architecture": "amd64",
        }
    )
    assert pod["metadata"]["name"] == pod_name(make_vmi())
    assert pod["metadata"]["labels"] == {
        "app": "web",
        "kubevirt.io": "virt-launcher",
        "kubevirt.io/created-by": "vmi-uid",
        "vm.kubevirt.io/name": "web",
        "vmi.kubevirt.io/id": "testvm",
    }
    assert pod["metadata"]["annotations"]["note"] == "x"
    assert pod["metadata"]["annotations"]["kubevirt.io/domain"] == "testvm"
    assert "kubectl.kubernetes.io/last-applied-configuration" not in pod["metadata"]["annotations"]
    assert pod["metadata"]["ownerReferences"][0]["controller"]
    spec = pod["spec"]
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["readinessGates"] == [{"conditionType": "kubevirt.io/virtual-machine-unpaused"}]
    assert spec["nodeSelector"] == {
        "disk": "ssd",
        "kubevirt.io/schedulable": "true",
        "kubernetes.io/arch": "amd64",
        "machine-type.node.kubevirt.io/q35": "true",
    }
    assert (spec["restartPolicy"], spec["hostname"], spec["automountServiceAccountToken"]) == ("Never", "web", False)
    assert spec["securityContext"] == {
        "runAsUser": 107,
        "runAsGroup": 107,
        "fsGroup": 107,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = spec["containers"][0]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}
    assert container["command"][-4:] == ["--grace-period-seconds", "15", "--image-volume", "--log-serial-console"]


@pytest.mark.parametrize("field", ["userData", "userDataBase64", "networkData", "networkDataBase64"])
@pytest.mark.parametrize("source", ["cloudInitNoCloud", "cloudInitConfigDrive"])
@pytest.mark.parametrize("image_volumes", [True, False])
def test_a_pod_shows_no_secrets(source: str, field: str, image_volumes: bool) -> None:
    """Whoever may read Pods sees all of it, whoever is on the node its processes' environment and arguments."""
    secret = "c2VjcmV0"
    spec = {
        "domain": {},
        "volumes": [{"name": "root", "containerDisk": {"image": "oci:/x"}}, {"name": "seed", source: {field: secret}}],
    }
    vmi = make_vmi(spec=spec)
    vmi["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json.dumps(vmi)
    pod = launcher_pod(vmi, LauncherConfig("launcher:1", image_volumes=image_volumes))
    assert secret not in json.dumps(pod)


MIB = 2**20


@pytest.mark.parametrize(
    ("spec", "kvm", "mib"),
    [
        ({"domain": {"memory": {"guest": "256Mi"}}}, True, 68 + 4 + 20 + 1),
        ({"domain": {"memory": {"guest": "1Gi"}, "devices": {"autoattachGraphicsDevice": False}}}, True, 68 + 4 + 4),
        ({"domain": {"memory": {"guest": "1Gi"}, "cpu": {"cores": 2, "sockets": 2}}}, True, 68 + 16 + 20 + 4),
        ({"domain": {"memory": {"guest": "256Mi"}}}, False, 68 + 4 + 20 + 1 + 32 + 4),
        ({"domain": {"resources": {"requests": {"memory": "512Mi"}}}}, True, 68 + 4 + 20 + 2),
        ({"domain": {}}, True, 68 + 4 + 20),
    ],
)
def test_memory_overhead(spec: dict, kvm: bool, mib: int) -> None:
    assert overhead(spec, kvm=kvm) == mib * MIB
    assert overhead(spec, kvm=kvm, ratio=1.5) == mib * MIB * 1.5


def test_an_ordinary_machine_costs_less_than_96_mib() -> None:
    assert overhead({"domain": {"memory": {"guest": "1Gi"}}}, kvm=True) <= 96 * MIB


@pytest.mark.parametrize(
    ("domain", "config", "requests", "limits"),
    [
        ({"memory": {"guest": "64M"}}, {}, {"cpu": "100m"}, {}),
        (
            {"cpu": {"cores": 4}, "resources": {"requests": {"memory": "64M"}}},
            {"kvm": True},
            {"cpu": "400m"},
            {"devices.kubevirt.io/kvm": "1"},
        ),
        (
            {"resources": {"requests": {"memory": "64M", "cpu": "2"}, "limits": {"memory": "128M", "cpu": "2"}}},
            {},
            {"cpu": "2"},
            {"cpu": "2", "memory": 128_000_000},
        ),
        (
            {"memory": {"guest": "64M"}, "devices": {"interfaces": [{"name": "a", "bridge": {}}]}},
            {"vhost_net": True},
            {},
            {"devices.kubevirt.io/vhost-net": "1"},
        ),
        (
            {"memory": {"guest": "64M"}, "devices": {"interfaces": [{"name": "a", "bridge": {}, "model": "e1000"}]}},
            {"vhost_net": True},
            {},
            {},
        ),
    ],
)
def test_pod_resources(domain: dict, config: dict, requests: dict, limits: dict) -> None:
    pod = launcher_pod(make_vmi(spec={"domain": domain}), LauncherConfig("launcher:1", **config))
    more = overhead({"domain": domain}, kvm=config.get("kvm", False))
    resources = pod["spec"]["containers"][0]["resources"]
    if "memory" in limits:
        limits = {**limits, "memory": str(limits["memory"] + more)}
    assert resources["requests"] == {
        "cpu": "100m",
        "ephemeral-storage": "50M",
        "memory": str(64_000_000 + more),
        **requests,
    }
    assert resources["limits"] == {"devices.kubevirt.io/tun": "1", **limits}
    assert pod["metadata"]["annotations"]["kubevirt.io/memory-overhead-bytes"] == str(more)


@pytest.mark.parametrize(
    ("cpu", "kvm", "selected"),
    [
        ({}, True, []),
        (
            {"model": "Haswell", "features": [{"name": "avx2"}, {"name": "hle", "policy": "disable"}]},
            True,
            ["cpu-model.node.kubevirt.io/Haswell", "cpu-feature.node.kubevirt.io/avx2"],
        ),
        ({"model": "Haswell"}, False, []),
        ({"model": "host-passthrough"}, True, []),
    ],
)
def test_nodes_that_have_the_machine(cpu: dict, kvm: bool, selected: list[str]) -> None:
    domain = {"cpu": cpu, "machine": {"type": "pc-q35-7.2"}}
    assert placement.machine_selector({"domain": domain}, kvm=kvm) == dict.fromkeys(
        ["machine-type.node.kubevirt.io/pc-q35-7.2", *selected], "true"
    )


def test_nodes_with_an_obsolete_host_model_are_left_out() -> None:
    own = {"key": "disk", "operator": "Exists"}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [own]}, {}]}
    spec = {
        "domain": {},
        "affinity": {
            "podAffinity": {"x": 1},
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms},
        },
    }
    before = copy.deepcopy(spec)
    found = placement.affinity(spec, kvm=True)
    expression = {"key": "node-labeller.kubevirt.io/obsolete-host-model", "operator": "DoesNotExist"}
    assert found["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] == [
        {"matchExpressions": [own, expression]},
        {"matchExpressions": [expression]},
    ]
    assert found["podAffinity"] == {"x": 1}
    assert spec == before
    assert placement.affinity(spec, kvm=False) == spec["affinity"]
    assert placement.affinity({"domain": {"cpu": {"model": "Haswell"}}}, kvm=True) == {}


def test_pod_volumes() -> None:
    pod = launched(
        {
            "volumes": [
                {
                    "name": "root",
                    "containerDisk": {"image": "oci:/x", "imagePullPolicy": "Never", "imagePullSecret": "s"},
                },
                {"name": "private", "persistentVolumeClaim": {"claimName": "claim"}},
                {
                    "name": "seed",
                    "cloudInitNoCloud": {"secretRef": {"name": "user"}, "networkDataSecretRef": {"name": "net"}},
                },
                {"name": "scratch", "emptyDisk": {"capacity": "1Gi"}},
            ]
        }
    )
    volumes = {volume.pop("name"): volume for volume in pod["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert volumes["root"] == {"image": {"reference": "oci:/x", "pullPolicy": "Never"}}
    assert pod["spec"]["imagePullSecrets"] == [{"name": "s"}]
    assert mounts["/var/run/kubevirt-image-volume/root"]["readOnly"]
    assert volumes["private"] == {"emptyDir": {}}, "the engine's own"
    claim = mounts["/var/run/kubevirt-private/vmi-disks/private"]["name"]
    assert volumes[claim] == {"persistentVolumeClaim": {"claimName": "claim"}}
    user = mounts["/var/run/kubevirt-private/secret/seed/userdata"]["name"]
    assert volumes[user] == {"secret": {"secretName": "user"}}
    assert "/var/run/kubevirt-private/secret/seed/networkdata" in mounts
    assert len(mounts) == len(volumes) == 9


def test_a_claim_that_is_a_block_device() -> None:
    vmi = make_vmi(
        spec={
            "domain": {"memory": {"guest": "64M"}},
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "files", "persistentVolumeClaim": {"claimName": "other"}},
            ],
        },
        volumeStatus=[
            {"name": "data", "persistentVolumeClaimInfo": {"claimName": "claim", "volumeMode": "Block"}},
            {"name": "files", "persistentVolumeClaimInfo": {"claimName": "other"}},
        ],
    )
    compute = launcher_pod(vmi, LauncherConfig("launcher:1"))["spec"]["containers"][0]
    assert compute["volumeDevices"] == [{"name": "data", "devicePath": "/dev/data"}]
    mounts = {mount["name"]: mount["mountPath"] for mount in compute["volumeMounts"]}
    assert "data" not in mounts
    assert mounts["files"] == "/var/run/kubevirt-private/vmi-disks/files"


def test_container_disks_without_image_volumes() -> None:
    long = "d" * 63
    pod = launched(
        {
            "volumes": [
                {
                    "name": "root",
                    "containerDisk": {"image": "reg/x", "imagePullPolicy": "Never", "imagePullSecret": "s"},
                },
                {"name": long, "containerDisk": {"image": "reg/y"}},
                {"name": "container-disks", "emptyDisk": {"capacity": "1Gi"}},
            ]
        },
        image_volumes=False,
        cluster=configuration.ClusterConfiguration(image_pull_secrets=("own",)),
    )
    spec = pod["spec"]
    compute, *disks, _console = spec["containers"]
    assert "--image-volume" not in compute["command"]
    assert not [volume for volume in spec["volumes"] if "image" in volume]
    assert (disks[0]["name"], disks[0]["image"]) == ("volumeroot", "reg/x")
    assert disks[0]["imagePullPolicy"] == "Never"
    assert "imagePullPolicy" not in disks[1]
    assert len(disks[1]["name"]) <= 63
    assert spec["imagePullSecrets"] == [{"name": "s"}, {"name": "own"}]
    assert disks[0]["command"] == ["/init/usr/bin/container-disk"]
    assert disks[0]["args"] == ["/var/run/kubevirt/sockets/disk-root"]
    for disk in disks:
        security = disk["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert (security["runAsUser"], security["readOnlyRootFilesystem"]) == (107, True)
        assert disk["resources"] == {"requests": {"cpu": "1m", "memory": "1M"}, "limits": {"memory": "40M"}}
    [init] = spec["initContainers"]
    assert init["image"] == "launcher:1"
    assert init["command"] == ["/usr/bin/cp", "/usr/bin/container-disk", "/init/usr/bin/container-disk"]
    assert {"name": "container-disks", "mountPath": "/var/run/kubevirt-image-volume"} in compute["volumeMounts"]
    assert len({volume["name"] for volume in spec["volumes"]}) == len(spec["volumes"])


def test_a_guaranteed_pod_stays_so_with_its_container_disks() -> None:
    resources = {name: {"cpu": "1", "memory": "64Mi"} for name in ("requests", "limits")}
    pod = launched(
        {"domain": {"resources": resources}, "volumes": [{"name": "root", "containerDisk": {"image": "x"}}]},
        image_volumes=False,
    )
    for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"][1:]):
        assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize(
    ("info", "gates", "expected"),
    [
        ({"major": "1", "minor": "20"}, {}, False),
        ({"major": "1", "minor": "34+"}, {}, False),
        ({"major": "1", "minor": "35"}, {}, True),
        ({"major": "2", "minor": "0"}, {}, True),
        ({"major": "1", "minor": "33"}, {"featureGates": ["ImageVolume"]}, True),
        ({"major": "1", "minor": "36"}, {"disabledFeatureGates": ["ImageVolume"]}, False),
        (
            {"major": "1", "minor": "33"},
            {"featureGates": ["ImageVolume"], "disabledFeatureGates": ["ImageVolume"]},
            False,
        ),
        ({}, {"featureGates": ["Snapshot"]}, False),
    ],
)
def test_image_volumes_by_version_and_gate(info: dict, gates: dict, expected: bool) -> None:
    kubevirt = {"spec": {"configuration": {"developerConfiguration": gates}}}
    nodes = [node_of("v1.35.0", "containerd://2.1.0")]
    assert image_volumes(info, nodes, configuration_reader.from_kubevirt(kubevirt)) is expected


def node_of(kubelet: str, runtime: str) -> dict:
    return {"status": {"nodeInfo": {"kubeletVersion": kubelet, "containerRuntimeVersion": runtime}}}


@pytest.mark.parametrize(
    ("kubelet", "runtime", "expected"),
    [
        ("v1.35.1-gke.100", "containerd://2.1.4-k3s1", True),
        ("v1.36.0+k3s1", "containerd://2.10.0-rc.1", True),
        ("v1.35.0", "containerd://1.7.28", False),
        ("v1.35.0", "containerd://2.0.6", False),
        ("v1.34.3", "containerd://2.1.4", False),
        ("v1.35.0", "cri-o://1.33.0", True),
        ("v1.35.0", "cri-o://1.32.9", False),
        ("v1.35.0", "docker://28.1.1", False),
        ("v0.1.0+turtles", "turtles://0.1.0", True),
        ("", "", False),
    ],
)
def test_nodes_that_mount_images(kubelet: str, runtime: str, expected: bool) -> None:
    assert mounts_images(node_of(kubelet, runtime)) is expected


@pytest.mark.parametrize(
    ("runtimes", "expected"),
    [((), False), (("turtles://0.1.0",), False), (("containerd://2.1.4",), True), (("turtles://1", ""), True)],
)
def test_nodes_that_pull_for_running_pods(runtimes: tuple[str, ...], expected: bool) -> None:
    assert pulls_again([node_of("v1.36.0", runtime) for runtime in runtimes]) is expected


def test_image_volumes_are_for_clusters_whose_nodes_can_all_do_it() -> None:
    info, able, unable = {"major": "1", "minor": "35"}, node_of("v1.35.0", "cri-o://1.35.0"), node_of("v1.33.0", "")
    cluster = configuration_reader.from_kubevirt(None)
    assert image_volumes(info, [able, able], cluster)
    assert not image_volumes(info, [able, unable], cluster)
    assert not image_volumes(info, [able, {"metadata": {"name": "n"}}], cluster)
    assert not image_volumes(info, [], cluster), "nobody knows what the first one will be"
    developer = {"developerConfiguration": {"featureGates": ["ImageVolume"]}}
    vouched = configuration_reader.from_kubevirt({"spec": {"configuration": developer}})
    assert image_volumes(info, [able, unable], vouched)
    assert image_volumes(info, [], vouched)


def test_pod_of_a_vmi_with_a_very_long_name() -> None:
    vmi = make_vmi()
    vmi["metadata"]["name"] = "a" * 253
    pod = launcher_pod(vmi, LauncherConfig("launcher:1"))
    assert len(pod["metadata"]["name"]) <= 253
    assert all(len(value) <= 63 for value in pod["metadata"]["labels"].values())
    assert len(pod["spec"]["hostname"]) == 63


@pytest.mark.parametrize("name", ["a" * 232 + ".b" + "c" * 19, "a" * 62 + "-b", "a" * 232 + "-b"])
def test_names_of_a_pod_are_valid_wherever_they_are_cut(name: str) -> None:
    vmi = make_vmi()
    vmi["metadata"]["name"] = name
    pod = launcher_pod(vmi, LauncherConfig("launcher:1"))
    assert subdomain_problems(pod["metadata"]["name"]) == []
    assert label_problems(pod["spec"]["hostname"]) == []
    assert re.fullmatch("[a-z0-9]([-a-z0-9._]*[a-z0-9])?", pod["metadata"]["labels"][labels.VMI_ID])


def test_annotations_that_are_the_instances_own_stay_there() -> None:
    vmi = make_vmi()
    vmi["metadata"]["annotations"].update(labels.OBSERVED_VERSIONS)
    annotations = launcher_pod(vmi, LauncherConfig("launcher:1"))["metadata"]["annotations"]
    assert annotations["note"] == "x"
    assert not annotations.keys() & {"kubectl.kubernetes.io/last-applied-configuration", *labels.OBSERVED_VERSIONS}


def test_masquerade_annotations_and_ports() -> None:
    ports = [{"name": "ssh", "port": 22}, {"port": 53, "protocol": "UDP"}]
    pod = launched({"domain": {"devices": {"interfaces": [{"name": "default", "masquerade": {}, "ports": ports}]}}})
    assert pod["metadata"]["annotations"]["istio.io/reroute-virtual-interfaces"] == "k6t-eth0"
    assert pod["spec"]["containers"][0]["ports"] == [
        {"containerPort": 22, "protocol": "TCP", "name": "ssh"},
        {"containerPort": 53, "protocol": "UDP"},
    ]


# Nodes


def test_heartbeats() -> None:
    node = {"metadata": {"annotations": {labels.NODE_HEARTBEAT: "2026-01-02T02:59:05Z"}}}
    assert silent_for(node, NOW) == 300
    assert silent_for({"metadata": {}}, NOW) is None


def test_a_heartbeat_is_heard_by_our_clock() -> None:
    """Whatever time of day the node, or this machine, has or gets."""
    moment = [1000.0]
    heartbeats = Heartbeats(lambda: moment[0])

    def node(stamp: str) -> dict:
        return {"metadata": {"name": "n", "annotations": {labels.NODE_HEARTBEAT: stamp}}}

    def silence(stamp: str, now: datetime = NOW) -> float | None:
        return heartbeats.silence(node(stamp), now)

    assert silence("2026-01-02T03:00:05Z") == 240, "one from before this process counts as it says"
    moment[0] += 10
    assert silence("2026-01-02T03:00:05Z", NOW + timedelta(hours=5)) == 250, "the clock was set, the agent is as silent"
    assert silence("2026-01-02T01:00:00Z") == 0, "the node's clock is two hours behind, but there it is"
    moment[0] += 400
    assert silence("2026-01-02T01:00:00Z", NOW - timedelta(hours=5)) == 400
    heartbeats.observe(node("2026-01-02T01:00:00Z"), None)
    assert silence("2026-01-02T09:00:00Z") == 0, "a stamp of the future is not one to wait for"
    moment[0] += 400
    assert silence("2026-01-02T09:00:00Z") == 400
    assert heartbeats.silence({"metadata": {"name": "new"}}, NOW) is None


@pytest.mark.parametrize(("ago", "left"), [(0, 5), (2, 3), (5, 0), (60, -55), (-1, 5), (-3600, 0)])
def test_nobody_waits_for_a_clock_to_catch_up(ago: int, left: float) -> None:
    assert rest_of(5, NOW - timedelta(seconds=ago), NOW) == left


def test_a_vmi_of_a_dead_node() -> None:
    before = make_vmi("Running", conditions=[{"type": "Ready", "status": "True"}])
    vmi = failed(before, "node n is not responsive", STAMP)
    assert (vmi["status"]["phase"], vmi["status"]["reason"]) == ("Failed", "NodeUnresponsive")
    assert condition(vmi, "Ready")[:2] == ("False", "GuestNotRunning")
    assert condition(vmi, "Synchronized") == ("False", "NodeUnresponsive", "node n is not responsive")
    assert before["status"]["conditions"] == [{"type": "Ready", "status": "True"}], "what others may hold is left alone"
    assert is_alive(make_pod("Running", deleted=True))
    assert not is_alive(make_pod("Running", containerStatuses=terminated()))
    assert not is_alive(make_pod("Failed"))
