# SPDX-License-Identifier: GPL-3.0-or-later
"""Who owns which field. Expectations were taken from a real kube-apiserver where nothing else is said."""

import os
from pathlib import Path

from ..conftest import Server

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


def config_map(name: str, data: dict, **metadata: object) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": data}


def owners(obj: dict) -> dict[tuple[str, str], dict]:
    return {(one["manager"], one["operation"]): one["fieldsV1"] for one in obj["metadata"].get("managedFields", ())}


def processor_time(server: Server) -> float:
    """Return how many seconds of it the server has had."""
    user, system = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def apply(server: Server, path: str, body: dict, manager: str, force: bool = False) -> tuple[int, dict]:
    return server.call("PATCH", f"{path}?fieldManager={manager}&force={str(force).lower()}", body, APPLY)


def test_updates_own_what_they_change(server: Server) -> None:
    pod = {
        "metadata": {"name": "owned", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}], "args": ["1"]}]},
    }
    code, made = server.call("POST", f"{PODS}?fieldManager=maker", pod)
    assert code == 201
    fields = owners(made)[("maker", "Update")]
    assert fields["f:metadata"] == {"f:labels": {".": {}, "f:a": {}}}
    assert "f:status" not in fields
    assert {"f:restartPolicy", "f:dnsPolicy", "f:securityContext"} < set(fields["f:spec"])
    # What admission adds is nobody's.
    assert "f:tolerations" not in fields["f:spec"]
    assert "f:priority" not in fields["f:spec"]
    container = fields["f:spec"]["f:containers"]['k:{"name":"c"}']
    assert container["f:ports"] == {
        ".": {},
        'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}, "f:protocol": {}},
    }
    assert (container["f:args"], container["f:resources"], container["."]) == ({}, {}, {})
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    _, obj = server.call("PATCH", f"{PODS}/owned/status?fieldManager=kubelet", status, STRATEGIC)
    entry = next(one for one in obj["metadata"]["managedFields"] if one["manager"] == "kubelet")
    assert (entry["subresource"], entry["operation"], entry["apiVersion"]) == ("status", "Update", "v1")
    assert set(entry["fieldsV1"]) == {"f:status"}
    assert 'k:{"type":"Ready"}' in entry["fieldsV1"]["f:status"]["f:conditions"]
    _, obj = server.call("PATCH", f"{PODS}/owned?fieldManager=other", {"metadata": {"labels": {"a": "c"}}}, MERGE)
    assert (
        "f:metadata" not in owners(obj)[("maker", "Update")]
        or "f:a" not in (owners(obj)[("maker", "Update")]["f:metadata"]["f:labels"])
    )
    assert owners(obj)[("other", "Update")] == {"f:metadata": {"f:labels": {"f:a": {}}}}
    _, obj = server.call("PATCH", f"{PODS}/owned?fieldManager=other", {"metadata": {"labels": {"a": None}}}, MERGE)
    assert ("other", "Update") not in owners(obj)


def test_the_program_is_the_manager(server: Server) -> None:
    body = config_map("program", {"a": "1"})
    _, obj = server.call("POST", MAPS, body, headers={"User-Agent": "tool/1.2 (linux)"})
    assert set(owners(obj)) == {("tool", "Update")}
    code, status = server.call("POST", f"{MAPS}?fieldManager={'x' * 129}", config_map("long", {}))
    assert (code, status["details"]["causes"][0]["field"]) == (422, "fieldManager")


def test_no_change_is_no_write(server: Server) -> None:
    body = config_map("still", {"a": "1"})
    _, made = apply(server, f"{MAPS}/still", body, "one")
    for _ in range(2):
        assert apply(server, f"{MAPS}/still", body, "one")[1] == made
        assert server.call("PATCH", f"{MAPS}/still?fieldManager=u", {"data": {"a": "1"}}, MERGE)[1] == made


def test_what_is_not_applied_any_more_goes_unless_shared(server: Server) -> None:
    path = f"{MAPS}/shared-fields"
    apply(server, path, config_map("shared-fields", {"a": "1", "b": "2"}, labels={"x": "y"}), "one")
    apply(server, path, config_map("shared-fields", {"a": "1"}), "two")
    _, obj = apply(server, path, config_map("shared-fields", {"b": "2"}), "one")
    assert (obj["data"], obj["metadata"].get("labels")) == ({"a": "1", "b": "2"}, None)
    assert owners(obj)[("two", "Apply")] == {"f:data": {"f:a": {}}}
    _, obj = apply(server, path, config_map("shared-fields", {"b": "2"}), "two")
    assert obj["data"] == {"b": "2"}


