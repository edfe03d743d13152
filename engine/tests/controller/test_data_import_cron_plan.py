# SPDX-License-Identifier: GPL-3.0-or-later
"""What a DataImportCron needs next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from turtles.api import cdi
from turtles.api.conditions import get_condition
from turtles.controller.data_volume.cron.plan import Observed, Plan, plan
from turtles.controller.data_volume.cron.pod import poller_pod
from turtles.controller.data_volume.pod import ImporterConfig

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
FIRST, SECOND = (f"sha256:{digit * 64}" for digit in "12")
CURRENT = {"DataVolumeName": "web-111111111111", "Digest": FIRST}


def cron(digest: str = "", current: dict | None = None, due: bool = False, **spec: Any) -> dict:
    registry = {"url": "docker://registry.example.com:5000/web:1", "secretRef": "login"}
    storage = {"resources": {"requests": {"storage": "1Gi"}}}
    annotations = {cdi.NEXT_CRON_TIME: "2026-03-01T12:00:00Z" if due else "2026-03-01T13:00:00Z"}
    if digest:
        annotations[cdi.DESIRED_DIGEST] = digest
    return {
        "apiVersion": "cdi.kubevirt.io/v1beta1",
        "kind": "DataImportCron",
        "metadata": {
            "name": "web",
            "namespace": "ns",
            "uid": "cron",
            "annotations": annotations,
            "labels": {"instancetype.kubevirt.io/default-preference": "debian"},
        },
        "spec": {
            "template": {
                "metadata": {"labels": {"team": "images"}, "annotations": {"a": "b"}},
                "spec": {"source": {"registry": registry}, "storage": storage},
            },
            "schedule": "0 * * * *",
            "managedDataSource": "web",
            **spec,
        },
        "status": {"currentImports": [current]} if current else {},
    }


def imported(name: str = CURRENT["DataVolumeName"], phase: str = "Succeeded", message: str = "") -> dict:
    condition = {"type": "Running", "status": "False", "reason": "Error" if message else "", "message": message}
    return {
        "kind": "DataVolume",
        "metadata": {"name": name, "namespace": "ns", "labels": {cdi.IMPORT_CRON: "web"}},
        "status": {"phase": phase, "conditions": [condition]},
    }


def claim(name: str = CURRENT["DataVolumeName"], used: str = "") -> dict:
    annotations = {cdi.POD_PHASE: "Succeeded", **({cdi.LAST_USE_TIME: used} if used else {})}
    metadata = {
        "name": name,
        "namespace": "ns",
        "annotations": annotations,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {"kind": "PersistentVolumeClaim", "metadata": metadata}


def source(leads_to: str = "", **labels: str) -> dict:
    named = {"pvc": {"namespace": "ns", "name": leads_to}} if leads_to else {}
    return {"metadata": {"name": "web", "namespace": "ns", "labels": labels}, "spec": {"source": named}}


def poller(phase: str = "Running", message: str = "", **container: Any) -> dict:
    if message:
        container["state"] = {"terminated": {"exitCode": 0, "message": message}}
    return {"metadata": {"name": "poll-web"}, "status": {"phase": phase, "containerStatuses": [container]}}


def said(decided: Plan, type_: str) -> tuple[str, str, str]:
    found = get_condition(decided.status["conditions"], type_)
    assert found is not None
    return found["status"], found["reason"], found["message"]


def test_a_new_one_asks_at_once() -> None:
    new = cron()
    del new["metadata"]["annotations"]
    decided = plan(new, Observed(), NOW)
    assert (decided.create_poller, decided.create) == (True, None)
    assert said(decided, "UpToDate") == ("False", "NoDigest", "No source digest")
    assert said(decided, "Progressing") == ("False", "NoImport", "No current import")
    assert decided.create_source is not None
    assert decided.create_source["metadata"]["labels"] == {
        cdi.IMPORT_CRON: "web",
        "instancetype.kubevirt.io/default-preference": "debian",
    }
    assert decided.create_source["spec"] == {"source": {}}


def test_its_time_comes() -> None:
    assert plan(cron(due=True), Observed(), NOW).create_poller
    waiting = plan(cron(), Observed(), NOW)
    assert (waiting.create_poller, waiting.wait) == (False, 3570.0)
    # A clock that was set, or a note that is none
    odd = cron()
    for noted in ("2036-01-01T00:00:00Z", "soon"):
        odd["metadata"]["annotations"][cdi.NEXT_CRON_TIME] = noted
        assert plan(odd, Observed(), NOW).create_poller
    assert not plan(cron(due=True, schedule=""), Observed(), NOW).create_poller
    assert plan(cron(schedule=""), Observed(poller=poller()), NOW).delete_poller


def test_an_answer_begins_an_import() -> None:
    decided = plan(cron(due=True), Observed(poller=poller("Succeeded", FIRST)), NOW)
    assert decided.delete_poller
    assert decided.annotations == {
        cdi.DESIRED_DIGEST: FIRST,
        cdi.LAST_CRON_TIME: "2026-03-01T12:00:30Z",
        cdi.NEXT_CRON_TIME: "2026-03-01T13:00:00Z",
    }
    assert decided.status["currentImports"] == [CURRENT]
    assert decided.status["lastExecutionTimestamp"] == "2026-03-01T12:00:30Z"
    assert said(decided, "UpToDate")[:2] == ("False", "Outdated")
    made = decided.create
    assert made is not None
    registry = {"url": f"docker://registry.example.com:5000/web@{FIRST}", "secretRef": "login"}
    assert made["spec"]["source"] == {"registry": registry}
    assert made["metadata"]["annotations"] == {"a": "b", cdi.BIND_IMMEDIATELY: "true"}
    assert made["metadata"]["labels"]["team"] == "images"
    assert made["metadata"]["labels"][cdi.IMPORT_CRON] == "web"
    assert "ownerReferences" not in made["metadata"]


def test_imports_that_go_with_it() -> None:
    made = plan(cron(FIRST, retentionPolicy="None"), Observed(), NOW).create
    assert made is not None
    assert made["metadata"]["labels"][cdi.IMPORT_CRON_CLEANUP] == "true"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "cron"


@pytest.mark.parametrize(
    "pod",
    [
        poller("Succeeded", "no digest"),
        poller("Failed", "evicted"),
        poller(lastState={"terminated": {"exitCode": 1, "message": "unauthorized"}}),
    ],
)
def test_an_answer_that_is_none(pod: dict) -> None:
    decided = plan(cron(due=True), Observed(poller=pod), NOW)
    assert (decided.annotations, decided.create) == ({}, None)
    status, reason, message = said(decided, "UpToDate")
    assert (status, reason) == ("False", "NoDigest")
    assert message.startswith("No source digest: ")
    up = Observed(imported(), claim(), poller=pod)
    assert said(plan(cron(FIRST, CURRENT, due=True), up, NOW), "UpToDate")[:2] == ("True", "UpToDate")


@pytest.mark.parametrize(
    ("phase", "progressing"),
    [
        ("ImportScheduled", ("False", "ImportScheduled", "Import is scheduled")),
        ("ImportInProgress", ("True", "ImportProgressing", "Import is progressing")),
        ("Pending", ("False", "Pending", "Import DataVolume phase Pending")),
    ],
)
def test_an_import_that_goes_on(phase: str, progressing: tuple) -> None:
    decided = plan(cron(FIRST, CURRENT), Observed(imported(phase=phase)), NOW)
    assert said(decided, "Progressing") == progressing
    assert said(decided, "UpToDate") == ("False", "ImportProgressing", "Import is progressing")
    # What comes next waits for it
    assert plan(cron(SECOND, CURRENT), Observed(imported(phase=phase)), NOW).create is None


def test_an_import_that_is_complete() -> None:
    observed = Observed(imported(), claim(), data_source=source(**{cdi.IMPORT_CRON: "web"}))
    decided = plan(cron(FIRST, CURRENT), observed, NOW)
    named = {"namespace": "ns", "name": CURRENT["DataVolumeName"]}
    assert decided.status["lastImportedPVC"] == named
    assert decided.status["lastImportTimestamp"] == "2026-03-01T12:00:30Z"
    assert decided.status["sourceFormat"] == "pvc"
    assert said(decided, "UpToDate") == ("True", "UpToDate", "Latest import is up to date")
    assert decided.note == {cdi.LAST_USE_TIME: "2026-03-01T12:00:30Z"}
    assert decided.patch_source is not None
    assert decided.patch_source["spec"] == {"source": {"pvc": named}}
    # Nothing is left to do then
    later = cron(FIRST, CURRENT)
    later["status"] = decided.status
    labels = {cdi.IMPORT_CRON: "web", "instancetype.kubevirt.io/default-preference": "debian"}
    settled = Observed(imported(), claim(used="2026-03-01T12:00:30Z"), data_source=source(named["name"], **labels))
    again = plan(later, settled, NOW + timedelta(minutes=5))
    assert (again.status, again.patch_source, dict(again.note)) == (decided.status, None, {})


def test_a_data_source_that_is_its_users() -> None:
    decided = plan(cron(FIRST, CURRENT), Observed(imported(), claim(), data_source=source("mine")), NOW)
    assert (decided.patch_source, decided.create_source) == (None, None)


def test_a_newer_image_follows_a_complete_import() -> None:
    decided = plan(cron(SECOND, CURRENT), Observed(imported(), claim()), NOW)
    assert decided.create is not None
    assert decided.create["metadata"]["name"] == "web-222222222222"
    assert decided.status["currentImports"][0]["Digest"] == SECOND
    foreign = Observed(imported(), claim(), in_the_way=imported("web-222222222222"))
    decided = plan(cron(SECOND, CURRENT), foreign, NOW)
    assert decided.create is None
    assert "exists and does not belong to this DataImportCron" in said(decided, "UpToDate")[2]


def test_a_newer_image_replaces_an_import_that_fails() -> None:
    failing = imported(phase="Failed", message="it is broken")
    decided = plan(cron(FIRST, CURRENT), Observed(failing), NOW)
    assert (decided.delete, decided.create) == ([], None)
    assert said(decided, "Progressing")[2] == "Import DataVolume phase Failed: it is broken"
    decided = plan(cron(SECOND, CURRENT), Observed(failing), NOW)
    assert decided.delete == [failing]
    assert "currentImports" not in decided.status


def test_an_import_that_somebody_deletes_is_made_again() -> None:
    decided = plan(cron(FIRST, CURRENT), Observed(), NOW)
    assert decided.create is not None
    assert decided.status["currentImports"] == [CURRENT]


def test_old_imports_go() -> None:
    old = [claim(f"web-{number}", f"2026-02-0{number}T00:00:00Z") for number in range(1, 6)]
    volumes = [imported(), imported("web-1"), imported("web-stray")]
    observed = Observed(imported(), claim(), volumes, [claim(), *old])

    def gone(**spec: Any) -> set[str]:
        decided = plan(cron(FIRST, CURRENT, **spec), observed, NOW)
        return {each["metadata"]["name"] for each in decided.delete}

    assert gone() == {"web-1", "web-2", "web-3", "web-stray"}
    assert gone(importsToKeep=0) == gone(importsToKeep=1) == {f"web-{n}" for n in range(1, 6)} | {"web-stray"}
    assert gone(garbageCollect="Never") == set()
    # With its DataVolume, if it has one
    kinds = {each["metadata"]["name"]: each["kind"] for each in plan(cron(FIRST, CURRENT), observed, NOW).delete}
    assert (kinds["web-1"], kinds["web-2"]) == ("DataVolume", "PersistentVolumeClaim")


def test_the_poller() -> None:
    pod = poller_pod(cron(), ImporterConfig("importer:1"))
    assert pod["metadata"]["name"] == "poll-web"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "cron"
    container = pod["spec"]["containers"][0]
    assert container["args"][0] == "digest"
    assert "--image=registry.example.com:5000/web:1" in container["args"]
    assert "--credentials=/credentials" in container["args"]
    assert pod["spec"]["automountServiceAccountToken"] is False


# Claims


ORIGIN = {"metadata": {"name": "golden", "namespace": "images", "uid": "11111111-2222-3333-4444-555555555555"}}
UID = f"uid:{ORIGIN['metadata']['uid']}"


def copying(**more: Any) -> dict:
    made = cron(**more)
    made["spec"]["template"]["spec"]["source"] = {"pvc": {"namespace": "images", "name": "golden"}}
    return made


def test_a_claim_is_copied() -> None:
    decided = plan(copying(due=True), Observed(origin=ORIGIN), NOW)
    assert not decided.create_poller
    assert decided.annotations[cdi.DESIRED_DIGEST] == UID
    assert decided.annotations[cdi.NEXT_CRON_TIME] == "2026-03-01T13:00:00Z"
    made = decided.create
    assert made is not None
    assert made["metadata"]["name"] == "web-11111111-222"
    assert made["spec"]["source"] == {"pvc": {"namespace": "images", "name": "golden"}}
    assert decided.status["currentImports"] == [{"DataVolumeName": "web-11111111-222", "Digest": UID}]


def test_a_claim_that_has_been_made_again_is_copied_again() -> None:
    current = {"DataVolumeName": "web-11111111-222", "Digest": UID}
    observed = Observed(imported("web-11111111-222"), claim("web-11111111-222"), origin=ORIGIN)
    assert plan(copying(digest=UID, current=current, due=True), observed, NOW).create is None
    newer = {"metadata": {**ORIGIN["metadata"], "uid": "22222222-2222-3333-4444-555555555555"}}
    observed = Observed(imported("web-11111111-222"), claim("web-11111111-222"), origin=newer)
    waiting = plan(copying(digest=UID, current=current), observed, NOW)
    assert (waiting.create, waiting.wait) == (None, 3570.0)
    made = plan(copying(digest=UID, current=current, due=True), observed, NOW).create
    assert made is not None
    assert made["metadata"]["name"] == "web-22222222-222"


@pytest.mark.parametrize(
    ("observed", "words"),
    [
        (Observed(), "PersistentVolumeClaim images/golden not found"),
        (Observed(origin=ORIGIN, refusal="User a has insufficient permissions"), "User a has insufficient"),
    ],
)
def test_a_claim_that_cant_be_copied(observed: Observed, words: str) -> None:
    decided = plan(copying(due=True), observed, NOW)
    assert (decided.create, decided.annotations, decided.wait) == (None, {}, 60.0)
    assert words in said(decided, "UpToDate")[2]
    # Also if the claim is known already
    if observed.refusal:
        known = plan(copying(digest=UID), observed, NOW)
        assert known.create is None
        assert said(known, "UpToDate")[1:] == (
            "ImportFailed",
            f"PersistentVolumeClaim images/golden can't be copied: {observed.refusal}",
        )


def test_the_poller_waits_for_what_is_missing() -> None:
    waiting = poller("Pending", state={"waiting": {"reason": "ContainerCreating"}})
    pod = {**poller_pod(cron(), ImporterConfig("importer:1")), "status": waiting["status"]}
    text = 'MountVolume.SetUp failed for volume "credentials" : secret "login" not found'
    decided = plan(cron(due=True), Observed(poller=pod, told=[text]), NOW)
    words = "Secret ns/login, which spec.template.spec.source.registry.secretRef names, does not exist"
    assert words in said(decided, "UpToDate")[2]
    assert decided.wait == 60.0
