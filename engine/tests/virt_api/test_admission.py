# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import json
from typing import Any

import jsonpatch
import pytest
from api.objects import put, talk_vm, talk_vmi
from hypothesis import given
from hypothesis import strategies as st

from turtles.virt_api import admission
from turtles.virt_api.status import Failure, failure, invalid

ENGINE = "system:serviceaccount:kubevirt:virt-handler"
HOOKS = admission.Admission(admission.engine_users("kubevirt"))


def ask(path: str, obj: Any, old: Any = None, user: str = "jane") -> dict[str, Any]:
    request = {
        "uid": "1",
        "operation": "UPDATE" if old is not None else "CREATE",
        "object": obj,
        "oldObject": old,
        "userInfo": {"username": user},
    }
    answer = HOOKS.review(path, {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
    assert answer["apiVersion"] == "admission.k8s.io/v1"
    assert answer["response"]["uid"] == "1"
    return answer["response"]


def patched(path: str, obj: Any, old: Any = None, user: str = "jane") -> Any:
    response = ask(path, obj, old, user)
    assert response["allowed"]
    if "patch" not in response:
        return obj
    assert response["patchType"] == "JSONPatch"
    return jsonpatch.apply_patch(obj, json.loads(base64.b64decode(response["patch"])))


def test_vm_of_the_talk_passes_both_webhooks():
    vm = patched(admission.MUTATE_VM, talk_vm())
    assert vm["spec"]["template"]["spec"]["domain"]["firmware"]["uuid"]
    response = ask(admission.VALIDATE_VM, vm)
    assert response["allowed"]
    assert response["warnings"] == ["spec.running is deprecated, please use spec.runStrategy instead."]
    assert vm["metadata"]["finalizers"] == ["kubevirt.io/virtualMachineControllerFinalize"]
    updated = patched(admission.MUTATE_VM, talk_vm(), vm)
    assert updated["spec"] == vm["spec"]
    assert "finalizers" not in updated["metadata"], "its deletion goes on"
    assert patched(admission.MUTATE_VM, vm, vm) == vm


def test_vmi_of_the_talk_passes_both_webhooks():
    vmi = patched(admission.MUTATE_VMI, talk_vmi())
    assert vmi["status"]["phase"] == "Pending"
    assert vmi["metadata"]["labels"] == talk_vmi()["metadata"]["labels"]
    named = {**talk_vmi(), "status": {"virtualMachineRevisionName": "revision", "phase": "Running"}}
    assert "virtualMachineRevisionName" not in patched(admission.MUTATE_VMI, named)["status"]
    status = patched(admission.MUTATE_VMI, named, user=ENGINE)["status"]
    assert (status["virtualMachineRevisionName"], status["phase"]) == ("revision", "Pending")
    assert ask(admission.VALIDATE_VMI_CREATE, vmi) == {"allowed": True, "uid": "1"}


def test_denial():
    vm = put(talk_vm(), "spec.template.spec.domain.devices.disks.0.name", "x")
    response = ask(admission.VALIDATE_VM, vm)
    assert not response["allowed"]
    found = response["status"]
    assert (found["code"], found["reason"]) == (422, "Invalid")
    assert found["message"] == "spec.template.spec.domain.devices.disks[0].Name 'x' not found."
    assert found["details"]["causes"] == [
        {
            "reason": "FieldValueInvalid",
            "message": "spec.template.spec.domain.devices.disks[0].Name 'x' not found.",
            "field": "spec.template.spec.domain.devices.disks[0].name",
        }
    ]


def test_message_of_a_denial_is_limited():
    vmi = patched(admission.MUTATE_VMI, talk_vmi())
    vmi["spec"]["domain"]["devices"]["inputs"] = [{"name": str(n), "type": "mouse"} for n in range(12)]
    found = ask(admission.VALIDATE_VMI_CREATE, vmi)["status"]
    assert found["message"].endswith("Input device can have only tablet type., and 2 more validation errors")
    assert len(found["details"]["causes"]) == 12
    assert invalid([])["message"] == ""


def test_status_belongs_to_the_engine():
    old = patched(admission.MUTATE_VMI, talk_vmi())
    new = put(patched(admission.MUTATE_VMI, talk_vmi()), "status", {"phase": "Running"})
    assert patched(admission.MUTATE_VMI, new, old)["status"] == old["status"]
    assert patched(admission.MUTATE_VMI, new, old, ENGINE) == new
    bare = {key: value for key, value in old.items() if key != "status"}
    assert "status" not in patched(admission.MUTATE_VMI, new, bare)


def test_vmi_update():
    old = patched(admission.MUTATE_VMI, talk_vmi())
    new = put(patched(admission.MUTATE_VMI, talk_vmi()), "spec.hostname", "x")
    assert ask(admission.VALIDATE_VMI_UPDATE, new, old)["status"]["message"] == "update of VMI object is restricted"
    assert ask(admission.VALIDATE_VMI_UPDATE, new, old, ENGINE)["allowed"]


def test_what_is_being_deleted_is_left_alone():
    vm = put(put(talk_vm(), "metadata.deletionTimestamp", "t"), "spec.template.spec.domain.resources", {})
    assert ask(admission.VALIDATE_VM, vm, vm)["allowed"]
    assert ask(admission.MUTATE_VM, vm, vm) == {"allowed": True, "uid": "1"}


def test_no_review():
    with pytest.raises(Failure) as found:
        HOOKS.review(admission.MUTATE_VM, [])
    assert found.value.code == 400
    with pytest.raises(Failure) as found:
        HOOKS.review("/x", {})
    assert found.value.as_status()["reason"] == "NotFound"
    assert failure(418, "tea")["reason"] == "Unknown"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["metadata", "spec", "template", "domain", "devices", "labels", "finalizers", "status", "x"]
            ),
            below,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(sorted(HOOKS.reviews)), JSON, JSON, st.sampled_from(["CREATE", "UPDATE", None]), JSON)
def test_any_json_is_answered(path, obj, old, operation, user):
    request = {"uid": "1", "operation": operation, "object": obj, "oldObject": old, "userInfo": user}
    response = HOOKS.review(path, {"request": request})["response"]
    assert isinstance(response["allowed"], bool)
