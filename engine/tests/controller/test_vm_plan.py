# SPDX-License-Identifier: GPL-3.0-or-later
import copy
from datetime import UTC, datetime, timedelta

import pytest

from turtles.api import labels
from turtles.api.run_strategies import run_strategy
from turtles.controller.vm.plan import Plan, _open_requests, instance_of, plan
from turtles.controller.vm.revision import started_generation, started_revision
from turtles.controller.vm.status import Context, printable_status, status

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAMP = "2026-01-02T03:04:05Z"
START, STOP = {"action": "Start"}, {"action": "Stop", "uid": "vmi-uid"}


def make_vm(strategy: str = "Always", **vm_status: object) -> dict:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {
            "name": "testvm",
            "namespace": "ns",
            "uid": "vm-uid",
            "generation": 3,
            "resourceVersion": "9",
            "labels": {"of": "vm"},
        },
        "spec": {
            "runStrategy": strategy,
            "template": {
                "metadata": {"labels": {"of": "template"}, "annotations": {"a": "b"}},
                "spec": {
                    "domain": {"memory": {"guest": "64M"}},
                    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "claim"}}],
                },
            },
        },
        "status": dict(vm_status),
    }


def a_vmi(
    phase: str = "Running",
    *,
    deleted: bool = False,
    ran: bool | None = None,
    conditions: tuple = (),
    uid: str = "vmi-uid",
    **vmi_status: object,
) -> dict:
    ran = phase == "Running" if ran is None else ran
    history = [{"phase": "Running"}] if ran else []
    metadata = {
        "name": "testvm",
        "namespace": "ns",
        "uid": uid,
        "annotations": {labels.VM_GENERATION: "3"},
        "ownerReferences": [{"uid": "vm-uid", "controller": True}],
    }
    if deleted:
        metadata["deletionTimestamp"] = STAMP
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": metadata,
        "spec": {"domain": {}},
        "status": {
            "phase": phase,
            "phaseTransitionTimestamps": history,
            "conditions": [
                dict(zip(("type", "status", "reason", "message"), each, strict=False)) for each in conditions
            ],
            **vmi_status,
        },
    }


SUCCEEDED, FAILED = a_vmi("Succeeded", ran=True), a_vmi("Failed", ran=True)


@pytest.mark.parametrize(
    ("strategy", "vm_status", "vmi", "creates", "deletes"),
    [
        # strategy, status.runStrategy and requests, VMI → create?, delete?
        ("Always", {}, None, True, False),
        ("Always", {}, a_vmi(), False, False),
        ("Always", {}, SUCCEEDED, False, True),
        ("Always", {}, FAILED, False, True),
        ("Always", {}, a_vmi("Failed", deleted=True), False, False),
        ("Always", {"stateChangeRequests": [STOP, START]}, a_vmi(), False, True),
        ("Always", {"stateChangeRequests": [STOP, START]}, a_vmi(deleted=True), False, False),
        ("Always", {"stateChangeRequests": [{**STOP, "uid": "older"}]}, a_vmi(), False, False),
        ("RerunOnFailure", {}, None, True, False),
        ("RerunOnFailure", {"runStrategy": "RerunOnFailure"}, None, False, False),
        ("RerunOnFailure", {"runStrategy": "Halted"}, None, True, False),
        ("RerunOnFailure", {"runStrategy": "RerunOnFailure", "stateChangeRequests": [START]}, None, True, False),
        ("RerunOnFailure", {}, SUCCEEDED, False, False),
        ("RerunOnFailure", {}, FAILED, False, True),
        ("RerunOnFailure", {}, a_vmi(), False, False),
        ("RerunOnFailure", {"stateChangeRequests": [STOP]}, a_vmi(), False, True),
        ("RerunOnFailure", {"stateChangeRequests": [STOP, START]}, SUCCEEDED, False, True),
        ("Manual", {}, None, False, False),
        ("Manual", {"stateChangeRequests": [START]}, None, True, False),
        ("Manual", {"stateChangeRequests": [STOP, START]}, None, True, False),
        ("Manual", {"runStrategy": "Always"}, None, False, False),
        ("Manual", {}, a_vmi(), False, False),
        ("Manual", {}, SUCCEEDED, False, False),
        ("Manual", {}, FAILED, False, False),
        ("Manual", {"stateChangeRequests": [STOP, START]}, SUCCEEDED, False, True),
        ("Manual", {"stateChangeRequests": [STOP]}, a_vmi(), False, True),
        ("Halted", {}, None, False, False),
        ("Halted", {}, a_vmi(), False, True),
        ("Halted", {}, SUCCEEDED, False, True),
        ("Halted", {}, FAILED, False, True),
        ("Halted", {}, a_vmi(deleted=True), False, False),
        ("Once", {}, None, True, False),
        ("Once", {"runStrategy": "Once"}, None, False, False),
        ("Once", {"runStrategy": "Halted"}, None, True, False),
        ("Once", {"runStrategy": "Once"}, a_vmi(), False, False),
        ("Once", {"runStrategy": "Once"}, SUCCEEDED, False, False),
        ("Once", {"runStrategy": "Once"}, FAILED, False, False),
        ("WaitAsReceiver", {}, None, False, False),
        ("WaitAsReceiver", {"runStrategy": "Always"}, None, False, False),
        ("WaitAsReceiver", {}, a_vmi(), False, False),
        ("WaitAsReceiver", {}, SUCCEEDED, False, False),
        ("WaitAsReceiver", {}, FAILED, False, False),
    ],
)
def test_run_strategies(strategy: str, vm_status: dict, vmi: dict | None, creates: bool, deletes: bool) -> None:
    decided = plan(make_vm(strategy, **vm_status), vmi, NOW)
    assert (decided.create is not None, decided.delete) == (creates, deletes)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [({"running": True}, "Always"), ({"running": False}, "Halted"), ({"runStrategy": "Once"}, "Once"), ({}, "Halted")],
)
def test_running_is_the_old_run_strategy(spec: dict, expected: str) -> None:
    assert run_strategy({"spec": spec}) == expected


