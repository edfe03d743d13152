# SPDX-License-Identifier: GPL-3.0-or-later
"""What people type: kubectl's commands, each with what it must show and what the server must have afterwards."""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import WIDGET_PATH, Server, any_kubectl, kubectl_minor, new_kubectl, widget

pytestmark = any_kubectl
MAPS = "/api/v1/namespaces/default/configmaps"
Kubectl = Callable[..., subprocess.CompletedProcess]


def since(minor: int, what: str) -> pytest.MarkDecorator:
    """Skip the test with a kubectl that doesn't have ``what`` yet."""
    return pytest.mark.skipif(kubectl_minor() < minor, reason=f"{what} came with kubectl 1.{minor}")


@pytest.fixture
def kubectl(server: Server) -> Kubectl:
    """Runs kubectl with its output and exit code; ``ok`` False expects that it fails."""

    def run(*arguments: str, body: object = None, ok: bool = True, **environment: str) -> subprocess.CompletedProcess:
        result = subprocess.run(
            ["kubectl", *arguments],
            input=None if body is None else json.dumps(body),
            capture_output=True,
            text=True,
            timeout=60,
            env={
                **os.environ,
                "KUBECONFIG": str(server.config / "admin.kubeconfig"),
                "HOME": str(server.root),
                **environment,
            },
        )
        assert (result.returncode == 0) == ok, result.stdout + result.stderr
        return result

    return run


@pytest.fixture
def made(server: Server) -> Iterator[str]:
    """The name of a Widget that is there for this test only."""
    name = "typed"
    assert server.call("POST", WIDGET_PATH, widget(name))[0] == 201
    yield name
    server.call("DELETE", f"{WIDGET_PATH}/{name}")


