# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import threading

import pytest
from api import Refused
from fakeapi import status

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {"group": "example.com"},
}
CONFIGMAP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "c", "namespace": "default"},
    "data": {"a": "1"},
}


def test_lists_are_read_in_pages_and_items_know_their_kind(api, run):
    for number in range(5):
        api.instance("default", "vm%d" % number, labels={"app": "a" if number else "b"})
    api.page = 2
    found = run("vmi_info")["resources"]
    assert [(o["kind"], o["metadata"]["name"]) for o in found] == [
        ("VirtualMachineInstance", "vm%d" % n) for n in range(5)
    ]
    assert len(run("vmi_info", namespace="default", label_selectors=["app=a"])["resources"]) == 4
    assert [o["metadata"]["name"] for o in run("vmi_info", name="vm3")["resources"]] == ["vm3"]
    assert run("vm_info", name="none")["resources"] == []


def test_no_right_to_read_says_so(api, run):
    api.forbidden = lambda method, path: True
    assert "VirtualMachine in all namespaces" in run("vm_info").msg
    assert "kubevirt.io:edit" in run("vm_info").msg


def test_a_refusal_names_the_object_and_no_role_that_does_not_have_the_right(api, run):
    api.forbidden = lambda method, path: True
    for state in ("present", "absent"):
        for apply in (False, True):
            if state == "present" or not apply:
                refused = run("manifest", definition=CONFIGMAP, state=state, apply=apply).msg
                assert refused.startswith("ConfigMap default/c: user cannot GET"), refused
                assert refused.endswith("Have an administrator grant the user that right."), refused


@pytest.mark.parametrize(("kind", "meant"), [("widgets", "Widget"), ("widget", "Widget"), ("Wigdet", "Widget")])
def test_a_kind_that_is_spelled_wrong(api, run, kind, meant):
    run("manifest", definition=CRD)
    failed = run("object_info", api_version="example.com/v1", kind=kind)
    assert "doesn't know kind %s in apiVersion example.com/v1. Did you mean %s?" % (kind, meant) in failed.msg


def test_nothing_is_waited_for_in_check_mode(api, run):
    api.put("virtualmachines", {"metadata": {"name": "web", "namespace": "default"}, "spec": {"template": {}}})
    options = {"name": "web", "namespace": "default", "wait_timeout": 60}
    what = {"api_version": "kubevirt.io/v1", "kind": "VirtualMachine", "wait_for": "status.ready"}
    assert run("object_info", check=True, **options, **what)["resources"]
    assert run("vm_info", check=True, **options, wait=True)["resources"]
    assert run("vmi_info", check=True, **options, wait=True)["resources"] == []


def test_objects_are_made_changed_and_removed_once(api, run):
    definition = [CRD, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}, CONFIGMAP]
    predicted = run("manifest", check=True, definition=definition)
    assert predicted["changes"] == [
        "created CustomResourceDefinition widgets.example.com",
        "created Namespace shop",
        "created ConfigMap default/c",
    ]
    assert api.get("namespaces", None, "shop") is None
    assert run("manifest", definition=definition)["changed"]
    assert not run("manifest", definition=definition)["changed"]
    changed = run("manifest", definition={**CONFIGMAP, "data": {"b": "2"}})
    assert changed["changes"] == ["patched ConfigMap default/c"]
    assert changed["resources"][0]["data"] == {"a": "1", "b": "2"}
    assert run("manifest", state="absent", definition=definition)["changed"]
    assert not run("manifest", state="absent", definition=definition)["changed"]
    assert api.get("configmaps", "default", "c") is None


def test_a_server_that_asks_to_come_again_is_asked_again(api, run):
    busy = {"POST": 2, "GET": 1}

    def intercept(method, path):
        if path.endswith("/configmaps/c") or (method == "POST" and path.endswith("/configmaps")):
            busy[method] = busy.get(method, 0) - 1
            if busy[method] >= 0:
                return status(503, "ServiceUnavailable", "not yet", {"Retry-After": "0"})
        return None

    api.intercept = intercept
    assert run("manifest", definition=CONFIGMAP)["changed"]
    api.intercept = lambda method, path: (
        status(503, "ServiceUnavailable", "out of order") if method == "PATCH" else None
    )
    failed = run("manifest", definition={**CONFIGMAP, "data": {"b": "2"}})
    assert "out of order" in failed.msg


