# SPDX-License-Identifier: GPL-3.0-or-later
"""Odd requests that fuzzing found, one by one."""

import copy
import json
import time

import pytest

from turtles.standalone.apiserver.schema import validation as schema
from turtles.standalone.apiserver.wire.errors import StatusError
from turtles.standalone.apiserver.wire.patch import json_patch

from ..conftest import Server
from .test_protection import connect, request_head

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


@pytest.mark.parametrize("body", [b"[" * 200_000, b"- " * 200_000, b"{a: " * 100_000, b"a: " + b"{b: " * 100_000])
@pytest.mark.parametrize("media_type", ["application/yaml", "application/apply-patch+yaml"])
def test_yaml_without_bottom(server: Server, body: bytes, media_type: str) -> None:
    """Its parser calls itself for each level, in C, where nothing but the end of the process stops it."""
    if media_type.endswith("+yaml"):
        code, status = server.call("PATCH", f"{CONFIG_MAPS}/deep?fieldManager=m", body, media_type, timeout=60)
    else:
        code, status = server.call("POST", CONFIG_MAPS, body, media_type, timeout=60)
    assert (code, "exceeded max depth of 1000" in status["message"]) == (400, True), status


def test_yaml_within_its_depth(server: Server) -> None:
    text = "{kind: ConfigMap, apiVersion: v1, metadata: {name: flow}, data: &a {b: c}, binaryData: {}}"
    assert server.call("POST", f"{CONFIG_MAPS}?fieldValidation=Strict", text.encode(), "application/yaml")[0] == 201
    assert server.call("GET", f"{CONFIG_MAPS}/flow")[1]["data"] == {"b": "c"}
    server.call("DELETE", f"{CONFIG_MAPS}/flow")


@pytest.mark.parametrize("amount", ["9" * 500, "0." + "1" * 500, "1" + "0" * 400 + "Ei", ".5e999", "-" + "9" * 401])
def test_quantities_of_many_digits(server: Server, amount: str) -> None:
    path = "/api/v1/namespaces/default/persistentvolumeclaims"
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": amount}}}
    code, answer = server.call("POST", f"{path}?dryRun=All", {"metadata": {"name": "digits"}, "spec": spec})
    assert code == (422 if amount.startswith("-") else 201), answer


@pytest.mark.parametrize("fields", [
    {"f:data": "x"}, {"f:data": {"f:a": [1]}}, {"k:{": {}}, {"k:[]": {}}, {"v:{": {}}, {"i:x": {}},
])  # fmt: skip
def test_owned_fields_that_are_no_set(server: Server, fields: dict) -> None:
    """As if nothing was said of owners."""
    _, made = server.call("POST", CONFIG_MAPS, {"metadata": {"name": "owned"}, "data": {"a": "b"}})
    entries = copy.deepcopy(made["metadata"]["managedFields"])
    entries[0]["fieldsV1"] = fields
    change = {"metadata": {"managedFields": entries}, "data": {"c": "d"}}
    code, changed = server.call("PATCH", f"{CONFIG_MAPS}/owned?fieldManager=other", change, MERGE)
    owners = {one["manager"]: one["fieldsV1"] for one in changed["metadata"]["managedFields"]}
    first = made["metadata"]["managedFields"][0]
    assert (code, owners[first["manager"]], owners["other"]) == (200, first["fieldsV1"], {"f:data": {"f:c": {}}})
    server.call("DELETE", f"{CONFIG_MAPS}/owned")


def test_headers_that_are_no_text(server: Server) -> None:
    connection = connect(server)
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    body = json.dumps(review).encode()
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    more = ("Impersonate-User: @", f"Content-Length: {len(body)}", "Connection: close")
    head = request_head(server, "POST", path, *more)
    connection.sendall(head.replace(b"@", b"caf\xe9") + body)
    answer = b"".join(iter(lambda: connection.recv(65536), b""))
    connection.close()
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"]["userInfo"]["username"] == "caf\ufffd"