def config_map(name: str, **data: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def spec(server: Server, name: str) -> dict:
    return server.call("GET", f"{WIDGET_PATH}/{name}")[1]["spec"]


def test_get_watches(server: Server, kubectl: Kubectl) -> None:
    process = subprocess.Popen(
        ["kubectl", "get", "wd", "-l", "app=seen", "-w", "--output-watch-events"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "KUBECONFIG": str(server.config / "admin.kubeconfig"), "HOME": str(server.root)},
    )
    assert process.stdout is not None
    rows: queue.Queue[list[str]] = queue.Queue()
    threading.Thread(target=lambda: [rows.put(line.split()) for line in process.stdout], daemon=True).start()
    try:
        server.call("POST", WIDGET_PATH, widget("seen"))
        assert rows.get(timeout=30)[:3] == ["EVENT", "NAME", "SIZE"]
        assert rows.get(timeout=30)[:3] == ["ADDED", "seen", "small"]
        kubectl("patch", "wd", "seen", "--type=merge", "-p", '{"spec":{"size":"large"}}')
        assert rows.get(timeout=30)[:3] == ["MODIFIED", "seen", "large"]
        # To leave the selection is to be deleted, with the state it had then.
        kubectl("label", "wd", "seen", "app=other", "--overwrite")
        assert rows.get(timeout=30)[:3] == ["DELETED", "seen", "large"]
        kubectl("label", "wd", "seen", "app=seen", "--overwrite")
        assert rows.get(timeout=30)[:2] == ["ADDED", "seen"]
        kubectl("delete", "wd", "seen")
        assert rows.get(timeout=30)[:2] == ["DELETED", "seen"]
    finally:
        process.terminate()
        process.wait(60)
        server.call("DELETE", f"{WIDGET_PATH}/seen")


def test_apply_keeps_what_others_set_and_removes_what_was_its_own(server: Server, kubectl: Kubectl) -> None:
    assert "created" in kubectl("apply", "-f", "-", body=config_map("three", a="1", b="2")).stdout
    kubectl("patch", "cm", "three", "-p", '{"data":{"other":"x"}}')
    assert "configured" in kubectl("apply", "-f", "-", body=config_map("three", a="3")).stdout
    assert server.call("GET", f"{MAPS}/three")[1]["data"] == {"a": "3", "other": "x"}
    assert "unchanged" in kubectl("apply", "-f", "-", body=config_map("three", a="3")).stdout
    tried = kubectl("apply", "-f", "-", "--dry-run=server", body=config_map("three", a="4")).stdout
    assert "configmap/three configured (server dry run)" in tried
    assert server.call("GET", f"{MAPS}/three")[1]["data"]["a"] == "3"
    kubectl("delete", "cm", "three")


def test_apply_on_the_server_reports_conflicts(server: Server, kubectl: Kubectl, made: str) -> None:
    apply = ("apply", "--server-side", "-f", "-")
    kubectl(*apply, "--field-manager=first", body=widget("contested", replicas=1))
    refused = kubectl(*apply, "--field-manager=second", body=widget("contested", replicas=2), ok=False).stderr
    assert 'Apply failed with 1 conflict: conflict with "first"' in refused
    assert ".spec.replicas" in refused
    assert spec(server, "contested")["replicas"] == 1
    kubectl(*apply, "--field-manager=second", "--force-conflicts", body=widget("contested", replicas=2))
    assert spec(server, "contested")["replicas"] == 2
    shown = server.call("GET", f"{WIDGET_PATH}/contested")[1]["metadata"]["managedFields"]
    owners = {one["manager"]: one["fieldsV1"]["f:spec"] for one in shown}
    assert "f:replicas" in owners["second"]
    assert "f:replicas" not in owners["first"]
    kubectl("delete", "wd", "contested")


def test_diff(server: Server, kubectl: Kubectl, made: str) -> None:
    kubectl("apply", "-f", "-", body=widget(made))
    assert kubectl("diff", "-f", "-", body=widget(made)).stdout == ""
    for more in ((), ("--server-side", "--force-conflicts")):
        result = kubectl("diff", *more, "-f", "-", body=widget(made, size="large"), ok=False)
        assert result.returncode == 1, result.stderr
        assert "\n-  size: small\n" in result.stdout
        assert "\n+  size: large\n" in result.stdout
    assert spec(server, made)["size"] == "small"
    new = kubectl("diff", "-f", "-", body=config_map("not-yet", a="b"), ok=False)
    assert new.returncode == 1
    assert "+  name: not-yet" in new.stdout
    assert server.call("GET", f"{MAPS}/not-yet")[0] == 404


def test_edit(server: Server, kubectl: Kubectl, made: str, tmp_path: Path) -> None:
    def editor(command: str) -> str:
        path = tmp_path / "editor"
        path.write_text(f'#!/bin/sh\nsed -i "{command}" "$1"; cp "$1" {tmp_path}/shown\n')
        path.chmod(0o755)
        return str(path)

    text = kubectl("edit", "wd", made, KUBE_EDITOR=editor("s/size: small/size: large/")).stdout
    assert "edited" in text
    assert spec(server, made)["size"] == "large"
    assert "no changes made" in kubectl("edit", "wd", made, KUBE_EDITOR="true").stderr
    # What the server refuses comes back into the editor, with the reason.
    huge = editor("s/size: large/size: huge/")
    refused = kubectl("edit", "wd", made, KUBE_EDITOR=huge, TMPDIR=str(tmp_path), ok=False)
    assert "is invalid" in refused.stderr
    assert '# * spec.size: Unsupported value: "huge"' in (tmp_path / "shown").read_text()
    assert spec(server, made)["size"] == "large"
    server.call("POST", MAPS, config_map("edited", a="1"))
    kubectl("edit", "cm", "edited", KUBE_EDITOR=editor("s/  a: .*/  a: two/"))
    assert server.call("GET", f"{MAPS}/edited")[1]["data"] == {"a": "two"}
    kubectl("delete", "cm", "edited")


def test_patch_of_each_type(server: Server, kubectl: Kubectl, made: str) -> None:
    patch = ("patch", "wd", made)
    done = kubectl(*patch, "--type=json", "-p", '[{"op":"replace","path":"/spec/replicas","value":7}]')
    assert "patched" in done.stdout
    assert spec(server, made)["replicas"] == 7
    refused = kubectl(*patch, "--type=json", "-p", '[{"op":"test","path":"/spec/replicas","value":8}]', ok=False)
    assert "The request is invalid" in refused.stderr
    kubectl(*patch, "--type=merge", "-p", '{"spec":{"replicas":null,"parts":[{"name":"a"}]}}')
    assert spec(server, made) == {"size": "small", "replicas": 1, "parts": [{"name": "a"}]}
    assert "(no change)" in kubectl(*patch, "--type=merge", "-p", '{"spec":{"size":"small"}}').stdout
    # A custom resource has no merge keys that a strategic merge could follow.
    refused = kubectl(*patch, "--type=strategic", "-p", '{"spec":{"size":"large"}}', ok=False).stderr
    assert "the body of the request was in an unknown format" in refused
    assert "application/merge-patch+json" in refused
    containers = [{"name": name, "image": "x"} for name in ("a", "b")]
    server.call(
        "POST",
        "/api/v1/namespaces/default/pods",
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "strategic"}, "spec": {"containers": containers}},
    )
    kubectl("patch", "pod", "strategic", "-p", '{"spec":{"containers":[{"name":"b","image":"y"}]}}')
    pod = server.call("GET", "/api/v1/namespaces/default/pods/strategic")[1]
    assert [(one["name"], one["image"]) for one in pod["spec"]["containers"]] == [("a", "x"), ("b", "y")]
    kubectl("delete", "pod", "strategic", "--grace-period=0", "--force")


