# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads: versions that aren't there yet, watches by path, JSON for people."""

import json

import pytest

from ..conftest import WIDGET_PATH, Server, widget

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
FUTURE = 10**15


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/default",
        "/api/v1/namespaces/nowhere",
        "/api/v1/namespaces/default/status",
        "/api/v1/namespaces",
        f"{WIDGET_PATH}/future",
        f"{WIDGET_PATH}/future/scale",
        WIDGET_PATH,
    ],
)
def test_a_version_of_the_future(server: Server, path: str) -> None:
    server.call("POST", WIDGET_PATH, widget("future"))
    code, headers, raw = server.raw("GET", f"{path}?resourceVersion={FUTURE}")
    status = json.loads(raw)
    assert (code, status["reason"], headers["Retry-After"]) == (504, "Timeout", "1")
    assert status["message"].startswith(f"Timeout: Too large resource version: {FUTURE}, current: ")
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    assert status["details"] == {"causes": [cause], "retryAfterSeconds": 1}
    if not path.endswith("nowhere"):
        assert server.call("GET", path)[0] == 200
        version = server.call("GET", "/api/v1/namespaces")[1]["metadata"]["resourceVersion"]
        assert server.call("GET", f"{path}?resourceVersion={version}")[0] == 200


def test_a_watch_from_the_future_says_so_in_its_stream(server: Server) -> None:
    code, _, raw = server.raw("GET", f"/api/v1/namespaces?watch=1&resourceVersion={FUTURE}")
    event = json.loads(raw)
    assert (code, event["type"], event["object"]["code"]) == (200, "ERROR", 504)


def events(server: Server, path: str) -> list[tuple[str, str]]:
    mark = "&" if "?" in path else "?"
    code, _, raw = server.raw("GET", f"{path}{mark}timeoutSeconds=1")
    assert code == 200, raw
    found = [json.loads(line) for line in raw.splitlines()]
    return [(one["type"], one["object"]["metadata"]["name"]) for one in found]


def test_watch_paths(server: Server) -> None:
    for name in ("seen", "other"):
        server.call("POST", CONFIG_MAPS, {"metadata": {"name": name}})
    server.call("POST", WIDGET_PATH, widget("seen"))
    watched = "/api/v1/watch"
    assert ("ADDED", "seen") in events(server, f"{watched}/configmaps")
    assert {("ADDED", "seen"), ("ADDED", "other")} <= set(events(server, f"{watched}/namespaces/default/configmaps"))
    assert events(server, f"{watched}/namespaces/default/configmaps/seen") == [("ADDED", "seen")]
    assert ("ADDED", "default") in events(server, f"{watched}/namespaces")
    assert events(server, f"{watched}/namespaces/default") == [("ADDED", "default")]
    custom = WIDGET_PATH.replace("/v1/", "/v1/watch/")
    assert events(server, f"{custom}/seen") == [("ADDED", "seen")]
    selected = "?fieldSelector=metadata.name%3Dseen"
    assert events(server, f"{watched}/namespaces/default/configmaps{selected}") == [("ADDED", "seen")]
    assert events(server, f"{watched}/namespaces/default/configmaps/seen{selected}") == [("ADDED", "seen")]
    code, status = server.call("GET", f"{watched}/namespaces/default/configmaps/other{selected}")
    assert (code, status["message"]) == (400, "fieldSelector metadata.name doesn't match requested name")
    for name in ("seen", "other"):
        server.call("DELETE", f"{CONFIG_MAPS}/{name}")
    server.call("DELETE", f"{WIDGET_PATH}/seen")


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", "/api/v1/watch/namespaces/default/configmaps", 405),
        ("DELETE", "/api/v1/watch/namespaces/default/configmaps/x", 405),
        ("GET", "/api/v1/watch/configmaps/x", 404),
        ("GET", "/api/v1/watch/nothing", 404),
        ("GET", "/api/v1/watch", 404),
        ("GET", "/api/v1/watch/namespaces/default/pods/x/log", 404),
        ("GET", "/apis/watch/v1/configmaps", 404),
    ],
)
def test_watch_paths_that_lead_nowhere(server: Server, method: str, path: str, code: int) -> None:
    assert server.call(method, path, {} if method == "POST" else None)[0] == code


def test_a_watch_path_needs_the_right_to_watch(server: Server) -> None:
    as_jane = {"Impersonate-User": "jane", "Impersonate-Group": "system:authenticated"}
    code, status = server.call("GET", "/api/v1/watch/namespaces/default/secrets/s", headers=as_jane)
    assert (code, 'cannot watch resource "secrets"' in status["message"]) == (403, True)


@pytest.mark.parametrize(
    ("query", "agent", "pretty"),
    [
        ("?pretty=true", "x", True),
        ("?pretty=1", "x", True),
        ("?pretty=false", "curl/8.0", False),
        ("?pretty=", "curl/8.0", True),
        ("?pretty=maybe", "x", False),
        ("", "curl/8.0", True),
        ("", "Mozilla/5.0 (X11)", True),
        ("", "kubectl/v1.36.2", False),
    ],
)
def test_json_for_people(server: Server, query: str, agent: str, pretty: bool) -> None:
    for path, code in (
        ("/api/v1/namespaces/default", 200),
        ("/api/v1/namespaces", 200),
        ("/api/v1/namespaces/nowhere", 404),
        ("/apis", 200),
    ):
        found, headers, raw = server.raw("GET", f"{path}{query}", headers={"User-Agent": agent})
        assert found == code
        assert raw.startswith(b'{\n  "') is pretty, path
        assert int(headers["Content-Length"]) == len(raw)
        plain = json.dumps(json.loads(raw), indent=2, ensure_ascii=False).encode()
        assert not pretty or raw.rstrip() == plain
    asked = {"User-Agent": agent, "Accept": "application/json;pretty=1"}
    assert server.raw("GET", f"/api/v1/namespaces{query}", headers=asked)[2].startswith(b'{\n  "')
    table = {"User-Agent": agent, "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    assert server.raw("GET", f"/api/v1/namespaces{query}", headers=table)[2].startswith(b'{\n  "') is pretty


def test_events_of_a_watch_stay_lines(server: Server) -> None:
    code, _, raw = server.raw("GET", "/api/v1/namespaces?watch=1&timeoutSeconds=1&pretty=true")
    assert code == 200
    assert all(json.loads(line)["type"] == "ADDED" for line in raw.splitlines())