@pytest.mark.parametrize(
    ("requests", "vmi", "remaining"),
    [
        ([START], a_vmi(), []),
        ([START], None, [START]),
        ([START], SUCCEEDED, [START]),
        ([STOP, START], a_vmi(), [STOP, START]),
        ([STOP, START], a_vmi(uid="next"), []),
        ([STOP, START], None, [START]),
    ],
)
def test_requests_are_dropped_once_carried_out(requests: list, vmi: dict | None, remaining: list) -> None:
    assert _open_requests(requests, vmi) == remaining


def halted(requests: list, **vm_status: object) -> dict:
    return make_vm("Halted", stateChangeRequests=requests, **vm_status)


PAUSED_START = {"action": "Start", "data": {"paused": "true"}}


@pytest.mark.parametrize(
    "requests",
    [[STOP, START], [START], [STOP], [STOP, {"action": "Start", "data": {}}], [{**STOP, "uid": "older"}, START]],
)
@pytest.mark.parametrize("vmi", [None, a_vmi(), a_vmi(deleted=True), SUCCEEDED])
def test_what_was_asked_for_before_the_vm_was_halted_is_moot(requests: list, vmi: dict | None) -> None:
    """A restart at whose beginning the VM is halted leaves nothing that starts it when it is Manual one day."""
    vm = halted(requests)
    decided = plan(vm, vmi, NOW)
    assert decided.requests == []
    assert decided.create is None
    assert not decided.run_always
    vm["status"] = status(vm, vmi, decided, Context(), NOW)
    vm["spec"]["runStrategy"] = "Manual"
    assert "stateChangeRequests" not in vm["status"]
    assert plan(vm, None, NOW).create is None


@pytest.mark.parametrize(("generation", "starts"), [(None, True), (3, True), (2, False)])
def test_a_halted_vm_is_started_paused_by_a_request(generation: int | None, starts: bool) -> None:
    """virt-api can't set the run strategy for it, or the instance would be made before the request is there."""
    vm = halted([PAUSED_START], **({"desiredGeneration": generation} if generation else {}))
    decided = plan(vm, None, NOW)
    assert decided.run_always is starts
    assert decided.requests == ([PAUSED_START] if starts else []), "one that is older than the halt is moot"
    vm["spec"]["runStrategy"] = "Always"
    if starts:
        assert plan(vm, None, NOW).create["spec"]["startStrategy"] == "Paused"