@since(24, "patch --subresource")
def test_subresources(server: Server, kubectl: Kubectl, made: str) -> None:
    kubectl("patch", "wd", made, "--subresource=status", "--type=merge", "-p", '{"status":{"replicas":3},"spec":null}')
    shown = server.call("GET", f"{WIDGET_PATH}/{made}")[1]
    assert (shown["status"], shown["spec"]["size"]) == ({"replicas": 3}, "small")
    scale = json.loads(kubectl("get", "wd", made, "--subresource=scale", "-o", "json").stdout)
    assert (scale["kind"], scale["spec"], scale["status"]) == ("Scale", {"replicas": 1}, {"replicas": 3})


def test_explain(kubectl: Kubectl) -> None:
    text = kubectl("explain", "pod.spec.containers.image").stdout
    assert "Container image name." in text
    tree = kubectl("explain", "wd", "--recursive").stdout
    for line in ("parts", "name", "replicas", "size", "ownerReferences"):
        assert line in tree.split(), tree
    assert "<integer>" in kubectl("explain", "widgets.spec.replicas").stdout
    assert "<integer>" in kubectl("explain", "wd.spec.replicas", "--api-version=example.io/v1alpha3").stdout
    assert 'field "nonsense" does not exist' in kubectl("explain", "wd.spec.nonsense", ok=False).stderr


def test_label_and_annotate(server: Server, kubectl: Kubectl, made: str) -> None:
    def metadata(kind: str) -> dict:
        return server.call("GET", f"{WIDGET_PATH}/{made}")[1]["metadata"].get(kind, {})

    kubectl("label", "wd", made, "tier=front")
    assert metadata("labels") == {"app": made, "tier": "front"}
    assert "--overwrite is false" in kubectl("label", "wd", made, "tier=back", ok=False).stderr
    kubectl("label", "wd", made, "tier=back", "app-", "--overwrite")
    assert metadata("labels") == {"tier": "back"}
    assert made in kubectl("get", "wd", "-l", "tier in (back,other),!app").stdout
    kubectl("annotate", "wd", made, "note=a b")
    assert metadata("annotations") == {"note": "a b"}
    kubectl("annotate", "wd", made, "note-")
    assert metadata("annotations") == {}
    assert "invalid label value" in kubectl("label", "wd", made, "x=-", ok=False).stderr


