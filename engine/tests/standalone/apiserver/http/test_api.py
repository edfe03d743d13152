# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and answers, as a client sees them."""

import json
import urllib.request
from collections.abc import Iterator

import pytest
import yaml

from ..conftest import WIDGET_PATH, Server, widget

MERGE, JSON = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"
PODS = "/api/v1/namespaces/default/pods"
RBAC_PATH = "/apis/rbac.authorization.k8s.io/v1"


def pod(name: str, **metadata: object) -> dict:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


def test_create_defaults_and_reads_in_both_versions(server: Server) -> None:
    code, made = server.call("POST", WIDGET_PATH, widget("both"))
    assert code == 201
    assert made["spec"] == {"size": "small", "replicas": 1}
    assert made["metadata"]["generation"] == 1
    assert server.call("GET", f"{WIDGET_PATH}/both") == (200, made)
    code, old = server.call("GET", f"{WIDGET_PATH.replace('v1', 'v1alpha3')}/both")
    assert old == {**made, "apiVersion": "example.io/v1alpha3"}
    code, status = server.call("POST", WIDGET_PATH, widget("both"))
    assert (code, status["reason"]) == (409, "AlreadyExists")
    assert status["message"] == 'widgets.example.io "both" already exists'


def test_invalid_object_names_every_cause(server: Server) -> None:
    code, status = server.call("POST", WIDGET_PATH, widget("Bad_Name"))
    assert (code, status["reason"]) == (422, "Invalid")
    body = widget("bad", size="huge", replicas=-1)
    code, status = server.call("POST", WIDGET_PATH, body)
    assert code == 422
    # The schema and the scale subresource have the same opinion of the replicas, under their own names.
    assert {cause["field"] for cause in status["details"]["causes"]} == {"spec.size", "spec.replicas", ".spec.replicas"}
    assert 'Unsupported value: "huge": supported values: "small", "large"' in status["message"]


def test_unknown_fields(server: Server) -> None:
    code, status = server.call("POST", f"{WIDGET_PATH}?fieldValidation=Strict", widget("strict", foo=1))
    assert code == 400
    assert 'strict decoding error: unknown field "spec.foo"' in status["message"]
    code, headers, _ = server.raw("POST", f"{WIDGET_PATH}?dryRun=All", widget("warned", foo=1))
    assert code == 201
    assert headers["Warning"] == '299 - "unknown field \\"spec.foo\\""'
    assert server.call("GET", f"{WIDGET_PATH}/warned")[0] == 404


def test_missing_namespace(server: Server) -> None:
    body = {"metadata": {"name": "x"}}
    code, status = server.call("POST", "/api/v1/namespaces/nowhere/configmaps", body)
    assert (code, status["message"]) == (404, 'namespaces "nowhere" not found')


def test_update_conflict_and_no_op(server: Server) -> None:
    _, made = server.call("POST", WIDGET_PATH, widget("conflicted"))
    url = f"{WIDGET_PATH}/conflicted"
    code, same = server.call("PUT", url, made)
    assert (code, same["metadata"]["resourceVersion"]) == (200, made["metadata"]["resourceVersion"])
    code, changed = server.call("PATCH", url, {"spec": {"replicas": 2}}, MERGE)
    assert changed["metadata"]["generation"] == 2
    code, same = server.call("PATCH", url, {"spec": {"replicas": 2}}, MERGE)
    assert same == changed
    code, status = server.call("PUT", url, {**made, "spec": {"size": "large"}})
    assert (code, status["reason"]) == (409, "Conflict")
    code, status = server.call("PATCH", url, {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 9}}, MERGE)
    assert code == 409


def test_status_and_scale(server: Server) -> None:
    server.call("POST", WIDGET_PATH, {**widget("scaled"), "status": {"lost": True}})
    url = f"{WIDGET_PATH}/scaled"
    code, obj = server.call("PATCH", f"{url}/status", {"spec": {"replicas": 9}, "status": {"replicas": 3}}, MERGE)
    assert (obj["spec"]["replicas"], obj["status"]) == (1, {"replicas": 3})
    assert obj["metadata"]["generation"] == 1
    code, scale = server.call("PATCH", f"{url}/scale", {"spec": {"replicas": 5}}, MERGE)
    assert (code, scale["kind"], scale["spec"], scale["status"]) == (200, "Scale", {"replicas": 5}, {"replicas": 3})
    assert server.call("PUT", f"{url}/scale", widget("scaled", replicas=7))[0] == 400
    assert server.call("PATCH", f"{url}/scale", {"kind": "Widget"}, MERGE)[0] == 422
    assert server.call("PATCH", f"{url}/scale", {"spec": {"replicas": 6}}, STRATEGIC)[0] == 415
    code, obj = server.call("PATCH", url, {"status": {"replicas": 0}, "spec": {"size": "large"}}, MERGE)
    assert (obj["status"], obj["spec"]["size"]) == ({"replicas": 3}, "large")