UNSTARTABLE = (("Synchronized", "False", "NodeAgentNotResponding"),)


@pytest.mark.parametrize(
    ("vmi", "replaced"),
    [
        (a_vmi(""), True),
        (a_vmi("Pending"), True),
        (a_vmi("Scheduling"), True),
        (a_vmi("Scheduling", conditions=(("PodScheduled", "False", "Unschedulable"),)), True),
        # Its guest may be starting at this moment
        (a_vmi("Scheduled"), False),
        (a_vmi("Scheduled", conditions=UNSTARTABLE), True),
        (a_vmi("Running"), False),
        (a_vmi("Scheduled", ran=True, conditions=UNSTARTABLE), False),
        (a_vmi("Scheduling", deleted=True), False),
    ],
)
@pytest.mark.parametrize(
    ("strategy", "again"), [("Always", []), ("Manual", [START]), ("RerunOnFailure", [START]), ("Once", [START])]
)
def test_an_instance_that_never_ran_follows_its_template(vmi: dict, replaced: bool, strategy: str, again: list) -> None:
    vm = make_vm(strategy, runStrategy=strategy)
    assert not plan(vm, vmi, NOW).delete
    decided = plan(vm, vmi, NOW, outdated=True)
    assert decided.delete is replaced
    assert decided.requests == (again if replaced else [])
    if replaced:
        vm["status"] = status(vm, vmi, decided, Context(outdated=True), NOW)
        gone = plan(vm, {**vmi, "metadata": {**vmi["metadata"], "deletionTimestamp": STAMP}}, NOW, outdated=True)
        assert (gone.delete, gone.requests) == (False, again)
        assert plan(vm, None, NOW).create is not None


@pytest.mark.parametrize("strategy", ["Always", "Manual"])
def test_an_instance_that_was_started_paused_is_replaced_by_a_paused_one(strategy: str) -> None:
    vm, vmi = make_vm(strategy), a_vmi("Scheduling")
    vmi["spec"]["startStrategy"] = "Paused"
    assert plan(vm, vmi, NOW, outdated=True).requests == [PAUSED_START]
    vm["spec"]["template"]["spec"]["startStrategy"] = "Paused"
    assert plan(vm, vmi, NOW, outdated=True).requests == ([] if strategy == "Always" else [START])


@pytest.mark.parametrize(("generation", "waits"), [(3, True), (2, False)])
def test_a_corrected_template_is_tried_at_once(generation: int, waits: bool) -> None:
    failure = {"consecutiveFailCount": 5, "lastFailedVMIUID": "u", "retryAfterTimestamp": "2026-01-02T03:09:05Z"}
    decided = plan(make_vm(startFailure=failure, observedGeneration=generation), None, NOW)
    assert (decided.create is None) is waits
    assert decided.start_failure == (failure if waits else None)
    decided = plan(make_vm(startFailure=failure), a_vmi("Failed"), NOW, outdated=True)
    assert decided.delete
    assert decided.start_failure is None


def test_rerun_on_failure_remembers_its_start_until_the_vmi_is_gone() -> None:
    vm = make_vm("RerunOnFailure", runStrategy="RerunOnFailure")
    decided = plan(vm, FAILED, NOW)
    assert decided.delete
    assert decided.requests == [START]
    vm["status"]["stateChangeRequests"] = list(decided.requests)
    again = plan(vm, a_vmi("Failed", ran=True, deleted=True), NOW)
    assert (again.delete, again.requests) == (False, [START])
    assert plan(vm, FAILED, NOW).requests == [START]
    last = plan(vm, None, NOW)
    assert last.create is not None
    assert last.requests == []


def test_start_paused() -> None:
    vm = make_vm("Manual", stateChangeRequests=[{"action": "Start", "data": {"paused": "true"}}])
    assert plan(vm, None, NOW).create["spec"]["startStrategy"] == "Paused"


