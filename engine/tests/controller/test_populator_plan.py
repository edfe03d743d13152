# SPDX-License-Identifier: GPL-3.0-or-later
"""What a claim needs next that a populator fills."""

from __future__ import annotations

from typing import Any

import pytest
from test_data_volume_plan import AT_ONCE, LOCAL

from turtles.api import cdi, uploads
from turtles.api.kind import Context
from turtles.api.kinds.data_volume import DATA_VOLUME
from turtles.api.populators import CLONE, CLONE_ERROR, CLONE_PHASE, IMPORT, PRIME, PROGRESS, SELECTED_NODE, UPLOAD
from turtles.controller.data_volume.populator.plan import Observed, Plan, plan

SOURCES = {
    IMPORT: {"source": {"http": {"url": "https://x/a"}}, "preallocation": True},
    UPLOAD: {"contentType": "kubevirt"},
    CLONE: {"source": {"kind": "PersistentVolumeClaim", "name": "golden"}, "priorityClassName": "low"},
}


def claim(kind: str = IMPORT, phase: str = "Pending", annotations: dict | None = None, **spec: Any) -> dict:
    return {
        "metadata": {"name": "disk", "namespace": "ns", "uid": "u-1", "annotations": annotations or {}},
        "spec": {
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "at-once",
            "volumeMode": "Filesystem",
            "dataSourceRef": {"apiGroup": "cdi.kubevirt.io", "kind": kind, "name": "web"},
            **spec,
        },
        "status": {"phase": phase},
    }


def source(kind: str = IMPORT, **spec: Any) -> dict:
    return {"metadata": {"name": "web", "namespace": "ns"}, "spec": {**SOURCES[kind], **spec}}


def filling(phase: str, progress: str = "N/A", reason: str = "", message: str = "", status: str = "False") -> dict:
    running = {"type": "Running", "status": status, "reason": reason, "message": message}
    state = {"phase": phase, "progress": progress, "conditions": [running], "restartCount": 2}
    return {"metadata": {"name": "prime-u-1", "namespace": "ns", "uid": "dv"}, "status": state}


PRIMED = {"metadata": {"name": "prime-u-1", "namespace": "ns", "uid": "prime", "annotations": {uploads.READY: "true"}}}


def volume(holder: str) -> dict:
    return {"metadata": {"name": "pv"}, "spec": {"claimRef": {"uid": holder}}}