def test_scale(server: Server, kubectl: Kubectl, made: str) -> None:
    assert "scaled" in kubectl("scale", f"wd/{made}", "--replicas=3", "--current-replicas=1").stdout
    assert spec(server, made)["replicas"] == 3
    assert (
        "Expected replicas to be 1, was 3"
        in kubectl("scale", f"wd/{made}", "--replicas=2", "--current-replicas=1", ok=False).stderr
    )
    assert spec(server, made)["replicas"] == 3
    kubectl("scale", "cm", "--replicas=1", "--all", ok=False)


def test_wait(server: Server, kubectl: Kubectl, made: str) -> None:
    def later(method: str, path: str, body: object = None) -> threading.Timer:
        timer = threading.Timer(1, server.call, (method, path, body))
        timer.start()
        return timer

    body = server.call("GET", f"{WIDGET_PATH}/{made}")[1]
    body["status"] = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Done"}
    assert "timed out" in kubectl("wait", f"wd/{made}", "--for=condition=Ready", "--timeout=1s", ok=False).stderr
    timer = later("PUT", f"{WIDGET_PATH}/{made}/status", body)
    assert "condition met" in kubectl("wait", f"wd/{made}", "--for=condition=Ready", "--timeout=30s").stdout
    timer.join()
    if kubectl_minor() >= 23:
        kubectl("wait", f"wd/{made}", "--for=jsonpath={.status.phase}=Done", "--timeout=30s")
    timer = later("DELETE", f"{WIDGET_PATH}/{made}")
    assert "condition met" in kubectl("wait", f"wd/{made}", "--for=delete", "--timeout=30s").stdout
    timer.join()


def test_delete_cascades(server: Server, kubectl: Kubectl) -> None:
    def family(name: str) -> None:
        owner = server.call("POST", WIDGET_PATH, widget(name))[1]
        child = config_map(f"{name}-child")
        child["metadata"]["ownerReferences"] = [
            {
                "apiVersion": "example.io/v1",
                "kind": "Widget",
                "name": name,
                "uid": owner["metadata"]["uid"],
                "blockOwnerDeletion": True,
            }
        ]
        child["metadata"]["finalizers"] = ["example.io/hold"]
        assert server.call("POST", MAPS, child)[0] == 201

    def child(name: str) -> dict:
        return server.call("GET", f"{MAPS}/{name}-child")[1]

    def release(name: str) -> None:
        kubectl("patch", "cm", f"{name}-child", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')

    family("background")
    kubectl("delete", "wd", "background", "--cascade=background", "--timeout=20s")
    server.until(lambda: child("background")["metadata"].get("deletionTimestamp"))
    release("background")
    family("foreground")
    kubectl("delete", "wd", "foreground", "--cascade=foreground", "--wait=false")
    server.until(lambda: child("foreground")["metadata"].get("deletionTimestamp"))
    # The owner stays until its children are gone.
    owner = server.call("GET", f"{WIDGET_PATH}/foreground")[1]
    assert owner["metadata"]["finalizers"] == ["foregroundDeletion"]
    release("foreground")
    server.until(lambda: server.call("GET", f"{WIDGET_PATH}/foreground")[0] == 404)
    family("orphan")
    kubectl("delete", "wd", "orphan", "--cascade=orphan", "--timeout=20s")
    left = child("orphan")["metadata"]
    assert "ownerReferences" not in left
    assert "deletionTimestamp" not in left
    release("orphan")
    kubectl("delete", "cm", "orphan-child")


def test_what_may_i(server: Server, kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "delete", "widgets").stdout.strip() == "yes"
    assert kubectl("auth", "can-i", "get", "pods", "--as=bob", ok=False).stdout.strip().startswith("no")
    kubectl("create", "role", "watcher", "--verb=get,list", "--resource=pods,pods/log")
    kubectl("create", "rolebinding", "watcher", "--role=watcher", "--user=bob")
    try:
        assert kubectl("auth", "can-i", "get", "pods", "--as=bob").stdout.strip() == "yes"
        assert kubectl("auth", "can-i", "get", "pods", "--subresource=log", "--as=bob").stdout.strip() == "yes"
        for no in (("delete", "pods"), ("get", "pods", "-n", "kube-system"), ("get", "secrets")):
            assert kubectl("auth", "can-i", *no, "--as=bob", ok=False).stdout.strip().startswith("no")
        rules = [line.split() for line in kubectl("auth", "can-i", "--list", "--as=bob").stdout.splitlines()]
        assert ["pods", "[]", "[]", "[get", "list]"] in rules
        refused = kubectl("get", "secrets", "--as=bob", ok=False).stderr
        assert (
            'secrets is forbidden: User "bob" cannot list resource "secrets" in API group "" in the namespace "default"'
        ) in refused
        granted = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "reconciled", "namespace": "default"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
        }
        assert "reconciled" in kubectl("auth", "reconcile", "-f", "-", body=granted).stdout
        kubectl("delete", "role", "reconciled")
    finally:
        kubectl("delete", "role/watcher", "rolebinding/watcher")