def test_metadata_stay_when_nothing_of_them_is_applied_any_more(server: Server) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap"}
    _, before = apply(server, f"{MAPS}/nameless", {**config, "metadata": {"labels": {"a": "b"}}}, "one")
    for wanted in (config, {**config, "metadata": None}):
        code, after = apply(server, f"{MAPS}/nameless", wanted, "one")
        assert (code, after["metadata"].get("labels")) == (200, None)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_conflicts_name_managers_and_fields(server: Server) -> None:
    path = f"{MAPS}/fought"
    apply(server, path, config_map("fought", {"a": "1"}), "one")
    server.call("PATCH", f"{path}?fieldManager=two", {"data": {"b": "1"}}, MERGE)
    code, status = apply(server, path, config_map("fought", {"a": "2", "b": "2"}), "three")
    assert (code, status["reason"]) == (409, "Conflict")
    assert status["message"] == (
        'Apply failed with 2 conflicts: conflicts with "one":\n- .data.a\nconflicts with "two" using v1:\n- .data.b'
    )
    assert [(one["reason"], one["field"]) for one in status["details"]["causes"]] == [
        ("FieldManagerConflict", ".data.a"),
        ("FieldManagerConflict", ".data.b"),
    ]
    _, obj = apply(server, path, config_map("fought", {"a": "2", "b": "2"}), "three", force=True)
    assert set(owners(obj)) == {("three", "Apply")}


def test_dry_run_stores_no_owner(server: Server) -> None:
    path = f"{MAPS}/dry"
    apply(server, path, config_map("dry", {"a": "1"}), "one")
    query = f"{path}?fieldManager=two&dryRun=All"
    _, obj = server.call("PATCH", query, config_map("dry", {"b": "1"}), APPLY)
    assert ("two", "Apply") in owners(obj)
    assert set(owners(server.call("GET", path)[1])) == {("one", "Apply")}


def test_ownership_can_be_reset(server: Server) -> None:
    for value in ([], [{}]):
        path = f"{MAPS}/reset{len(value)}"
        apply(server, path, config_map(path.rpartition("/")[2], {"a": "1"}), "one")
        _, obj = server.call("PATCH", path, {"metadata": {"managedFields": value}}, MERGE)
        assert "managedFields" not in obj["metadata"]
        _, obj = server.call("PATCH", f"{path}?fieldManager=two", {"data": {"a": "2"}}, MERGE)
        assert "managedFields" not in obj["metadata"]
        _, obj = apply(server, path, config_map(path.rpartition("/")[2], {"c": "1"}), "three")
        assert set(owners(obj)) == {("three", "Apply"), ("before-first-apply", "Update")}


def test_kubectl_takes_over_what_it_applied_itself(server: Server) -> None:
    name = "kubectl.kubernetes.io/last-applied-configuration"
    last = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"migrated"},"data":{"a":"1","b":"1"}}'
    body = config_map("migrated", {"a": "1", "b": "1"}, annotations={name: last})
    server.call("POST", f"{MAPS}?fieldManager=kubectl-client-side-apply", body)
    path = f"{MAPS}/migrated"
    assert apply(server, path, config_map("migrated", {"a": "2"}), "other")[0] == 409
    code, obj = apply(server, path, config_map("migrated", {"a": "2"}), "kubectl")
    assert (code, obj["data"]["a"]) == (200, "2")
    assert '"a":"2"' in obj["metadata"]["annotations"][name]


def test_many_updaters_are_taken_together(server: Server) -> None:
    server.call("POST", f"{MAPS}?fieldManager=m00", config_map("many", {"k00": "1"}))
    for number in range(1, 14):
        body = {"data": {f"k{number:02}": "1"}}
        _, obj = server.call("PATCH", f"{MAPS}/many?fieldManager=m{number:02}", body, MERGE)
    managers = [one["manager"] for one in obj["metadata"]["managedFields"]]
    assert len(managers) == 10
    assert "ancient-changes" in managers
    owned = {key for fields in owners(obj).values() for key in fields["f:data"] if key != "."}
    assert owned == {f"f:k{number:02}" for number in range(14)}


def test_thousands_of_updaters_take_no_longer_than_an_object_of_their_size(server: Server) -> None:
    """Each is copied some times, not thousands of times."""
    entries = [
        {
            **{"manager": f"m{number}", "operation": "Update", "apiVersion": "v1", "time": "2020-01-01T00:00:00Z"},
            **{"fieldsType": "FieldsV1", "fieldsV1": {"f:data": {f"f:k{number}": {}}}},
        }
        for number in range(14_000)
    ]
    body = config_map("thousands", {"k1": "1"})
    body["metadata"]["managedFields"] = entries
    before = processor_time(server)
    code, obj = server.call("POST", MAPS, body, timeout=60)
    assert (code, len(obj["metadata"]["managedFields"])) == (201, 10)
    ancient = next(one for one in obj["metadata"]["managedFields"] if one["manager"] == "ancient-changes")
    assert len(ancient["fieldsV1"]["f:data"]) > 13_000
    assert processor_time(server) - before < 2


def test_a_configuration_must_fit_the_schema(server: Server) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "typo"}}
    for spec, text in (
        ({"containers": [], "foo": 1}, ".spec.foo: field not declared in schema"),
        ({"containers": "x"}, ".spec.containers: expected list, got &{x}"),
        (
            {"containers": [{"image": "x"}]},
            ".spec.containers: element 0: associative list with keys has an element "
            'that omits key field "name" (and doesn\'t have default value)',
        ),
        ({"containers": [{"name": "a"}, {"name": "a"}]}, '.spec.containers: duplicate entries for key [name="a"]'),
    ):
        code, status = apply(server, f"{PODS}/typo", {**pod, "spec": spec}, "one")
        assert code == 400
        assert status["message"] == f"failed to create typed patch object (/typo; v1, Kind=Pod): {text}"