def test_a_kind_that_comes_with_the_same_manifest(api, run):
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "default"}}
    assert run("manifest", check=True, definition=[CRD, widget])["changed"]
    assert run("manifest", definition=[CRD, widget])["changed"]
    assert api.get("widgets", "default", "w")
    assert not run("manifest", definition=[CRD, widget])["changed"]


def test_an_unknown_kind_is_an_error(run):
    failed = run("manifest", definition={"apiVersion": "no.such/v1", "kind": "Thing", "metadata": {"name": "t"}})
    assert "doesn't know kind Thing in apiVersion no.such/v1" in failed.msg


def test_yaml_of_several_documents_and_lists(api, run):
    text = "---\n---\n{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: a}}]}\n"
    assert run("manifest", definition=text)["changes"] == ["created Namespace a"]


def test_values_of_secrets_are_not_shown(api, run):
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"userdata": "c2VjcmV0"}}
    done = run("manifest", definition=secret)
    shown = {key: value for key, value in done.items() if key != "invocation"}
    assert "c2VjcmV0" not in str(shown)
    assert "userdata" in str(shown)


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ([{"kind": "Pod"}], "object 1: apiVersion is missing"),
        ([{"apiVersion": "v1", "kind": "Pod"}], "object 1 (Pod): metadata.name is missing"),
        ("just text", "expected Kubernetes objects"),
        ([CONFIGMAP, 3], "expected Kubernetes objects, but found the number 3"),
    ],
)
def test_bad_input(api, run, definition, words):
    assert words in run("manifest", definition=definition).msg
    assert api.written() == []


@pytest.mark.parametrize("options", [{"state": "absent"}, {"check": True}])
def test_a_server_that_cannot_be_asked_is_no_missing_kind(run, options):
    definition = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    failed = run("manifest", host="http://127.0.0.1:9", definition=definition, **options)
    assert failed["failed"]
    assert "can't be reached" in failed.msg


def going(api, **metadata):
    return api.put("configmaps", {"metadata": {**CONFIGMAP["metadata"], "deletionTimestamp": "x", **metadata}})


def test_what_is_being_deleted_is_made_anew_when_it_is_gone(api, run):
    old = going(api)
    assert run("manifest", check=True, definition=CONFIGMAP)["changed"]
    assert api.written() == []
    leaving = threading.Timer(0.2, api.put, ("configmaps", old, "DELETED"))
    leaving.start()
    done = run("manifest", definition=CONFIGMAP, wait_timeout=60)
    assert done["changed"]
    leaving.join()
    assert done["resources"][0]["metadata"]["uid"] != old["metadata"]["uid"]


def test_what_is_being_deleted_and_stays_is_named_with_its_finalizers(api, run):
    going(api, finalizers=["example.com/kept"])
    assert "wait=true" in run("manifest", definition=CONFIGMAP, wait=False)["msg"]
    failed = run("manifest", definition=CONFIGMAP, wait_timeout=1)
    assert failed["failed"]
    for word in ("ConfigMap", "default/c", "1 seconds (wait_timeout)", "example.com/kept"):
        assert word in failed["msg"]


def configmap(**data):
    return {**CONFIGMAP, "data": data}


def content(api):
    return api.get("configmaps", "default", "c")["data"]


def test_the_server_applies_and_removes_what_the_manifest_has_no_more(api, run):
    definition = [CRD, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}, configmap(a="1", b="2")]
    predicted = run("manifest", check=True, apply=True, definition=definition)
    assert len(predicted["changes"]) == 3
    assert api.get("configmaps", "default", "c") is None
    assert run("manifest", apply=True, definition=definition)["changes"] == predicted["changes"]
    assert {query["fieldManager"] for _method, _path, query in api.written()} == {"turtles.kubevirt"}
    assert not run("manifest", apply=True, definition=definition)["changed"]
    api.put("configmaps", {**api.get("configmaps", "default", "c"), "data": {"a": "1", "b": "2", "theirs": "3"}})
    done = run("manifest", check=True, apply=True, definition=configmap(a="9"))
    assert (done["changes"], content(api)) == (["patched ConfigMap default/c"], {"a": "1", "b": "2", "theirs": "3"})
    done = run("manifest", apply=True, definition=configmap(a="9"))
    assert (done["changes"], content(api)) == (["patched ConfigMap default/c"], {"a": "9", "theirs": "3"})
    assert done["diff"][0]["before"]["data"] == {"a": "1", "b": "2", "theirs": "3"}
    assert "managedFields" not in str(done["diff"])