@pytest.mark.parametrize(("count", "jitter", "seconds"), [(0, 0, 10), (1, 0, 40), (2, 1.0, 135), (9, 0, 300)])
def test_start_backoff(count: int, jitter: float, seconds: int) -> None:
    before = {"consecutiveFailCount": count, "lastFailedVMIUID": "older", "retryAfterTimestamp": STAMP}
    vm = make_vm(startFailure=before) if count else make_vm()
    decided = plan(vm, a_vmi("Failed"), NOW, jitter)
    assert decided.start_failure["consecutiveFailCount"] == count + 1
    assert decided.start_failure["lastFailedVMIUID"] == "vmi-uid"
    vm["status"]["startFailure"] = decided.start_failure
    assert plan(vm, a_vmi("Failed"), NOW).start_failure == decided.start_failure, "a VMI counts once"
    waiting = plan(vm, None, NOW)
    assert waiting.create is None
    assert waiting.wait == seconds
    assert status(vm, None, waiting, Context(), NOW)["printableStatus"] == "CrashLoopBackOff"
    assert plan(vm, None, NOW - timedelta(hours=2)).create is not None, "the clock was set back: nobody waits hours"


@pytest.mark.parametrize(
    ("strategy", "vmi"), [("Always", a_vmi()), ("Always", SUCCEEDED), ("Halted", None), ("Manual", a_vmi("Failed"))]
)
def test_start_failures_are_forgotten(strategy: str, vmi: dict | None) -> None:
    vm = make_vm(strategy, startFailure={"consecutiveFailCount": 2, "retryAfterTimestamp": "2030-01-01T00:00:00Z"})
    assert plan(vm, vmi, NOW).start_failure is None


def test_a_vmi_that_was_deleted_before_it_ran_is_no_start_failure() -> None:
    assert plan(make_vm(), a_vmi("Failed", deleted=True), NOW).start_failure is None