def test_what_is_served(kubectl: Kubectl) -> None:
    assert {"v1", "example.io/v1", "example.io/v1alpha3", "apiextensions.k8s.io/v1"} <= set(
        kubectl("api-versions").stdout.split()
    )
    rows = [line.split() for line in kubectl("api-resources", "--no-headers").stdout.splitlines()]
    kinds = {row[-1]: row for row in rows}
    assert kinds["Widget"][:2] == ["widgets", "wd"]
    assert kinds["Widget"][-2] == "true"
    assert kinds["Node"][-2] == "false"
    some = kubectl("api-resources", "--api-group=example.io", "-o", "name").stdout.split()
    assert some == ["widgets.example.io"]
    assert "secrets" not in kubectl("api-resources", "--namespaced=false", "-o", "name").stdout.split()
    assert json.loads(kubectl("get", "--raw", "/version").stdout)["gitVersion"].startswith("v1.")


def test_create_run_and_expose(server: Server, kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "exposed")
    there = ("-n", "exposed")
    kubectl("run", "web", "--image=x", "--port=80", "--labels=app=web", "--restart=Never", "--env=A=b", *there)
    kubectl("expose", "pod", "web", "--port=8080", "--target-port=80", *there)
    service = server.call("GET", "/api/v1/namespaces/exposed/services/web")[1]["spec"]
    assert service["selector"] == {"app": "web"}
    assert service["ports"] == [{"protocol": "TCP", "port": 8080, "targetPort": 80}]
    assert service["clusterIP"].startswith("10.")
    row = kubectl("get", "svc", "web", "-o", "wide", "--no-headers", *there).stdout.split()
    assert (row[1], row[4], row[6]) == ("ClusterIP", "8080/TCP", "app=web")
    kubectl("create", "cm", "c", "--from-literal=a=b", *there)
    assert "already exists" in kubectl("create", "cm", "c", *there, ok=False).stderr
    made = kubectl("create", "cm", "other", "--from-literal=a=b", "--dry-run=server", *there).stdout
    assert made.strip() == "configmap/other created (server dry run)"
    assert "NotFound" in kubectl("get", "cm", "other", *there, ok=False).stderr
    replaced = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"z": "y"}}
    kubectl("replace", "-f", "-", *there, body=replaced)
    assert kubectl("get", "cm", "c", "-o", "jsonpath={.data}", *there).stdout == '{"z":"y"}'
    kubectl("create", "priorityclass", "exposed", "--value=7")
    kubectl("delete", "priorityclass", "exposed")
    kubectl("delete", "cm", "--all", *there)
    assert "web" in kubectl("describe", "svc", "web", *there).stdout
    kubectl("delete", "pod", "web", "--grace-period=0", "--force", *there)
    kubectl("delete", "namespace", "exposed", "--timeout=30s")


