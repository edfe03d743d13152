# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients may not do to the server and to each other."""

import asyncio
import contextlib
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import HttpVersion11

from turtles.standalone.apiserver.storage.entries import Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.views import watch
from turtles.standalone.apiserver.views.watch import Form, Selection, Watcher, WatchOptions, stream

from ..conftest import WIDGET_PATH, Server, widget
from .test_api import CONFIG_MAPS, PODS, RBAC_PATH, SECRETS, pod


def test_yaml_bomb_is_refused(server: Server) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    code, status = server.call("POST", CONFIG_MAPS, "\n".join(lines).encode(), "application/yaml")
    assert (code, "aliases" in status["message"]) == (400, True)


@pytest.mark.parametrize("text", ["a: [" + "1," * 1_400_000 + "1]", "a: [" + "[]," * 900_000 + "[]]"])
def test_yaml_of_too_many_values_is_refused(server: Server, text: str) -> None:
    code, status = server.call("POST", CONFIG_MAPS, text.encode(), "application/yaml", timeout=60)
    assert (code, "it has more than 250000 values; send it as JSON" in status["message"]) == (400, True)


@pytest.mark.parametrize("method", ["POST", "PATCH", "GET"])
def test_others_are_answered_while_yaml_is_read_or_written(server: Server, method: str) -> None:
    lines = "\n".join(f"  k{number}: x" for number in range(50_000))
    text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: yaml}}\ndata:\n{lines}\n".encode()
    path = f"{CONFIG_MAPS}/yaml"
    requests: dict[str, tuple] = {
        "POST": ("POST", CONFIG_MAPS, text, "application/yaml"),
        "PATCH": ("PATCH", f"{path}?fieldManager=m&dryRun=All&force=true", text, "application/apply-patch+yaml"),
        "GET": ("GET", path),
    }
    if method != "POST":
        server.call(*requests["POST"], timeout=60)
    headers = {"Accept": "application/yaml"} if method == "GET" else None
    threads = [
        threading.Thread(target=server.call, args=requests[method], kwargs={"headers": headers, "timeout": 60})
        for _ in range(2)
    ]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    waits = []
    while any(thread.is_alive() for thread in threads):
        before = time.monotonic()
        assert server.call("GET", "/version")[0] == 200
        waits.append(time.monotonic() - before)
    took = time.monotonic() - begin
    server.call("DELETE", path)
    # Reading takes most of that time, and was one piece of it.
    assert len(waits) > 5, (waits, took)
    assert max(waits) < took / 2, (waits, took)


def test_a_watch_lasts_no_longer_than_a_day(server: Server) -> None:
    code, _ = server.call("GET", f"{CONFIG_MAPS}?timeoutSeconds={'9' * 400}&limit=1")
    assert code == 200
    with contextlib.suppress(TimeoutError):
        code, _ = server.call("GET", f"{CONFIG_MAPS}?watch=1&timeoutSeconds={'9' * 400}", timeout=1)
        assert code == 200


@pytest.mark.parametrize("share", ["²%", "٣%", "9" * 5000 + "%", "1 %", "%"])
def test_shares_that_are_none(server: Server, share: str) -> None:
    path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    code, status = server.call("POST", path, {"metadata": {"name": "share"}, "spec": {"maxUnavailable": share}})
    assert (code, status["details"]["causes"][0]["field"]) == (422, "spec.maxUnavailable")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (SECRETS, {"metadata": {"name": "bad"}, "data": {"../../x": "eA=="}}),
        (CONFIG_MAPS, {"metadata": {"name": "bad"}, "data": {"..": "x"}}),
        (CONFIG_MAPS, {"metadata": {"name": "bad"}, "binaryData": {"a/b": "eA=="}}),
        (CONFIG_MAPS, {"metadata": {"name": "bad\n"}}),
        (PODS, {**pod("bad"), "spec": {"containers": [{"name": "../c", "image": "i"}]}}),
        (PODS, {**pod("bad"), "spec": {**pod("x")["spec"], "volumes": [{"name": "../../v", "emptyDir": {}}]}}),
    ],
)
def test_names_that_become_paths(server: Server, path: str, body: dict) -> None:
    code, status = server.call("POST", path, body)
    assert (code, status["reason"]) == (422, "Invalid"), status