def test_patch_types(server: Server) -> None:
    server.call("POST", WIDGET_PATH, widget("patched"))
    url = f"{WIDGET_PATH}/patched"
    assert server.call("PATCH", url, {"spec": {}}, STRATEGIC)[0] == 415
    operations = [{"op": "test", "path": "/spec/size", "value": "large"}]
    assert server.call("PATCH", url, operations, JSON)[0] == 422
    assert server.call("PATCH", url, {"op": "x"}, JSON)[0] == 400
    operations = [{"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}]
    assert server.call("PATCH", url, operations, JSON)[1]["metadata"]["annotations"] == {"a": "b"}
    server.call("POST", PODS, pod("merged"))
    patch = {"spec": {"containers": [{"name": "c", "image": "j"}]}}
    code, changed = server.call("PATCH", f"{PODS}/merged", patch, STRATEGIC)
    assert (code, changed["spec"]["containers"][0]["image"]) == (200, "j")
    server.call("DELETE", f"{PODS}/merged")


def test_yaml_in_and_out(server: Server) -> None:
    body = b"metadata: {name: yaml}\ndata: {a: 'b'}\n"
    assert server.call("POST", CONFIG_MAPS, body, "application/yaml")[0] == 201
    _, headers, raw = server.raw("GET", f"{CONFIG_MAPS}/yaml", headers={"Accept": "application/yaml"})
    assert headers["Content-Type"].startswith("application/yaml")
    assert yaml.safe_load(raw)["data"] == {"a": "b"}


def test_generate_name_and_dry_run(server: Server) -> None:
    code, made = server.call("POST", CONFIG_MAPS, {"metadata": {"generateName": "made-"}})
    assert code == 201
    assert made["metadata"]["name"].startswith("made-")
    url = f"{CONFIG_MAPS}/{made['metadata']['name']}"
    assert server.call("DELETE", f"{url}?dryRun=All")[0] == 200
    assert server.call("GET", url)[0] == 200
    assert server.call("DELETE", f"{url}?dryRun=Some")[0] == 422


def test_list_selectors_and_pages(server: Server) -> None:
    for number in range(7):
        labels = {"pages": "yes", "odd": str(number % 2)}
        server.call("POST", CONFIG_MAPS, {"metadata": {"name": f"page-{number}", "labels": labels}})
    found, token = [], ""
    while True:
        query = f"labelSelector=pages%3Dyes&limit=3&continue={token}"
        _, page = server.call("GET", f"{CONFIG_MAPS}?{query}")
        found += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue")
        if not token:
            break
        server.call("DELETE", f"{CONFIG_MAPS}/page-6")
    assert found == [f"page-{number}" for number in range(7)], "pages are of one moment"
    _, odd = server.call("GET", f"{CONFIG_MAPS}?labelSelector=pages,odd+in+(1)")
    assert [item["metadata"]["name"] for item in odd["items"]] == ["page-1", "page-3", "page-5"]
    _, one = server.call("GET", f"{CONFIG_MAPS}?fieldSelector=metadata.name%3Dpage-2")
    assert len(one["items"]) == 1
    assert server.call("GET", f"{CONFIG_MAPS}?fieldSelector=spec.x%3D1")[0] == 400
    code, gone = server.call("DELETE", f"{CONFIG_MAPS}?labelSelector=pages%3Dyes")
    assert (code, len(gone["items"])) == (200, 6)


def test_watch_resumes_and_sees_selector_changes(server: Server) -> None:
    _, start = server.call("GET", WIDGET_PATH)
    version = start["metadata"]["resourceVersion"]
    server.call("POST", WIDGET_PATH, widget("seen"))
    server.call("PATCH", f"{WIDGET_PATH}/seen", {"metadata": {"labels": {"app": "other"}}}, MERGE)
    server.call("PATCH", f"{WIDGET_PATH}/seen", {"metadata": {"labels": {"app": "seen"}}}, MERGE)
    server.call("DELETE", f"{WIDGET_PATH}/seen")
    query = f"?resourceVersion={version}"
    assert [event["type"] for event in server.watch(WIDGET_PATH + query)] == [
        "ADDED",
        "MODIFIED",
        "MODIFIED",
        "DELETED",
    ]
    events = server.watch(f"{WIDGET_PATH}{query}&labelSelector=app%3Dseen")
    assert [event["type"] for event in events] == ["ADDED", "DELETED", "ADDED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(versions)
    events = server.watch(
        f"{WIDGET_PATH}?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1"
    )
    ends = [event["object"]["metadata"].get("annotations") for event in events if event["type"] == "BOOKMARK"]
    assert ends[0] == {"k8s.io/initial-events-end": "true"}
    assert not any(ends[1:]), "the others are bookmarks like any"


def test_watch_live(server: Server) -> None:
    request = urllib.request.Request(
        f"https://127.0.0.1:{server.port}{CONFIG_MAPS}?watch=1&labelSelector=live",
        headers={"Authorization": f"Bearer {server.token()}"},
    )
    with urllib.request.urlopen(request, context=server.tls, timeout=60) as watch:
        for number in range(20):
            server.call("POST", CONFIG_MAPS, {"metadata": {"name": f"live-{number}", "labels": {"live": ""}}})
        # As many as there must be, however long it takes; one line is one event.
        names = [json.loads(watch.readline())["object"]["metadata"]["name"] for _ in range(20)]
    assert names == [f"live-{number}" for number in range(20)]


def test_finalizers_and_preconditions(server: Server) -> None:
    body = widget("finalized")
    body["metadata"]["finalizers"] = ["example.io/wait"]
    server.call("POST", WIDGET_PATH, body)
    url = f"{WIDGET_PATH}/finalized"
    code, status = server.call("DELETE", url, {"preconditions": {"uid": "other"}})
    assert (code, status["reason"]) == (409, "Conflict")
    code, marked = server.call("DELETE", url)
    assert (code, marked["metadata"]["deletionGracePeriodSeconds"]) == (200, 0)
    assert (
        server.call("PATCH", url, {"metadata": {"finalizers": ["example.io/more", "example.io/wait"]}}, MERGE)[0] == 422
    )
    assert server.call("PATCH", url, {"metadata": {"finalizers": None}}, MERGE)[0] == 200
    assert server.call("GET", url)[0] == 404


def test_pod_binding_and_grace(server: Server) -> None:
    server.call("POST", PODS, pod("graceful"))
    url = f"{PODS}/graceful"
    binding = {"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": "n1"}}
    assert server.call("POST", f"{url}/binding", binding)[0] == 201
    assert server.call("POST", f"{url}/binding", binding)[0] == 409
    _, listed = server.call("GET", f"{PODS}?fieldSelector=spec.nodeName%3Dn1")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["graceful"]
    _, marked = server.call("DELETE", url)
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    assert server.call("DELETE", url, {"gracePeriodSeconds": 0})[0] == 200
    assert server.call("GET", url)[0] == 404


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
def test_garbage_collection(server: Server, policy: str) -> None:
    _, owner = server.call("POST", WIDGET_PATH, widget(f"owner-{policy.lower()}"))
    reference = {
        "apiVersion": "example.io/v1",
        "kind": "Widget",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": True,
        "controller": True,
    }
    name = f"owned-{policy.lower()}"
    server.call("POST", CONFIG_MAPS, {"metadata": {"name": name, "ownerReferences": [reference]}})
    server.call("DELETE", f"{WIDGET_PATH}/{owner['metadata']['name']}", {"propagationPolicy": policy})
    server.until(lambda: server.call("GET", f"{WIDGET_PATH}/{owner['metadata']['name']}")[0] == 404)
    if policy == "Orphan":
        assert "ownerReferences" not in server.call("GET", f"{CONFIG_MAPS}/{name}")[1]["metadata"]
    else:
        server.until(lambda: server.call("GET", f"{CONFIG_MAPS}/{name}")[0] == 404)


def test_owner_in_no_namespace_can_t_be_missed(server: Server) -> None:
    """Kubernetes: cluster-scoped dependents with namespaced owners are not collected."""
    path = "/apis/storage.k8s.io/v1/storageclasses"
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "no-such", "uid": "u"}
    body = {"metadata": {"name": "owned", "ownerReferences": [owner]}, "provisioner": "example.io/none"}
    assert server.call("POST", path, body)[0] == 201
    inner = {"metadata": {"name": "inner", "ownerReferences": [owner]}}
    assert server.call("POST", CONFIG_MAPS, inner)[0] == 201
    server.until(lambda: server.call("GET", f"{CONFIG_MAPS}/inner")[0] == 404)
    assert server.call("GET", f"{path}/owned")[0] == 200
    server.call("DELETE", f"{path}/owned")


def test_namespace_ends_with_its_content(server: Server) -> None:
    server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "ending"}})
    url = "/api/v1/namespaces/ending"
    server.until(lambda: server.call("GET", f"{url}/serviceaccounts/default")[0] == 200)
    server.call("POST", f"{url}/configmaps", {"metadata": {"name": "held", "finalizers": ["example.io/wait"]}})
    code, marked = server.call("DELETE", url)
    assert marked["status"]["phase"] == "Terminating"
    code, status = server.call("POST", f"{url}/configmaps", {"metadata": {"name": "late"}})
    assert (code, status["details"]["causes"][0]["reason"]) == (403, "NamespaceTerminating")
    assert server.call("GET", url)[0] == 200
    server.call("PATCH", f"{url}/configmaps/held", {"metadata": {"finalizers": []}}, MERGE)
    server.until(lambda: server.call("GET", url)[0] == 404)
    assert server.call("DELETE", "/api/v1/namespaces/default")[0] == 403


