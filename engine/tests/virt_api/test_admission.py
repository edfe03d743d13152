# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import json
from typing import Any

import jsonpatch
import pytest
from api.objects import put, talk_vm, talk_vmi
from hypothesis import example, given
from hypothesis import strategies as st

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds import KINDS
from turtles.api.language import Cause
from turtles.virt_api import admission
from turtles.virt_api.checks import checks
from turtles.virt_api.metrics import of_creations
from turtles.virt_api.status import Failure, failure, invalid

MUTATE_VM, VALIDATE_VM = "/virtualmachines-mutate", "/virtualmachines-validate"
MUTATE_VMI = "/virtualmachineinstances-mutate"
VALIDATE_VMI_CREATE = "/virtualmachineinstances-validate-create"
VALIDATE_VMI_UPDATE = "/virtualmachineinstances-validate-update"
ENGINE = "system:serviceaccount:kubevirt:virt-handler"
HOOKS = admission.Admission(
    admission.engine_users("kubevirt"),
    checks=dict.fromkeys(("cdi", "data_import_cron", "data_volume", "kubevirt"), lambda request: []),
)


def ask(path: str, obj: Any, old: Any = None, user: str = "jane", **extra: Any) -> dict[str, Any]:
    request = {
        "uid": "1",
        "operation": "UPDATE" if old is not None else "CREATE",
        "object": obj,
        "oldObject": old,
        "userInfo": {"username": user, **extra},
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
    vm = patched(MUTATE_VM, talk_vm())
    assert vm["spec"]["template"]["spec"]["domain"]["firmware"]["uuid"]
    response = ask(VALIDATE_VM, vm)
    assert response["allowed"]
    assert response["warnings"] == ["spec.running is deprecated, please use spec.runStrategy instead."]
    assert vm["metadata"]["finalizers"] == ["kubevirt.io/virtualMachineControllerFinalize"]
    updated = patched(MUTATE_VM, talk_vm(), vm)
    assert updated["spec"] == vm["spec"]
    assert "finalizers" not in updated["metadata"], "its deletion goes on"
    assert patched(MUTATE_VM, vm, vm) == vm


def test_vmi_of_the_talk_passes_both_webhooks():
    vmi = patched(MUTATE_VMI, talk_vmi())
    assert vmi["status"]["phase"] == "Pending"
    assert vmi["metadata"]["labels"] == talk_vmi()["metadata"]["labels"]
    named = {**talk_vmi(), "status": {"virtualMachineRevisionName": "revision", "phase": "Running"}}
    assert "virtualMachineRevisionName" not in patched(MUTATE_VMI, named)["status"]
    status = patched(MUTATE_VMI, named, user=ENGINE)["status"]
    assert (status["virtualMachineRevisionName"], status["phase"]) == ("revision", "Pending")
    assert ask(VALIDATE_VMI_CREATE, vmi) == {"allowed": True, "uid": "1"}


def on_nodes(node: str, target: str | None = None) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": "Running", "nodeName": node}
    return {**talk_vmi(), "status": {**status, **({"migrationState": {"targetNode": target}} if target else {})}}


@pytest.mark.parametrize(
    ("handler", "old", "new", "refused"),
    [
        ("one", on_nodes("one"), on_nodes("one"), ""),
        ("two", on_nodes("one", "two"), on_nodes("two", "two"), ""),
        ("one", on_nodes("one", "two"), on_nodes("two", "two"), ""),
        ("two", on_nodes("one"), on_nodes("one"), "virt-handler is only allowed to modify VMIs it owns"),
        (
            "three",
            on_nodes("one", "two"),
            on_nodes("one", "two"),
            "virt-handler is only allowed to modify VMIs it owns",
        ),
        ("one", on_nodes("one"), on_nodes("one", "two"), "virt-handler is not allowed to set target node"),
        # A cluster that is too old to say where a token's Pod is
        (None, on_nodes("one"), on_nodes("one"), ""),
    ],
)
def test_a_node_changes_its_own_instances_only(handler: str | None, old: Any, new: Any, refused: str):
    extra = {"authentication.kubernetes.io/node-name": [handler]} if handler else {}
    response = ask(VALIDATE_VMI_UPDATE, new, old, ENGINE, extra=extra)
    assert response["allowed"] is not bool(refused)
    if refused:
        assert response["status"]["message"] == f"Node restriction, {refused}"
    controller = ENGINE.replace("virt-handler", "virt-controller")
    assert ask(VALIDATE_VMI_UPDATE, new, old, controller, extra=extra)["allowed"]


def test_without_its_gate_nodes_change_any_instance():
    hooks = admission.Admission(admission.engine_users("kubevirt"), ClusterConfiguration(feature_gates=frozenset()))
    user = {"username": ENGINE, "extra": {"authentication.kubernetes.io/node-name": ["two"]}}
    request = {"uid": "1", "operation": "UPDATE", "object": on_nodes("one"), "oldObject": on_nodes("one")}
    assert hooks.review(VALIDATE_VMI_UPDATE, {"request": {**request, "userInfo": user}})["response"]["allowed"]


def test_denial():
    vm = put(talk_vm(), "spec.template.spec.domain.devices.disks.0.name", "x")
    response = ask(VALIDATE_VM, vm)
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


def test_a_denial_says_what_to_write_today():
    response = ask(VALIDATE_VM, put(talk_vm(), "spec.template.spec.volumes.0", {"name": "containerdisk"}))
    assert not response["allowed"]
    (warning,) = response["warnings"]
    assert warning.startswith("spec.template.spec.volumes[0] has no source. If it is a registryDisk")
    assert "warnings" not in ask(VALIDATE_VM, put(talk_vm(), "spec.running", None))


def test_what_is_created_is_counted():
    hooks = admission.Admission(())
    request = {"uid": "1", "operation": "CREATE", "namespace": "ns", "object": talk_vm()}
    bad = {**request, "object": put(talk_vm(), "spec.running", None)}
    for each in (request, bad, {**request, "dryRun": True}, {**request, "operation": "UPDATE"}, request):
        hooks.review(VALIDATE_VM, {"request": each})
    hooks.review(VALIDATE_VMI_CREATE, {"request": {**request, "object": patched(MUTATE_VMI, talk_vmi())}})
    ((name, labels, value),) = of_creations(hooks.created, "virt-api-1").samples()
    assert (name, value) == ("kubevirt_vm_created_by_pod_total", 2.0)
    assert labels == {"namespace": "ns", "virt_api_pod": "virt-api-1"}


def test_message_of_a_denial_is_limited():
    vmi = patched(MUTATE_VMI, talk_vmi())
    vmi["spec"]["domain"]["devices"]["inputs"] = [{"name": str(n), "type": "mouse"} for n in range(12)]
    found = ask(VALIDATE_VMI_CREATE, vmi)["status"]
    assert found["message"].endswith("Input device can have only tablet type., and 2 more validation errors")
    assert len(found["details"]["causes"]) == 12
    assert invalid([])["message"] == ""


def test_status_belongs_to_the_engine():
    old = patched(MUTATE_VMI, talk_vmi())
    new = put(patched(MUTATE_VMI, talk_vmi()), "status", {"phase": "Running"})
    assert patched(MUTATE_VMI, new, old)["status"] == old["status"]
    assert patched(MUTATE_VMI, new, old, ENGINE) == new
    bare = {key: value for key, value in old.items() if key != "status"}
    assert "status" not in patched(MUTATE_VMI, new, bare)


def test_vmi_update():
    old = patched(MUTATE_VMI, talk_vmi())
    new = put(patched(MUTATE_VMI, talk_vmi()), "spec.hostname", "x")
    assert ask(VALIDATE_VMI_UPDATE, new, old)["status"]["message"] == "update of VMI object is restricted"
    assert ask(VALIDATE_VMI_UPDATE, new, old, ENGINE)["allowed"]


def test_what_is_being_deleted_is_left_alone():
    vm = put(put(talk_vm(), "metadata.deletionTimestamp", "t"), "spec.template.spec.domain.resources", {})
    assert ask(VALIDATE_VM, vm, vm)["allowed"]
    assert ask(MUTATE_VM, vm, vm) == {"allowed": True, "uid": "1"}


def test_kinds_name_checks_that_exist():
    assert {kind.check for kind in KINDS} - {None} == checks(None, "kubevirt").keys()  # type: ignore[arg-type]


def test_a_check_is_asked_last():
    asked: list[Any] = []

    def check(request: dict[str, Any]) -> list[Cause]:
        asked.append(request["operation"])
        return [Cause("FieldValueDuplicate", "there is one")]

    hooks = admission.Admission((), checks={"kubevirt": check})
    others = {path for path in hooks.slow if not path.startswith("/migration-")}
    asking = {"/kubevirt-validate", "/datavolume-mutate", "/datavolume-validate", "/virtualmachinerestores-validate"}
    asking |= {"/cdi-validate", "/dataimportcron-validate"}
    assert others == {*asking, MUTATE_VM, VALIDATE_VM, "/status-validate"}, "those that ask the API server"

    def review(operation: str, obj: Any) -> dict[str, Any]:
        request = {"uid": "1", "operation": operation, "object": obj, "oldObject": {"spec": {}}}
        return hooks.review("/kubevirt-validate", {"request": request})["response"]

    assert "must be of type" in review("CREATE", {"spec": {"infra": 1}})["status"]["message"]
    assert asked == []
    assert review("CREATE", {"spec": {}})["status"]["message"] == "there is one"
    assert review("DELETE", None)["status"]["message"] == "there is one"
    assert asked == ["CREATE", "DELETE"]


def test_an_object_that_is_to_be_created_may_lack_its_namespace():
    """Before Kubernetes 1.21 it is stored after admission."""
    asked: list[tuple[str, ...]] = []

    def find(kind: str, namespace: str, name: str) -> dict[str, Any]:
        asked.append((kind, namespace, name))
        return {"spec": {}}

    hooks = admission.Admission((), find=find)
    vm = talk_vm()
    vm["metadata"].pop("namespace", None)
    vm["spec"]["preference"] = {"name": "linux", "kind": "VirtualMachinePreference"}
    request = {"uid": "1", "operation": "CREATE", "object": vm, "namespace": "shop", "userInfo": {"username": "jane"}}
    response = hooks.review(MUTATE_VM, {"request": request})["response"]
    assert response["allowed"]
    assert asked[0] == ("VirtualMachinePreference", "shop", "linux")
    assert "/metadata/namespace" not in [step["path"] for step in json.loads(base64.b64decode(response["patch"]))]


def test_no_review():
    with pytest.raises(Failure) as found:
        HOOKS.review(MUTATE_VM, [])
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
@example("/virtualmachineinstances-validate-update", {}, {}, "UPDATE", {})
def test_any_json_is_answered(path, obj, old, operation, user):
    request = {"uid": "1", "operation": operation, "object": obj, "oldObject": old, "userInfo": user}
    response = HOOKS.review(path, {"request": request})["response"]
    assert isinstance(response["allowed"], bool)