def test_amounts_that_are_none_reach_no_scheduler(server: Server) -> None:
    body = pod("amounts")
    body["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1", "example.io/x": "many"}}
    code, status = server.call("POST", PODS, body)
    assert code == 400
    assert "quantities must match the regular expression" in status["message"]
    body["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}
    assert server.call("POST", PODS, body)[1]["status"]["qosClass"] == "Guaranteed"
    server.call("DELETE", f"{PODS}/amounts?gracePeriodSeconds=0")


def test_quoted_slash_stays_in_its_part(server: Server) -> None:
    assert server.call("POST", PODS, pod("quoted"))[0] == 201
    assert server.call("GET", f"{PODS}/quoted%2Fstatus")[0] == 404
    assert server.call("GET", f"{PODS}/quoted/status")[0] == 200
    server.call("DELETE", f"{PODS}/quoted?gracePeriodSeconds=0")


def test_binding_is_of_one_pod_only(server: Server) -> None:
    server.call("POST", PODS, pod("again"))
    binding = {"metadata": {"name": "again", "uid": "of-an-earlier-one"}, "target": {"name": "n1"}}
    code, status = server.call("POST", f"{PODS}/again/binding", binding)
    assert (code, status["reason"]) == (409, "Conflict")
    server.call("DELETE", f"{PODS}/again?gracePeriodSeconds=0")


def test_binding_gives_no_annotations_that_nobody_can_read(server: Server) -> None:
    pods = "/api/v1/namespaces/default/pods"
    server.call("POST", pods, {"metadata": {"name": "noted"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    for value, code in ((3, 400), ("three", 201)):
        binding = {"metadata": {"annotations": {"a": value}}, "target": {"name": "n1"}}
        assert server.call("POST", f"{pods}/noted/binding", binding)[0] == code
    assert server.call("GET", f"{pods}/noted")[1]["metadata"]["annotations"] == {"a": "three"}
    server.call("DELETE", f"{pods}/noted", {"gracePeriodSeconds": 0})


def test_database_is_root_s_own(stopped: Server) -> None:
    stopped.data.chmod(0o755)
    stopped.start()
    assert stopped.call("POST", SECRETS, {"metadata": {"name": "one"}, "stringData": {"a": "b"}})[0] == 201
    modes = {path.name: path.stat().st_mode & 0o777 for path in stopped.data.iterdir()}
    assert "apiserver.db-wal" in modes
    assert set(modes.values()) == {0o600}


async def test_watch_of_a_client_that_has_gone_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to a watch on which nothing happens: it must look."""
    monkeypatch.setattr(watch, "BOOKMARK_SECONDS", 0.01)
    store = Store(tmp_path / "db")
    form = Form("", lambda entry: entry.raw, lambda version, notes: b"")
    watcher = Watcher(store, "/configmaps", Selection(), form)
    watcher.start()

    class Response:
        def __init__(self, **_: object) -> None:
            self.enable_chunked_encoding = lambda: None
            self.prepare = self.write_eof = self.nothing

        async def nothing(self, *_: object) -> None:
            pass

    monkeypatch.setattr(watch.web, "StreamResponse", Response)
    request = SimpleNamespace(transport=object(), version=HttpVersion11)
    task = asyncio.ensure_future(stream(request, store, watcher, [], form, WatchOptions(), 1))
    await asyncio.sleep(0.05)
    assert not task.done()
    request.transport = None
    await asyncio.wait_for(task, 5)
    assert not store.table("/configmaps").listeners
    store.close()


async def test_table_frames_are_nobody_else_s(tmp_path: Path) -> None:
    """Only a watcher's first row brings the columns."""
    store = Store(tmp_path / "db")
    store.start(asyncio.get_running_loop())
    forms = [Form("", lambda entry, shown=shown: shown, lambda version, notes: b"") for shown in (b"1", b"2")]
    watchers = [Watcher(store, "/configmaps", Selection(), form) for form in forms]
    for one in watchers:
        one.start()
    await store.put(Key("/configmaps", "default", "a"), {"metadata": {"name": "a"}}, 0)
    assert [json.loads(await one.frames(1))["object"] for one in watchers] == [1, 2]
    store.close()


def test_patches_do_not_grow_an_object_without_end(server: Server) -> None:
    # A ConfigMap has a limit of its own, a custom resource has that of all objects only.
    assert server.call("POST", WIDGET_PATH, widget("grows"))[0] == 201
    path = f"{WIDGET_PATH}/grows/status"
    assert server.call("PATCH", path, {"status": {"a": "x" * 2_000_000}}, "application/merge-patch+json")[0] == 200
    more = {"status": {"b": "x" * 2_000_000}}
    code, status = server.call("PATCH", path, more, "application/merge-patch+json")
    assert (code, status["reason"]) == (413, "RequestEntityTooLarge")
    doubling = [{"op": "copy", "from": "/status", "path": f"/status/{number}"} for number in range(40)]
    assert server.call("PATCH", path, doubling, "application/json-patch+json")[0] == 413
    once = [{"op": "copy", "from": "/metadata/name", "path": "/status/b"}]
    assert server.call("PATCH", path, once, "application/json-patch+json")[1]["status"]["b"] == "grows"
    server.call("DELETE", path.removesuffix("/status"))


def test_roles_that_aggregate_each_other(server: Server) -> None:
    node = server.token("podrunner")
    subject = {"kind": "User", "name": "system:node:n1"}
    rule = {"apiGroups": ["example.io"], "resources": ["widgets"], "verbs": ["list"]}
    ring = {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"ring": "yes"}}]}}
    for name, content in (("ring-1", ring), ("ring-2", ring), ("ring-3", {"rules": [rule]})):
        role = {"metadata": {"name": name, "labels": {"ring": "yes"}}, **content}
        assert server.call("POST", f"{RBAC_PATH}/clusterroles", role)[0] == 201
    binding = {"roleRef": {"kind": "ClusterRole", "name": "ring-1"}, "subjects": [subject]}
    path = f"{RBAC_PATH}/clusterrolebindings"
    assert server.call("POST", path, {"metadata": {"name": "ring"}, **binding})[0] == 201
    assert server.call("GET", WIDGET_PATH, token=node)[0] == 200
    for path in ("clusterrolebindings/ring", *(f"clusterroles/ring-{one}" for one in (1, 2, 3))):
        server.call("DELETE", f"{RBAC_PATH}/{path}")