def begin(wanted: dict, **observed: Any) -> Plan:
    kind = wanted["spec"]["dataSourceRef"]["kind"]
    return plan(wanted, Observed(**{"source": source(kind), "storage_class": AT_ONCE, **observed}))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (IMPORT, {"source": {"http": {"url": "https://x/a"}}, "preallocation": True}),
        (UPLOAD, {"source": {"upload": {}}, "contentType": "kubevirt"}),
        (CLONE, {"source": {"pvc": {"namespace": "ns", "name": "golden"}}, "priorityClassName": "low"}),
    ],
)
def test_another_claim_is_filled_in_its_place(kind: str, expected: dict) -> None:
    decided = begin(claim(kind))
    made = decided.create
    assert made is not None
    form = {
        "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "at-once",
        "volumeMode": "Filesystem",
    }
    assert made["spec"] == {"pvc": form, **expected}
    assert made["metadata"]["name"] == "prime-u-1"
    owner = made["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("PersistentVolumeClaim", "u-1", True)
    assert decided.note[PRIME] == "prime-u-1"
    assert decided.note.get(CLONE_PHASE) == ("Pending" if kind == CLONE else None)
    # The engine may have several access modes, as the claim has them; a user may not
    assert DATA_VOLUME.validate is not None
    assert DATA_VOLUME.validate(made, Context(privileged=True)) == []
    assert [cause.message for cause in DATA_VOLUME.validate(made)] == ["PVC multiple accessModes"]


def test_a_claim_waits_for_its_first_consumer() -> None:
    assert begin(claim(), storage_class=LOCAL) == Plan()
    node = {SELECTED_NODE: "node-1"}
    made = begin(claim(annotations=node), storage_class=LOCAL).create
    assert made is not None
    assert made["metadata"]["annotations"][SELECTED_NODE] == "node-1"
    assert begin(claim(annotations={cdi.BIND_IMMEDIATELY: "true"}), storage_class=LOCAL).create is not None
    # What was wrong before isn't any more
    before = {cdi.FAILURE_REASON: "Error", cdi.FAILURE_MESSAGE: "no source"}
    assert begin(claim(annotations=before), storage_class=LOCAL).note[cdi.FAILURE_MESSAGE] == ""


@pytest.mark.parametrize(
    ("wanted", "observed", "words"),
    [
        (claim(), {"source": None}, "VolumeImportSource ns/web doesn't exist"),
        (claim(), {"source": source(targetClaim="other")}, "is for another claim"),
        (claim(storageClassName=""), {}, "has empty storage class name"),
        (claim(), {"storage_class": None}, "storage class at-once not found"),
        (claim(), {"storage_class": {"provisioner": "kubernetes.io/x"}}, "in-tree storage class"),
        (claim(), {"in_the_way": True}, "DataVolume prime-u-1 exists and does not belong to this claim"),
        (
            claim(dataSourceRef={"apiGroup": "cdi.kubevirt.io", "kind": IMPORT, "name": "web", "namespace": "b"}),
            {},
            "'b' is not the claim's namespace",
        ),
    ],
)
def test_what_can_not_be_filled(wanted: dict, observed: dict, words: str) -> None:
    decided = begin(wanted, **observed)
    assert decided.create is None
    ((type_, reason, message),) = decided.events
    assert (type_, reason) == ("Warning", "ErrCreatingPVCPrime")
    assert words in message
    assert decided.note[cdi.FAILURE_MESSAGE] == message
    # Said once
    wanted = {**wanted, "metadata": {**wanted["metadata"], "annotations": dict(decided.note)}}
    assert begin(wanted, **observed).events == ()


def test_a_claim_without_a_class_gets_one_later() -> None:
    wanted = claim()
    del wanted["spec"]["storageClassName"]
    assert begin(wanted) == Plan()


def test_progress() -> None:
    running = filling(cdi.IMPORT_IN_PROGRESS, "43.21%", message="Pod is running", status="True")
    decided = plan(claim(), Observed(data_volume=running, prime=PRIMED))
    assert decided.note == {
        PRIME: "prime-u-1",
        PROGRESS: "43.21%",
        cdi.RUNNING_CONDITION: "true",
        cdi.FAILURE_REASON: "",
        cdi.FAILURE_MESSAGE: "Pod is running",
        cdi.POD_RESTARTS: "2",
        cdi.POD_PHASE: "Running",
    }
    assert not decided.events
    uploading = plan(claim(UPLOAD), Observed(data_volume=filling(cdi.UPLOAD_READY), prime=PRIMED))
    assert uploading.note[uploads.READY] == "true"
    copying = plan(claim(CLONE), Observed(data_volume=filling(cdi.CLONE_IN_PROGRESS), prime=PRIMED))
    assert copying.note[CLONE_PHASE] == "HostClone"


def test_what_goes_wrong_is_said_once() -> None:
    failing = filling(cdi.IMPORT_IN_PROGRESS, reason="Error", message="404 Not Found")
    decided = plan(claim(), Observed(data_volume=failing, prime=PRIMED))
    assert decided.events == (("Warning", "Error", "404 Not Found"),)
    again = plan(claim(annotations=dict(decided.note)), Observed(data_volume=failing, prime=PRIMED))
    assert again.events == ()
    failed = filling(cdi.FAILED, reason="Error", message="404 Not Found")
    decided = plan(claim(annotations=dict(decided.note)), Observed(data_volume=failed, prime=PRIMED))
    assert decided.note[cdi.POD_PHASE] == "Failed"
    assert decided.events == (("Warning", "importFailed", "import into disk failed: 404 Not Found"),)
    copying = plan(claim(CLONE), Observed(data_volume=failed, prime=PRIMED))
    assert (copying.note[CLONE_PHASE], copying.note[CLONE_ERROR]) == ("Error", "404 Not Found")


def test_its_volume_is_handed_over() -> None:
    filled = {"data_volume": filling(cdi.SUCCEEDED, "100.0%"), "prime": PRIMED}
    decided = plan(claim(), Observed(**filled, volume=volume("prime")))
    assert (decided.give, decided.delete) == (True, False)
    # Until whoever binds claims has seen it
    decided = plan(claim(), Observed(**filled, volume=volume("u-1")))
    assert (decided.give, decided.delete) == (False, False)
    # Never somebody else's
    for odd in (volume("other"), None):
        decided = plan(claim(), Observed(**filled, volume=odd))
        assert not decided.give
        assert "is gone or is another claim's" in decided.events[0][2]


@pytest.mark.parametrize(
    ("kind", "reason", "words"),
    [
        (IMPORT, "importSucceeded", "Import Complete"),
        (UPLOAD, "UploadSucceeded", "Upload Complete"),
        (CLONE, "CloneSucceeded", "Clone Complete"),
    ],
)
def test_a_bound_claim_has_its_content(kind: str, reason: str, words: str) -> None:
    observed = Observed(data_volume=filling(cdi.SUCCEEDED), prime=PRIMED)
    decided = plan(claim(kind, "Bound"), observed)
    assert decided.delete
    assert (decided.note[cdi.POD_PHASE], decided.note[PROGRESS], decided.note[PRIME]) == ("Succeeded", "100.0%", None)
    assert decided.note[cdi.FAILURE_MESSAGE] == words
    assert [event[1] for event in decided.events] == [reason]
    kept = plan(claim(kind, "Bound", {cdi.RETAIN_POD: "true", cdi.POD_PHASE: "Succeeded"}), observed)
    assert (kept.delete, kept.events) == (False, ())
    # One that somebody bound to a volume of his own needs no content
    assert plan(claim(kind, "Bound"), Observed(source=source(kind))) == Plan()
