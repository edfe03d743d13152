# SPDX-License-Identifier: GPL-3.0-or-later
"""Pools against an API server: the test plays the user and everybody else."""

from __future__ import annotations

from typing import Any

import pytest
from fakeapi import FakeApi, Refused
from test_pool_plan import STAMP, pool

NAMESPACED = "/apis/{}/namespaces/ns/{}"
POOL = NAMESPACED.format("pool.kubevirt.io/v1beta1", "virtualmachinepools/web")
VMS = NAMESPACED.format("kubevirt.io/v1", "virtualmachines")
VMIS = NAMESPACED.format("kubevirt.io/v1", "virtualmachineinstances")
PODS = "/api/v1/namespaces/ns/pods"
REVISIONS = NAMESPACED.format("apps/v1", "controllerrevisions")
LABEL = "kubevirt.io/vm-pool-revision-name"
FINALIZER = "pool.kubevirt.io/finalizer"

pytestmark = pytest.mark.usefixtures("controller")


def below(api: FakeApi, path: str) -> dict[str, dict]:
    return {key.removeprefix(f"{path}/"): obj for key, obj in list(api.objects.items()) if key.startswith(f"{path}/")}


def machines(api: FakeApi) -> list[str]:
    return sorted(name for name, vm in below(api, VMS).items() if not vm["metadata"].get("deletionTimestamp"))


def status(api: FakeApi) -> dict:
    return api.objects[POOL].get("status") or {}


def reasons(api: FakeApi) -> set[str]:
    return {each.get("reason") for path, each in list(api.objects.items()) if "/events/" in path}


def pod_of(api: FakeApi, vmi: str) -> str | None:
    uid = api.objects.get(vmi, {}).get("metadata", {}).get("uid")
    pods = below(api, PODS)
    owned = (name for name, pod in pods.items() if pod["metadata"]["ownerReferences"][0]["uid"] == uid)
    return next((f"{PODS}/{name}" for name in owned), None)


def run(api: FakeApi, name: str) -> None:
    """Have a machine's guest run, as scheduler, kubelet and node agent do."""
    vmi = f"{VMIS}/{name}"
    pod = api.wait(lambda: pod_of(api, vmi))

    def in_phase(phase: str) -> None:
        api.wait(lambda: api.objects[vmi]["status"].get("phase") == phase)

    def conditions() -> list[dict]:
        return api.objects[pod]["status"]["conditions"]

    in_phase("Scheduling")
    running = {"phase": "Running", "conditions": [{"type": "ContainersReady", "status": "True"}]}
    api.update(pod, {"spec": {"nodeName": "n"}, "status": running})
    in_phase("Scheduled")
    api.wait(lambda: len(conditions()) > 1)
    api.update(pod, {"status": {"conditions": [*conditions(), {"type": "Ready", "status": "True"}]}})
    api.update(vmi, {"status": {"phase": "Running", "phaseTransitionTimestamps": [{"phase": "Running"}]}})


def end(api: FakeApi, name: str) -> None:
    """Finish the deletion of a machine's instance, as the node agent does."""
    api.update(f"{VMIS}/{name}", {"status": {"phase": "Succeeded"}})


def meta(api: FakeApi, name: str) -> dict:
    return api.objects.get(f"{VMIS}/{name}", {}).get("metadata", {})


def guest(api: FakeApi, path: str) -> Any:
    return api.objects[path]["spec"]["template"]["spec"]["domain"]["memory"]["guest"]


def test_it_scales_and_uses_indexes_again(api: FakeApi) -> None:
    api.put(POOL, pool(replicas=2))
    api.wait(lambda: machines(api) == ["web-0", "web-1"])
    api.wait(lambda: status(api).get("replicas") == 2)
    assert (status(api)["readyReplicas"], status(api)["labelSelector"]) == (0, "app=web")
    vm = api.objects[f"{VMS}/web-0"]
    assert vm["metadata"]["labels"] == {"app": "web", LABEL: "web-1"}
    assert vm["spec"]["template"]["metadata"]["labels"] == {LABEL: "web-1"}
    assert FINALIZER in vm["metadata"]["finalizers"]
    assert "web-1" in below(api, REVISIONS)
    for name in ("web-0", "web-1"):
        run(api, name)
    api.wait(lambda: status(api).get("readyReplicas") == 2)

    api.delete(f"{VMS}/web-0")
    api.wait(lambda: FINALIZER not in api.objects[f"{VMS}/web-0"]["metadata"]["finalizers"])
    end(api, "web-0")
    api.wait(lambda: machines(api) == ["web-0", "web-1"])

    api.update(POOL, {"spec": {"replicas": 0}})
    api.wait(lambda: machines(api) == [])
    assert {"SuccessfulCreate", "SuccessfulDelete"} <= reasons(api)