def test_ways_to_show(kubectl: Kubectl, made: str) -> None:
    wide = kubectl("get", "wd", made, "-o", "wide").stdout.splitlines()
    assert wide[0].split() == ["NAME", "SIZE", "READY", "AGE", "REPLICAS"]
    assert wide[1].split()[-1] == "1"
    assert "REPLICAS" not in kubectl("get", "wd", made).stdout
    assert kubectl("get", "wd", made, "-o", "name").stdout.strip() == f"widget.example.io/{made}"
    assert "\nkind: Widget\n" in kubectl("get", "wd", made, "-o", "yaml").stdout
    assert kubectl("get", "wd", made, "-o", "jsonpath={.spec.size}").stdout == "small"
    columns = kubectl("get", "wd", made, "-o", "custom-columns=A:.metadata.name,B:.spec.replicas").stdout.split()
    assert columns == ["A", "B", made, "1"]
    assert kubectl("get", "wd", made, "--show-labels", "--no-headers").stdout.split()[-1] == f"app={made}"
    assert kubectl("get", "wd", "-A", "--no-headers", "-l", f"app={made}").stdout.split()[:2] == ["default", made]
    assert f"Name:         {made}" in kubectl("describe", "wd", made).stdout


def test_selection_and_pages(server: Server, kubectl: Kubectl) -> None:
    names = [f"page-{number}" for number in range(7)]
    for name in names:
        body = config_map(name)
        body["metadata"]["labels"] = {"page": "yes", "odd": str(int(name[-1]) % 2)}
        server.call("POST", MAPS, body)
    logged = kubectl("get", "cm", "-l", "page=yes", "--chunk-size=3", "-o", "name", "-v=6")
    assert logged.stdout.split() == [f"configmap/{name}" for name in names]
    assert logged.stderr.count("/configmaps?") == 3
    odd = kubectl("get", "cm", "-l", "page,odd!=0", "-o", "name").stdout.split()
    assert odd == [f"configmap/page-{number}" for number in (1, 3, 5)]
    one = kubectl("get", "cm", "--field-selector=metadata.name=page-4", "-o", "name").stdout.split()
    assert one == ["configmap/page-4"]
    refused = kubectl("get", "cm", "--field-selector=data.a=b", ok=False).stderr
    assert '"data.a" is not a known field selector' in refused
    kubectl("delete", "cm", "-l", "page=yes")
    assert "No resources found" in kubectl("get", "cm", "-l", "page=yes").stderr


def test_a_typo_is_refused(server: Server, kubectl: Kubectl) -> None:
    strict = "strict" if kubectl_minor() >= 25 else "true"
    for body in (widget("typo", replcas=2), {**config_map("typo"), "dta": {}}):
        refused = kubectl("create", f"--validate={strict}", "-f", "-", body=body, ok=False).stderr
        assert 'unknown field "' in refused
        assert ("replcas" if body["kind"] == "Widget" else "dta") in refused
    assert server.call("GET", f"{MAPS}/typo")[0] == 404
    kubectl("create", "--validate=false", "-f", "-", body=widget("typo", replcas=2))
    assert "replcas" not in spec(server, "typo")
    kubectl("delete", "wd", "typo")


@since(25, "--validate=warn")
def test_a_typo_is_warned_of(kubectl: Kubectl) -> None:
    warned = kubectl("create", "--validate=warn", "--dry-run=server", "-f", "-", body=widget("typo", replcas=2))
    assert 'Warning: unknown field "spec.replcas"' in warned.stderr


@new_kubectl
def test_events_and_tokens(server: Server, kubectl: Kubectl) -> None:
    server.until(lambda: server.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")[0] == 200)
    token = kubectl("create", "token", "default", "--duration=10m").stdout.strip()
    who = json.loads(
        kubectl(
            "auth",
            "whoami",
            "-o",
            "json",
            f"--token={token}",
            "--kubeconfig=/dev/null",
            f"--server=https://127.0.0.1:{server.port}",
            f"--certificate-authority={server.config}/pki/ca.crt",
        ).stdout
    )
    assert who["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "type": "Warning",
        "reason": "Odd",
        "message": "seen",
        "involvedObject": {"kind": "Widget", "name": "some", "namespace": "default", "apiVersion": "example.io/v1"},
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }
    kubectl("create", "-f", "-", body=event)
    assert "seen" in kubectl("events", "--for=widget/some", "--types=Warning").stdout
    kubectl("delete", "event", "e")
