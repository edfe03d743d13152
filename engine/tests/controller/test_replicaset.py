# SPDX-License-Identifier: GPL-3.0-or-later
"""Replica sets against an API server: the test plays the user and everybody else."""

from __future__ import annotations

import pytest
from fakeapi import FakeApi, Refused
from test_replicaset_plan import NOW, replicaset

RS = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachineinstancereplicasets/web"
VMIS = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachineinstances"

pytestmark = pytest.mark.usefixtures("controller")


def instances(api: FakeApi) -> dict[str, dict]:
    return {path: obj for path, obj in list(api.objects.items()) if path.startswith(f"{VMIS}/")}


def active(api: FakeApi) -> list[str]:
    return [path for path, obj in instances(api).items() if not obj["metadata"].get("deletionTimestamp")]


def status(api: FakeApi) -> dict:
    return api.objects[RS].get("status") or {}


def orphan(api: FakeApi, name: str, **labels: str) -> str:
    path = f"{VMIS}/{name}"
    api.put(
        path,
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": name, "namespace": "ns", "labels": labels},
            "spec": {"domain": {"memory": {"guest": "64M"}}},
            "status": {"phase": "Pending"},
        },
    )
    return path


def owners(api: FakeApi, path: str) -> list[str]:
    return [each["uid"] for each in api.objects[path]["metadata"].get("ownerReferences") or ()]


def test_it_scales_up_and_down_and_replaces(api: FakeApi) -> None:
    api.put(RS, replicaset())
    api.wait(lambda: status(api).get("replicas") == 3)
    assert (status(api)["readyReplicas"], status(api)["labelSelector"]) == (0, "app=web")
    first, *_ = active(api)
    api.update(first, {"status": {"phase": "Succeeded", "phaseTransitionTimestamps": [{"phase": "Running"}]}})
    api.wait(lambda: len(active(api)) == 3 and first not in active(api))
    api.update(RS, {"spec": {"replicas": 1}})
    api.wait(lambda: len(active(api)) == 1)
    api.wait(lambda: status(api).get("replicas") == 1)


def test_orphans_are_adopted_and_strays_released(api: FakeApi) -> None:
    found = orphan(api, "found", app="web")
    foreign = orphan(api, "foreign", app="other")
    rs = api.put(RS, replicaset(replicas=1))["metadata"]["uid"]
    api.wait(lambda: owners(api, found) == [rs])
    assert active(api) == [found, foreign]

    api.update(found, {"metadata": {"labels": {"app": "quarantine"}}})
    api.wait(lambda: owners(api, found) == [])
    api.wait(lambda: len(active(api)) == 3)
    assert not owners(api, foreign)

    api.update(foreign, {"metadata": {"labels": {"app": "web"}}})
    api.wait(lambda: status(api).get("replicas") == 1 and len(active(api)) == 2)


def test_a_paused_set_leaves_everything_as_it_is(api: FakeApi) -> None:
    api.put(RS, replicaset(paused=True))
    api.wait(lambda: any(each["type"] == "ReplicaPaused" for each in status(api).get("conditions") or ()))
    assert not instances(api)
    api.update(RS, {"spec": {"paused": False}})
    api.wait(lambda: status(api).get("replicas") == 3 and not status(api).get("conditions"))
    wanted = {"SuccessfulPaused", "SuccessfulResumed", "SuccessfulCreate"}
    api.wait(lambda: wanted <= {each.get("reason") for path, each in list(api.objects.items()) if "/events/" in path})


def test_what_keeps_instances_from_being_created_is_told_and_tried_again(api: FakeApi) -> None:
    refuse = True

    def admit(method: str, path: str, obj: dict) -> None:
        if method == "POST" and refuse and obj.get("kind") == "VirtualMachineInstance":
            raise Refused(403, "Forbidden", "exceeded quota: small")

    api.admit = admit  # type: ignore[method-assign]
    api.put(RS, replicaset())
    api.wait(lambda: "exceeded quota: small" in str(status(api).get("conditions")))
    assert status(api)["conditions"][0]["reason"] == "FailedCreate"
    refuse = False
    api.wait(lambda: status(api).get("replicas") == 3 and not status(api).get("conditions"))


def test_a_set_that_is_being_deleted_creates_nothing(api: FakeApi) -> None:
    leaving = replicaset()
    leaving["metadata"] |= {"deletionTimestamp": NOW, "finalizers": ["orphan"]}
    api.put(RS, leaving)
    api.wait(lambda: status(api).get("replicas") == 0)
    assert not instances(api)


def test_a_corrected_set_is_tried_at_once(api: FakeApi) -> None:
    api.put(RS, replicaset(replicas=1))
    api.wait(lambda: status(api).get("replicas") == 1)
    (first,) = active(api)
    api.update(first, {"status": {"phase": "Failed"}})
    api.wait(lambda: status(api).get("replicas") == 0)
    assert not active(api), "it never ran, so the next one has to wait"
    api.update(RS, {"spec": {"template": {"spec": {"domain": {"memory": {"guest": "96M"}}}}}})
    api.wait(lambda: len(active(api)) == 1, seconds=60)
    assert api.objects[active(api)[0]]["spec"]["domain"]["memory"]["guest"] == "96M"