def test_what_was_patched_before_is_applied_from_then_on(api, run):
    run("manifest", definition=configmap(a="1", b="2"))
    assert not run("manifest", apply=True, definition=configmap(a="1", b="2"))["changed"]
    entries = api.get("configmaps", "default", "c")["metadata"]["managedFields"]
    assert [(entry["manager"], entry["operation"]) for entry in entries] == [("turtles.kubevirt", "Apply")]
    assert run("manifest", apply=True, definition=configmap(b="2"))["changed"]
    assert content(api) == {"b": "2"}


def test_fields_of_other_managers_are_named_and_taken_by_force(api, run):
    how = {"field_manager": "kubectl-edit"}
    run("manifest", apply=True, server_side_apply=how, definition=configmap(a="theirs", b="2"))
    failed = run("manifest", apply=True, definition=configmap(a="ours"))
    assert failed["failed"]
    for word in ("ConfigMap default/c", ".data.a", '"kubectl-edit"', "force_conflicts"):
        assert word in failed["msg"]
    assert content(api) == {"a": "theirs", "b": "2"}
    forced = {"force_conflicts": True}
    assert run("manifest", check=True, apply=True, server_side_apply=forced, definition=configmap(a="ours"))["changed"]
    assert run("manifest", apply=True, server_side_apply=forced, definition=configmap(a="ours"))["changed"]
    assert content(api) == {"a": "ours", "b": "2"}


def test_applying_in_a_namespace_that_an_earlier_task_would_make(api, run):
    definition = {**CONFIGMAP, "metadata": {"name": "c", "namespace": "shop"}}
    assert run("manifest", check=True, apply=True, definition=definition)["changed"]
    assert "namespace shop doesn't exist" in run("manifest", apply=True, definition=definition)["msg"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"server_side_apply": {"force_conflicts": True}}, "has no effect without apply=true"),
        ({"apply": True, "definition": {**CONFIGMAP, "metadata": {"generateName": "c"}}}, "needs metadata.name"),
    ],
)
def test_what_the_server_could_not_apply(api, run, options, words):
    assert words in run("manifest", **{"definition": CONFIGMAP, **options})["msg"]
    assert api.written() == []


@pytest.mark.parametrize("apply", [False, True])
@pytest.mark.parametrize("check", [False, True])
def test_a_manifest_that_fails_half_way_says_what_it_did(api, run, apply, check):
    api.refuse = lambda method, plural, obj: (
        Refused(422, "Invalid", "denied") if obj["metadata"]["name"] == "second" else None
    )
    second = {**CONFIGMAP, "metadata": {"name": "second", "namespace": "default"}}
    failed = run("manifest", check=check, apply=apply, definition=[CONFIGMAP, second])
    assert failed["failed"]
    assert failed["changed"] is not check
    assert failed.get("changes") == (None if check else ["created ConfigMap default/c"])
    again = run("manifest", check=check, apply=apply, definition=[second])
    assert (again["changed"], "changes" in again) == (False, False)


def test_an_object_deleted_before_another_fails(api, run):
    run("manifest", definition=[CONFIGMAP])
    api.put("configmaps", {"metadata": {"name": "kept", "namespace": "default"}})
    api.forbidden = lambda method, path: method == "DELETE" and path.endswith("/kept")
    kept = {**CONFIGMAP, "metadata": {"name": "kept", "namespace": "default"}}
    failed = run("manifest", state="absent", definition=[kept, CONFIGMAP])
    assert (failed["failed"], failed["changed"]) == (True, True)
    assert failed["changes"] == ["deleted ConfigMap default/c"]