def test_the_vmi_of_a_vm() -> None:
    vm = make_vm()
    before = copy.deepcopy(vm)
    vmi = instance_of(vm)
    assert vm == before
    assert vmi["metadata"] == {
        "name": "testvm",
        "namespace": "ns",
        "labels": {"of": "template"},
        "annotations": {"a": "b", "kubevirt.io/vm-generation": "3"},
        "ownerReferences": [
            {
                "apiVersion": "kubevirt.io/v1",
                "kind": "VirtualMachine",
                "name": "testvm",
                "uid": "vm-uid",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
        "finalizers": ["kubevirt.io/virtualMachineControllerFinalize"],
    }
    # uuid5 of KubeVirt's namespace: guests must not see another machine after a change of engine.
    assert vmi["spec"]["domain"]["firmware"]["uuid"] == "5a9fc181-957e-5c32-9e5a-2de5e9673531"
    assert vmi["status"]["virtualMachineRevisionName"] == "revision-start-vm-vm-uid-3"
    vm["spec"]["template"]["spec"]["domain"]["firmware"] = {"uuid": "mine"}
    assert instance_of(vm)["spec"]["domain"]["firmware"] == {"uuid": "mine"}


PENDING_PVC = {"claim": {"status": {"phase": "Pending"}}}


@pytest.mark.parametrize(
    ("vmi", "pvcs", "expected"),
    [
        (None, {}, "Stopped"),
        (SUCCEEDED, {}, "Stopped"),
        (a_vmi(""), {}, "Starting"),
        (a_vmi("Scheduled"), {}, "Starting"),
        (a_vmi(), {}, "Running"),
        (a_vmi(), PENDING_PVC, "Running"),
        (a_vmi("Scheduling"), PENDING_PVC, "WaitingForVolumeBinding"),
        (a_vmi(deleted=True), {}, "Stopping"),
        (a_vmi("Failed", deleted=True), {}, "Stopped"),
        (a_vmi(conditions=(("Paused", "True"),)), {}, "Paused"),
        (a_vmi(migrationState={"startTimestamp": STAMP}), {}, "Migrating"),
        (a_vmi(migrationState={"startTimestamp": STAMP, "endTimestamp": STAMP}), {}, "Running"),
        (a_vmi("Pending", conditions=(("Synchronized", "False", "FailedPvcNotFound"),)), {}, "ErrorPvcNotFound"),
        (a_vmi("Scheduling", conditions=(("PodScheduled", "False", "Unschedulable"),)), {}, "ErrorUnschedulable"),
        (a_vmi("Scheduling", conditions=(("Synchronized", "False", "ErrImagePull"),)), {}, "ErrImagePull"),
        (a_vmi("Scheduling", conditions=(("Synchronized", "False", "ImagePullBackOff"),)), {}, "ImagePullBackOff"),
        (a_vmi("Scheduling", conditions=(("Synchronized", "False", "InvalidImageName"),)), {}, "ErrImagePull"),
        (a_vmi("Scheduling", conditions=(("Synchronized", "False", "ErrImageNeverPull"),)), {}, "ErrImagePull"),
    ],
)
def test_printable_status(vmi: dict | None, pvcs: dict, expected: str) -> None:
    vm = make_vm()
    assert printable_status(vm, vmi, None, pvcs) == expected
    vm["metadata"]["deletionTimestamp"] = STAMP
    assert printable_status(vm, vmi, None, pvcs) == "Terminating"


def test_a_receiver_without_an_instance_waits() -> None:
    vm = make_vm("WaitAsReceiver")
    assert printable_status(vm, None, None, {}) == "WaitingForReceiver"
    assert printable_status(vm, SUCCEEDED, None, {}) == "Stopped"


def conditions_of(vm_status: dict) -> dict[str, tuple]:
    return {each["type"]: (each["status"], each.get("reason")) for each in vm_status["conditions"]}


def test_status_without_a_vmi() -> None:
    new = status(make_vm("Halted"), None, Plan(), Context(), NOW)
    assert conditions_of(new) == {"Ready": ("False", "VMINotExists")}
    del new["conditions"]
    assert new == {"desiredGeneration": 3, "printableStatus": "Stopped"}


def test_status_with_a_running_vmi() -> None:
    vmi = a_vmi(conditions=(("Ready", "True"), ("LiveMigratable", "False", "DisksNotLiveMigratable", "why")))
    new = status(make_vm(), vmi, Plan(), Context(), NOW)
    assert conditions_of(new) == {"Ready": ("True", None), "LiveMigratable": ("False", "DisksNotLiveMigratable")}
    del new["conditions"]
    assert new == {
        "created": True,
        "ready": True,
        "runStrategy": "Always",
        "desiredGeneration": 3,
        "observedGeneration": 3,
        "printableStatus": "Running",
    }


def test_status_is_stable_and_follows_the_vmi() -> None:
    vm = make_vm()
    vm["status"] = first = status(vm, a_vmi(conditions=(("AgentConnected", "True"),)), Plan(), Context(), NOW)
    assert conditions_of(first)["Ready"] == ("False", "VMIConditionMissing")
    later = datetime(2026, 2, 2, tzinfo=UTC)
    assert status(vm, a_vmi(conditions=(("AgentConnected", "True"),)), Plan(), Context(), later) == first
    assert "AgentConnected" not in conditions_of(status(vm, a_vmi(), Plan(), Context(), later))


def test_a_failure_is_said_and_taken_back() -> None:
    vm = make_vm()
    vm["status"] = status(vm, None, Plan(), Context(failure=("FailedCreate", "exceeded quota")), NOW)
    assert conditions_of(vm["status"])["Failure"] == ("True", "FailedCreate")
    assert "runStrategy" not in vm["status"], "it has never started"
    assert "Failure" not in conditions_of(status(vm, a_vmi(), Plan(), Context(), NOW))


def cause_of(vm_status: dict) -> tuple | None:
    for each in vm_status["conditions"]:
        if each["type"] == "Failure":
            return each["reason"], each["message"]
    return None


def test_a_crash_loop_says_why_until_a_guest_runs() -> None:
    """The instance is gone in a moment, and events are in an hour."""
    vm = make_vm()
    failed = a_vmi("Failed", conditions=(("Synchronized", "False", "LauncherFailed", "image x has no /disk"),))
    why = ("LauncherFailed", "image x has no /disk")

    def look(vmi: dict | None, now: datetime = NOW) -> dict:
        vm["status"] = status(vm, vmi, plan(vm, vmi, now), Context(), now)
        return vm["status"]

    assert cause_of(look(failed)) == why
    failed["metadata"]["deletionTimestamp"] = STAMP
    assert cause_of(look(failed)) == why
    waiting = look(None)
    assert (waiting["printableStatus"], cause_of(waiting)) == ("CrashLoopBackOff", why)
    assert conditions_of(waiting)["Ready"] == ("False", "VMINotExists")
    assert cause_of(look(a_vmi("Scheduling", uid="second"), NOW + timedelta(minutes=1))) == why
    other = a_vmi("Failed", uid="second", conditions=(("Synchronized", "False", "StartTimeout", "no tap"),))
    assert cause_of(look(other)) == ("StartTimeout", "no tap")
    assert cause_of(look(a_vmi("Running", uid="third"))) is None


@pytest.mark.parametrize("change", ["template", "Halted", "quota"])
def test_what_a_crash_loop_says_is_over_with_it(change: str) -> None:
    vm = make_vm()
    failed = a_vmi("Failed", conditions=(("Synchronized", "False", "LauncherFailed", "why"),))
    vm["status"] = status(vm, failed, plan(vm, failed, NOW), Context(), NOW)
    assert vm["status"]["observedGeneration"] == 3
    around = Context()
    if change == "template":
        vm["metadata"]["generation"] = 4
    elif change == "Halted":
        vm["spec"]["runStrategy"] = "Halted"
    else:
        around = Context(failure=("FailedCreate", "exceeded quota"))
    vm["status"] = status(vm, None, plan(vm, None, NOW), around, NOW)
    assert cause_of(vm["status"]) == (("FailedCreate", "exceeded quota") if change == "quota" else None)
    vm["status"] = status(vm, None, plan(vm, None, NOW), Context(), NOW)
    assert cause_of(vm["status"]) is None


def test_an_instance_that_failed_without_a_word() -> None:
    vm = make_vm()
    new = status(vm, a_vmi("Failed"), plan(vm, a_vmi("Failed"), NOW), Context(), NOW)
    assert cause_of(new) == ("Failed", "VirtualMachineInstance testvm ended before its guest ran; see its events")


READY = (("Ready", "True"),)


@pytest.mark.parametrize(
    ("vmi", "decided"), [(a_vmi(conditions=READY, deleted=True), Plan()), (a_vmi(conditions=READY), Plan(delete=True))]
)
def test_a_vm_whose_guest_shuts_down_is_not_ready(vmi: dict, decided: Plan) -> None:
    new = status(make_vm(ready=True), vmi, decided, Context(), NOW)
    assert conditions_of(new)["Ready"] == ("False", "PodTerminating")
    assert "ready" not in new
    assert new["printableStatus"] == "Stopping"


@pytest.mark.parametrize(
    ("revision", "annotation", "expected"),
    [
        ("revision-start-vm-vm-uid-3", "3", (3, "revision-start-vm-vm-uid-3")),
        ("", "2", (2, "revision-start-vm-vm-uid-2")),
        # An adopted one: generations of another VM mean nothing
        ("revision-start-vm-other-3", "3", (None, "revision-start-vm-other-3")),
        ("", "x", (None, None)),
        ("", "²", (None, None)),
        ("", "9" * 5000, (None, None)),
    ],
)
def test_what_an_instance_was_started_from(revision: str, annotation: str, expected: tuple) -> None:
    vmi = a_vmi(virtualMachineRevisionName=revision)
    vmi["metadata"]["annotations"][labels.VM_GENERATION] = annotation
    vm = make_vm()
    assert (started_generation(vm, vmi), started_revision(vm, vmi)) == expected


def test_a_changed_template_asks_for_a_restart() -> None:
    vm = make_vm()
    vm["metadata"]["generation"] = 4
    same = status(vm, a_vmi(), Plan(), Context(), NOW)
    assert "RestartRequired" not in conditions_of(same)
    assert same["observedGeneration"] == 4
    vm["status"] = status(vm, a_vmi(), Plan(), Context(outdated=True), NOW)
    assert conditions_of(vm["status"])["RestartRequired"] == ("True", "RestartRequired")
    assert (vm["status"]["observedGeneration"], vm["status"]["desiredGeneration"]) == (3, 4)
    assert "RestartRequired" not in conditions_of(status(vm, None, Plan(), Context(), NOW))