def test_a_changed_template_reaches_one_machine_after_the_other(api: FakeApi) -> None:
    policy = {"selectionPolicy": {"sortPolicy": "AscendingOrder"}}
    api.put(POOL, pool(replicas=2, maxUnavailable=1, updateStrategy={"proactive": policy}))
    for name in ("web-0", "web-1"):
        run(api, name)
    api.wait(lambda: status(api).get("readyReplicas") == 2)
    before = meta(api, "web-1")["uid"]

    changed = pool(2, memory="96M")["spec"]["virtualMachineTemplate"]
    api.update(POOL, {"metadata": {"generation": 2}, "spec": {"virtualMachineTemplate": changed}})
    api.wait(lambda: {guest(api, f"{VMS}/{name}") for name in ("web-0", "web-1")} == {"96M"})
    api.wait(lambda: "deletionTimestamp" in meta(api, "web-0"))
    assert "deletionTimestamp" not in meta(api, "web-1")
    end(api, "web-0")
    api.wait(lambda: f"{VMIS}/web-0" not in api.objects or "deletionTimestamp" not in meta(api, "web-0"))
    run(api, "web-0")
    api.wait(lambda: "deletionTimestamp" in meta(api, "web-1"))
    end(api, "web-1")
    api.wait(lambda: meta(api, "web-1").get("uid") not in (before, None))
    run(api, "web-1")
    api.wait(lambda: [name for name in below(api, REVISIONS) if name.startswith("web-")] == ["web-2"])
    assert {meta(api, name)["labels"][LABEL] for name in ("web-0", "web-1")} == {"web-2"}


def test_an_instance_that_is_what_it_should_be_runs_on(api: FakeApi) -> None:
    api.put(POOL, pool(replicas=1))
    run(api, "web-0")
    api.wait(lambda: status(api).get("readyReplicas") == 1)
    uid = meta(api, "web-0")["uid"]
    changed = pool(2)["spec"]["virtualMachineTemplate"]
    changed["metadata"]["annotations"] = {"note": "new"}
    api.update(POOL, {"metadata": {"generation": 2}, "spec": {"virtualMachineTemplate": changed}})
    api.wait(lambda: meta(api, "web-0")["labels"][LABEL] == "web-2")
    assert meta(api, "web-0")["uid"] == uid
    assert api.objects[f"{VMS}/web-0"]["metadata"]["annotations"]["note"] == "new"


@pytest.mark.parametrize("strategy", ["Manual", "RerunOnFailure"])
def test_a_machine_that_starts_by_request_is_restarted(api: FakeApi, strategy: str) -> None:
    first = pool(replicas=1)
    first["spec"]["virtualMachineTemplate"]["spec"]["runStrategy"] = strategy
    api.put(POOL, first)
    api.wait(lambda: machines(api) == ["web-0"])
    if strategy == "Manual":
        api.wait(lambda: "status" in api.objects[f"{VMS}/web-0"])
        api.update(f"{VMS}/web-0", {"status": {"stateChangeRequests": [{"action": "Start"}]}})
    run(api, "web-0")
    api.wait(lambda: status(api).get("readyReplicas") == 1)
    before = meta(api, "web-0")["uid"]
    changed = pool(2, memory="96M")["spec"]["virtualMachineTemplate"]
    changed["spec"]["runStrategy"] = strategy
    api.update(POOL, {"metadata": {"generation": 2}, "spec": {"virtualMachineTemplate": changed}})
    api.wait(lambda: "deletionTimestamp" in meta(api, "web-0"))
    end(api, "web-0")
    api.wait(lambda: meta(api, "web-0").get("uid") not in (before, None))
    assert api.objects[f"{VMIS}/web-0"]["spec"]["domain"]["memory"]["guest"] == "96M"