def test_a_query_selects_of_what_was_found(api, run):
    api.instance("default", "web", labels={"app": "a"})
    api.instance("default", "db", labels={"app": "b"})
    found = run("vmi_info", query="[].metadata.name")
    assert sorted(found["query_result"]) == ["db", "web"]
    assert len(found["resources"]) == 2
    assert "query_result" not in run("vmi_info")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("[", ("query", "'['", "JMESPath")),
        ("", ("query", "must be a JMESPath expression")),
        ("length([0].metadata.generation)", ("query", "length", "the objects found")),
    ],
)
def test_a_wrong_query_is_named_with_its_place(api, run, query, words):
    api.instance("default", "web")
    failed = run("vmi_info", query=query)
    assert failed["failed"]
    for word in words:
        assert word in failed.msg


def test_objects_of_any_kind_are_read(api, run):
    run("manifest", definition=CONFIGMAP)
    options = {"api_version": "v1", "kind": "ConfigMap", "namespace": "default"}
    found = run("object_info", **options, query="[].data.a")
    assert (found["changed"], found["query_result"]) == (False, ["1"])
    assert run("object_info", **options, name="none")["resources"] == []
    assert "ConfigMop" in run("object_info", **{**options, "kind": "ConfigMop"}).msg


def test_a_condition_of_an_object_is_waited_for(api, run):
    options = {"api_version": "v1", "kind": "ConfigMap", "namespace": "default", "name": "c", "wait_timeout": 20}
    timer = threading.Timer(0.3, lambda: run("manifest", definition=CONFIGMAP))
    timer.start()
    found = run("object_info", **options, wait_for="data.a == '1'")
    timer.join()
    assert found["resources"][0]["data"] == {"a": "1"}
    late = run("object_info", **{**options, "wait_timeout": 1}, wait_for="data.a == '2'")
    assert "ConfigMap default/c isn't what wait_for asks for (data.a == '2') within 1 seconds" in late.msg
    assert run("manifest", definition=CONFIGMAP, wait_for="data.a")["resources"][0]["data"] == {"a": "1"}
    assert "data.b" in run("manifest", definition=CONFIGMAP, wait_for="data.b", wait_timeout=1).msg
    assert "wait_for" in run("manifest", definition=CONFIGMAP, wait_for="data.b", state="absent").msg


def test_a_selector_that_is_none_is_named(api, run):
    message = "unable to parse requirement: found 'b', expected: in, notin, =, ==, !="
    api.intercept = lambda method, path: status(400, "BadRequest", message)
    failed = run("vm_info", label_selectors=["a b"])
    assert failed.msg == "VirtualMachine in all namespaces (label_selectors: a b): %s" % message


@pytest.mark.parametrize("module", ["snapshot", "service"])
def test_what_the_server_keeps_for_itself_is_left_out_of_results(api, run, module):
    given = {"snapshot": {"vm": "db"}, "service": {"selector": {"app": "web"}, "ports": [{"port": 22}]}}[module]
    given = {"name": "one", "namespace": "default", "wait": False, "labels": {"app": "web"}, **given}
    plural = {"snapshot": "virtualmachinesnapshots", "service": "services"}[module]
    run(module, **given)
    path, live = next((path, obj) for path, obj in api.objects.items() if path.endswith("/%s/one" % plural))
    api.objects[path] = {**live, "metadata": {**live["metadata"], "managedFields": [{"manager": "me"}]}}
    for results in ([run(module, **given)["result"]], run("%s_info" % module, namespace="default")["resources"]):
        assert [obj["metadata"]["labels"] for obj in results] == [{"app": "web"}]
        assert "managedFields" not in results[0]["metadata"]
    shown = run("%s_info" % module, namespace="default", hidden_fields=["metadata.labels"])["resources"][0]
    assert "managedFields" in shown["metadata"]
    assert "labels" not in shown["metadata"]
    assert "labels" not in run(module, **given, hidden_fields=["metadata.labels"])["result"]["metadata"]
    assert "hidden_fields[0]" in run(module, **given, hidden_fields=["a..b"]).msg