def test_authentication_and_rbac(server: Server) -> None:
    assert server.call("GET", "/api/v1/pods", token="wrong")[0] == 401
    code, status = server.call("GET", "/api/v1/pods", token="")
    assert (code, status["reason"]) == (403, "Forbidden")
    node = server.token("podrunner")
    assert server.call("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", token=node)[0] == 200
    code, status = server.call("POST", CONFIG_MAPS, {"metadata": {"name": "x"}}, token=node)
    assert status["message"] == (
        'configmaps is forbidden: User "system:node:n1" cannot create resource "configmaps" in API group "" '
        'in the namespace "default"'
    )
    attributes = {"verb": "create", "resource": "configmaps", "namespace": "default"}
    review = {"spec": {"resourceAttributes": attributes, "user": "system:node:n1", "groups": ["system:nodes"]}}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert server.call("POST", path, review)[1]["status"] == {"allowed": False}
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    status = server.call("POST", path, {"spec": {"token": node}})[1]["status"]
    assert status["user"]["username"] == "system:node:n1"


@pytest.mark.parametrize(
    ("method", "path", "body", "content_type", "code"),
    [
        ("POST", WIDGET_PATH, b"{", "application/json", 400),
        ("POST", WIDGET_PATH, b"", "application/json", 400),
        ("POST", WIDGET_PATH, b"[]", "application/json", 400),
        ("POST", WIDGET_PATH, b"[" * 100_000, "application/json", 400),
        ("POST", WIDGET_PATH, b'"\xff"', "application/json", 400),
        ("POST", WIDGET_PATH, b"a: [", "application/yaml", 400),
        ("POST", WIDGET_PATH, b"k8s\x00\x0a", "application/vnd.kubernetes.protobuf", 400),
        ("POST", WIDGET_PATH, b'{"metadata": 1}', "application/json", 400),
        ("POST", WIDGET_PATH, b'{"metadata": {"name": 1}}', "application/json", 400),
        ("POST", WIDGET_PATH, b'{"metadata": {"labels": []}}', "application/json", 400),
        ("POST", WIDGET_PATH, b'{"kind": "Pod"}', "application/json", 422),
        ("POST", PODS, b'{"metadata":{"name":"p"},"spec":{"containers":[1]}}', "application/json", 400),
        ("POST", PODS, b'{"metadata":{"name":"p"},"spec":{"containers":{}}}', "application/json", 400),
        ("POST", PODS, b'{"metadata":{"name":"p"}}', "application/json", 422),
        ("POST", SECRETS, b'{"metadata":{"name":"s"},"data":{"a":"!"}}', "application/json", 400),
        ("POST", CONFIG_MAPS, b'{"metadata":{"name":"x"},"data":{"a":' + b'"x"' * 2 + b"}}", "application/json", 400),
        ("POST", CONFIG_MAPS, b'{"metadata":{"name":"' + b"x" * (4 << 20) + b'"}}', "application/json", 413),
        ("GET", f"{WIDGET_PATH}?labelSelector=a%3D%3D%3Db", None, "", 400),
        ("GET", f"{WIDGET_PATH}?resourceVersion=abc", None, "", 400),
        ("GET", f"{WIDGET_PATH}?limit=x", None, "", 400),
        ("GET", f"{WIDGET_PATH}?continue=zzz", None, "", 400),
        ("GET", "/apis/apps/v1/nothings", None, "", 404),
        ("GET", "/apis/apps/v9", None, "", 404),
        ("PUT", WIDGET_PATH, b"{}", "application/json", 405),
    ],
)
def test_bad_input_is_a_status(
    server: Server, method: str, path: str, body: bytes, content_type: str, code: int
) -> None:
    found, status = server.call(method, path, body, content_type)
    assert (found, status["kind"], status["status"]) == (code, "Status", "Failure"), status