def test_pod_with_an_endless_grace_period_can_be_deleted(server: Server) -> None:
    body = pod("patient")
    body["spec"]["terminationGracePeriodSeconds"] = 10**18
    assert server.call("POST", PODS, body)[0] == 201
    assert server.call("POST", f"{PODS}/patient/binding", {"target": {"name": "n1"}})[0] == 201
    assert server.call("DELETE", f"{PODS}/patient")[0] == 200
    assert server.call("DELETE", f"{PODS}/patient", {"gracePeriodSeconds": 10**18})[0] == 200
    assert server.call("DELETE", f"{PODS}/patient", {"gracePeriodSeconds": 0})[0] == 200
    assert server.call("GET", f"{PODS}/patient")[0] == 404


def test_what_can_t_be_read_is_told(server: Server) -> None:
    assert server.call("GET", PODS, token="\xe9")[0] == 401
    server.call("POST", PODS, pod("odd"))
    assert server.call("POST", f"{PODS}/odd/binding", {"metadata": 5, "target": {"name": "n1"}})[0] == 201
    server.call("DELETE", f"{PODS}/odd?gracePeriodSeconds=0")
    server.call("POST", WIDGET_PATH, widget("odd"))
    assert server.call("PUT", f"{WIDGET_PATH}/odd/scale", {"metadata": 5, "spec": {"replicas": 2}})[0] == 400
    server.call("DELETE", f"{WIDGET_PATH}/odd")


def test_kind_that_is_no_text(server: Server) -> None:
    server.call("POST", CONFIG_MAPS, {"metadata": {"name": "odd"}})
    body = {"kind": {"": ""}}
    code, status = server.call("PATCH", f"{CONFIG_MAPS}/odd", body, "application/merge-patch+json")
    assert (code, status["reason"]) == (422, "Invalid")
    server.call("DELETE", f"{CONFIG_MAPS}/odd")


def test_metadata_that_is_none(server: Server) -> None:
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    assert server.call("POST", path, {"metadata": "x", "spec": {"token": "x"}})[0] == 400
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": None}
    kind = "application/apply-patch+yaml"
    assert server.call("PATCH", f"{CONFIG_MAPS}/odd?fieldManager=kubectl", body, kind)[0] < 500
    server.call("DELETE", f"{CONFIG_MAPS}/odd")  # made by some