def test_warnings_fit_into_a_header(server: Server) -> None:
    """Sources: truncateAtTotalRunes and truncateItemRunes of k8s.io/apiserver."""
    twice = b",".join(b'"%03d-%s":"x"' % (number // 2, b"a" * 100) for number in range(600))
    body = b'{"metadata":{"name":"warned"},"data":{' + twice + b"}}"
    code, headers, _ = server.raw("POST", f"{CONFIG_MAPS}?fieldValidation=Warn&dryRun=All", body)
    assert code == 201
    warnings = headers["Warning"].split(', 299 - "')
    assert 1 < len(warnings) < 300
    assert len(headers["Warning"]) < 8000
    assert max(map(len, warnings)) < 300


def test_what_is_no_http_is_no_error_of_the_server(server: Server) -> None:
    log = server.root / "log"
    before = len(log.read_text())
    for data in (b"\x16\x03", b"get / http/1.1\r\n\r\n", b"GET /api HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"):
        connection = connect(server)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in connection.recv(65536)
        connection.sendall(data)
        assert b" 400 " in connection.recv(65536)
        connection.close()
    half = connect(server)
    half.sendall(request_head(server, "POST", CONFIG_MAPS, "Content-Length: 100") + b"{")
    time.sleep(0.1)
    half.close()
    assert server.call("GET", "/readyz")[0] == 200
    assert '"level": "error"' not in log.read_text()[before:]


@pytest.mark.parametrize(("encoding", "packed"), [("gzip", True), ("br, gzip;q=0.5", True), ("gzip;q=0", False)])
def test_documents_are_packed_for_who_unpacks_them(server: Server, encoding: str, packed: bool) -> None:
    _, headers, raw = server.raw("GET", "/openapi/v3/api/v1", headers={"Accept-Encoding": encoding})
    assert (headers.get("Content-Encoding") == "gzip", raw.startswith(b"\x1f\x8b")) == (packed, packed)


def test_forms_of_discovery(server: Server) -> None:
    aggregated = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    _, headers, raw = server.raw("GET", "/apis", headers={"Accept": f"application/yaml{aggregated}"})
    assert headers["Content-Type"] == f"application/yaml{aggregated}"
    assert raw.startswith(b"apiVersion: apidiscovery.k8s.io/v2\n")
    # There is no such form of a single group.
    assert server.raw("GET", "/apis/apps", headers={"Accept": f"application/json{aggregated}"})[0] == 406
    code, group = server.call("GET", "/apis/apps", headers={"Accept": f"application/json{aggregated},application/json"})
    assert (code, group["kind"]) == (200, "APIGroup")


@pytest.mark.parametrize(("number", "of", "good"), [
    (1e308, 0.1, False), (-1e308, 0.1, False), (0.3, 0.1, True), (0.25, 0.1, False), (2**62, 0.1, False),
    (2**62, 2, True), (2**62 + 1, 2, False), (4.0, 2, True), (5.0, 2, False),
])  # fmt: skip
def test_multiples(number: float, of: float, good: bool) -> None:
    assert (not schema.validate({"n": number}, {"properties": {"n": {"type": "number", "multipleOf": of}}})) == good


def test_json_patches_leave_the_object_that_they_began_with() -> None:
    before = {"metadata": {"labels": {"a": "b"}}, "spec": {"items": [{"name": "x"}]}}
    operations = [
        {"op": "copy", "from": "/spec/items/0", "path": "/spec/items/-"},
        {"op": "replace", "path": "/spec/items/1/name", "value": "y"},
        {"op": "move", "from": "/metadata/labels/a", "path": "/metadata/labels/c"},
    ]
    after = json_patch(before, operations)
    assert after == {"metadata": {"labels": {"c": "b"}}, "spec": {"items": [{"name": "x"}, {"name": "y"}]}}
    assert before == {"metadata": {"labels": {"a": "b"}}, "spec": {"items": [{"name": "x"}]}}


def test_warnings_come_with_refusals(server: Server) -> None:
    endpoints = {"metadata": {"name": "warned"}, "subsets": [{"addresses": [{"ip": "x"}]}]}
    code, headers, _ = server.raw("POST", "/api/v1/namespaces/default/endpoints", endpoints)
    assert (code, headers["Warning"]) == (
        422,
        '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"',
    )


def test_the_first_of_several_documents_counts(server: Server) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: first}\n---\nmetadata: [\n"
    path = "/api/v1/namespaces/default/configmaps?dryRun=All"
    code, _, raw = server.raw("POST", path, text.encode(), "application/yaml")
    assert (code, json.loads(raw)["metadata"]["name"]) == (201, "first")


def test_a_watch_ends_with_a_bookmark(server: Server) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    events = server.watch(f"{path}?labelSelector=none&allowWatchBookmarks=1")
    assert {event["type"] for event in events} == {"BOOKMARK"}
    version = int(events[-1]["object"]["metadata"]["resourceVersion"])
    assert version <= int(server.call("GET", path)[1]["metadata"]["resourceVersion"])
    assert "creationTimestamp" not in events[-1]["object"]["metadata"]
    assert server.watch(f"{path}?labelSelector=none") == []


def test_json_patches_of_the_whole_and_of_what_is_missing() -> None:
    document = {"a": 1, "list": [1]}
    assert json_patch(document, [{"op": "test", "path": "", "value": document}]) == document
    assert json_patch(document, [{"op": "replace", "path": "", "value": {"b": 2}}]) == {"b": 2}
    # The server's library adds the field, though RFC 6902 calls that an error; below what is missing it fails.
    assert json_patch(document, [{"op": "replace", "path": "/b", "value": 2}]) == {**document, "b": 2}
    for path in ("/b/c", "/a/c", "/list/5", "b"):
        with pytest.raises(StatusError) as refused:
            json_patch(document, [{"op": "replace", "path": path, "value": 2}])
        assert refused.value.code == 422
    with pytest.raises(StatusError, match=r"Go struct field jsonPatchOp\.from of type string"):
        json_patch(document, [{"op": "move", "path": "/b", "from": 1}])