def test_table(server: Server) -> None:
    server.call("POST", WIDGET_PATH, widget("tabled"))
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    _, table = server.call("GET", f"{WIDGET_PATH}/tabled", headers=accept)
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Size", "Ready", "Age", "Replicas"]
    assert table["rows"][0]["cells"][:3] == ["tabled", "small", None]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


def test_rule_with_names_allows_a_list_of_that_name(server: Server) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1"
    rule = {"verbs": ["list"], "apiGroups": ["example.io"], "resources": ["widgets"], "resourceNames": ["one"]}
    server.call("POST", f"{path}/clusterroles", {"metadata": {"name": "named"}, "rules": [rule]})
    subject = {"kind": "User", "name": "system:node:n1"}
    body = {"metadata": {"name": "named"}, "roleRef": {"kind": "ClusterRole", "name": "named"}, "subjects": [subject]}
    assert server.call("POST", f"{path}/clusterrolebindings", body)[0] == 201
    node = server.token("podrunner")
    assert server.call("GET", f"{WIDGET_PATH}?fieldSelector=metadata.name%3Done", token=node)[0] == 200
    assert server.call("GET", WIDGET_PATH, token=node)[0] == 403
    server.call("DELETE", f"{path}/clusterrolebindings/named")
    assert server.call("GET", f"{WIDGET_PATH}?fieldSelector=metadata.name%3Done", token=node)[0] == 403