def test_machines_are_adopted_and_released(api: FakeApi) -> None:
    orphan = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "web-1", "namespace": "ns", "labels": {"app": "web"}},
        "spec": pool()["spec"]["virtualMachineTemplate"]["spec"],
    }
    api.put(f"{VMS}/web-1", orphan)
    api.put(f"{VMS}/other", {**orphan, "metadata": {**orphan["metadata"], "name": "other"}})
    uid = api.put(POOL, pool(replicas=2))["metadata"]["uid"]
    api.wait(lambda: machines(api) == ["other", "web-0", "web-1"])
    api.wait(lambda: api.objects[f"{VMS}/web-1"]["metadata"]["labels"].get(LABEL) == "web-1")
    assert [each["uid"] for each in api.objects[f"{VMS}/web-1"]["metadata"]["ownerReferences"]] == [uid]
    assert not api.objects[f"{VMS}/other"]["metadata"].get("ownerReferences")

    api.update(f"{VMS}/web-0", {"metadata": {"labels": {"app": "quarantine"}}})
    api.wait(lambda: not api.objects[f"{VMS}/web-0"]["metadata"].get("ownerReferences"))
    assert FINALIZER not in api.objects[f"{VMS}/web-0"]["metadata"]["finalizers"]
    api.wait(lambda: "web-2" in machines(api), seconds=60)


def test_claims_outlive_machines_if_asked_for(api: FakeApi) -> None:
    volumes = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}
    strategy = {"proactive": {"statePreservation": "Offline"}}
    api.put(POOL, pool(replicas=1, template=volumes, scaleInStrategy=strategy))
    api.wait(lambda: machines(api) == ["web-0"])
    owner = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "name": "web-0",
        "uid": api.objects[f"{VMS}/web-0"]["metadata"]["uid"],
    }
    claim = "/api/v1/namespaces/ns/persistentvolumeclaims/data"
    metadata = {"name": "data", "namespace": "ns", "ownerReferences": [owner]}
    api.put(claim, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {}})
    api.update(POOL, {"spec": {"replicas": 0}})
    api.wait(lambda: not api.objects[claim]["metadata"].get("ownerReferences"))
    api.wait(lambda: machines(api) == [])


def test_a_paused_pool_leaves_everything_as_it_is(api: FakeApi) -> None:
    api.put(POOL, pool(paused=True))
    api.wait(lambda: any(each["type"] == "ReplicaPaused" for each in status(api).get("conditions") or ()))
    assert not machines(api)
    api.update(POOL, {"spec": {"paused": False}})
    api.wait(lambda: status(api).get("replicas") == 3 and not status(api).get("conditions"))
    api.wait(lambda: {"SuccessfulPaused", "SuccessfulResume"} <= reasons(api))


def test_what_keeps_machines_from_being_created_is_told_and_tried_again(api: FakeApi) -> None:
    refuse = True

    def admit(method: str, path: str, obj: dict) -> None:
        if method == "POST" and refuse and obj.get("kind") == "VirtualMachine":
            raise Refused(403, "Forbidden", "exceeded quota: small")

    api.admit = admit  # type: ignore[method-assign]
    api.put(POOL, pool())
    api.wait(lambda: "exceeded quota: small" in str(status(api).get("conditions")))
    assert status(api)["conditions"][0]["reason"] == "FailedScaleOut"
    api.wait(lambda: {"FailedCreate", "FailedScaleOut"} <= reasons(api))
    refuse = False
    api.wait(lambda: status(api).get("replicas") == 3 and not status(api).get("conditions"), seconds=60)


def test_a_pool_that_is_deleted_lets_go(api: FakeApi) -> None:
    api.put(POOL, pool(replicas=1))
    api.wait(lambda: machines(api) == ["web-0"] and status(api).get("replicas") == 1)
    api.delete(POOL)
    api.wait(lambda: POOL not in api.objects)
    assert FINALIZER not in api.objects[f"{VMS}/web-0"]["metadata"]["finalizers"]


def test_a_machine_whose_pool_is_gone_isnt_held_up(api: FakeApi) -> None:
    owner = {"apiVersion": "x", "kind": "VirtualMachinePool", "name": "web", "uid": "gone", "controller": True}
    metadata = {"name": "web-0", "namespace": "ns", "finalizers": [FINALIZER], "ownerReferences": [owner]}
    spec = pool()["spec"]["virtualMachineTemplate"]["spec"]
    api.put(
        f"{VMS}/web-0",
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachine",
            "metadata": {**metadata, "deletionTimestamp": STAMP},
            "spec": spec,
        },
    )
    api.wait(lambda: f"{VMS}/web-0" not in api.objects)


def test_another_pools_revision_gives_way(api: FakeApi) -> None:
    metadata = {"name": "web-1", "namespace": "ns", "labels": {LABEL: "web-1"}}
    api.put(
        f"{REVISIONS}/web-1",
        {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "data": {}, "revision": 1},
    )
    api.put(POOL, pool(replicas=1))
    api.wait(lambda: machines(api) == ["web-0"])
    assert api.objects[f"{REVISIONS}/web-1"]["data"]["replicas"] == 1