@pytest.mark.parametrize("value", ["true", "yes", "1", ""])
def test_watch_however_it_is_asked_for_is_no_list(server: Server, value: str) -> None:
    rules = [{"verbs": ["list"], "apiGroups": ["example.io"], "resources": ["widgets"]}]
    path, reference = f"{RBAC_PATH}/namespaces/default", {"kind": "Role", "name": "lister"}
    server.call("POST", f"{path}/roles", {"metadata": {"name": "lister"}, "rules": rules})
    subjects = [{"kind": "User", "name": "system:node:n1"}]
    body = {"metadata": {"name": "lister"}, "roleRef": reference, "subjects": subjects}
    server.call("POST", f"{path}/rolebindings", body)
    node = server.token("podrunner")
    assert server.call("GET", f"{WIDGET_PATH}?watch=false", token=node)[0] == 200
    code, status = server.call("GET", f"{WIDGET_PATH}?watch={value}&timeoutSeconds=1", token=node)
    server.call("DELETE", f"{path}/rolebindings/lister")
    assert (code, "cannot watch resource" in status["message"]) == (403, True)


@pytest.fixture
def namespace_admin(server: Server) -> Iterator[str]:
    """Token of a user who is ``admin`` of the namespace default and nothing else."""
    subject = {"kind": "User", "name": "system:serviceaccount:kubevirt:virt-handler"}
    binding = {"roleRef": {"kind": "ClusterRole", "name": "admin"}, "subjects": [subject]}
    path = f"{RBAC_PATH}/namespaces/default/rolebindings"
    assert server.call("POST", path, {"metadata": {"name": "one-admin"}, **binding})[0] == 201
    yield server.token("virt-handler")
    server.call("DELETE", f"{path}/one-admin")


@pytest.mark.parametrize(
    ("plural", "content", "code"),
    [
        ("roles", {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]}, 201),
        ("roles", {"rules": [{"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}]}, 403),
        ("roles", {"rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}]}, 201),
        ("roles", {"rules": [{"apiGroups": ["example.net"], "resources": ["things"], "verbs": ["get"]}]}, 403),
        ("rolebindings", {"roleRef": {"kind": "ClusterRole", "name": "view"}}, 201),
        ("rolebindings", {"roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}}, 403),
        ("rolebindings", {"roleRef": {"kind": "Role", "name": "no-such"}}, 404),
    ],
)
def test_nobody_grants_more_than_they_have(
    server: Server, namespace_admin: str, plural: str, content: dict, code: int
) -> None:
    path = f"{RBAC_PATH}/namespaces/default/{plural}"
    found, status = server.call("POST", path, {"metadata": {"name": "grant"}, **content}, token=namespace_admin)
    assert found == code
    if code == 201:
        rules = {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
        more = rules if plural == "roles" else {"metadata": {"labels": {"some": "label"}}}
        found = server.call("PATCH", f"{path}/grant", more, "application/merge-patch+json", namespace_admin)[0]
        assert found == (403 if plural == "roles" else 200)
        server.call("DELETE", f"{path}/grant")
    elif code == 403:
        assert "attempting to grant RBAC permissions not currently held" in status["message"]


def test_impersonation(server: Server, namespace_admin: str) -> None:
    account = {"Impersonate-User": "system:serviceaccount:kubevirt:virt-handler"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    info = server.call("POST", path, {}, headers=account)[1]["status"]["userInfo"]
    assert info["groups"] == ["system:serviceaccounts", "system:serviceaccounts:kubevirt", "system:authenticated"]
    assert server.call("GET", "/api/v1/namespaces/default/pods", headers=account)[0] == 200
    assert server.call("GET", "/api/v1/nodes", headers=account)[0] == 403
    code, status = server.call("GET", "/api/v1/nodes", token=namespace_admin, headers={"Impersonate-User": "admin"})
    assert (code, "cannot impersonate resource" in status["message"]) == (403, True)
    group = {"Impersonate-User": "nobody", "Impersonate-Group": "system:masters"}
    assert server.call("GET", "/api/v1/nodes", headers=group)[0] == 200
    assert server.call("GET", "/api/v1/nodes", headers={"Impersonate-Group": "system:masters"})[0] == 400


def test_aggregated_roles_show_their_rules(server: Server) -> None:
    roles = f"{RBAC_PATH}/clusterroles"

    def resources(name: str) -> set[str]:
        rules = server.call("GET", f"{roles}/{name}")[1].get("rules") or ()
        return {one for rule in rules for one in rule.get("resources", ())}

    for name in ("view", "edit", "admin"):
        server.until(lambda name=name: "pods" in resources(name))
    labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    rule = {"apiGroups": ["example.io"], "resources": ["aggregated"], "verbs": ["get"]}
    server.call("POST", roles, {"metadata": {"name": "more", "labels": labels}, "rules": [rule]})
    server.until(lambda: "aggregated" in resources("admin"))
    server.call("DELETE", f"{roles}/more")
    server.until(lambda: "aggregated" not in resources("admin"))


def test_events_are_selected_by_the_names_of_their_version(server: Server) -> None:
    event = {
        "metadata": {"name": "selected"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Tried",
        "type": "Normal",
    }
    assert server.call("POST", "/api/v1/namespaces/default/events", event)[0] == 201
    old = "/api/v1/namespaces/default/events?fieldSelector=reason%3DTried,involvedObject.name%3D"
    new = "/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector=reason%3DTried,regarding.name%3D"
    for path in (old, new):
        assert [one["metadata"]["name"] for one in server.call("GET", f"{path}p")[1]["items"]] == ["selected"]
        assert server.call("GET", f"{path}q")[1]["items"] == []
        assert [one["object"]["metadata"]["name"] for one in server.watch(f"{path}p")] == ["selected"]
    server.call("DELETE", "/api/v1/namespaces/default/events/selected")
