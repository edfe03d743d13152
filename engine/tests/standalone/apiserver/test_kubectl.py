# SPDX-License-Identifier: GPL-3.0-or-later
"""The real kubectl and the official Python client."""

import json

import kubernetes

from .conftest import Server, any_kubectl, new_kubectl, widget


@any_kubectl
def test_apply_edit_and_delete(server: Server) -> None:
    manifest = json.dumps(widget("applied"))
    assert "created" in server.kubectl("apply", "-f", "-", stdin=manifest)
    assert "unchanged" in server.kubectl("apply", "-f", "-", stdin=manifest)
    changed = json.dumps(widget("applied", replicas=3))
    assert "configured" in server.kubectl("apply", "-f", "-", stdin=changed)
    assert "labeled" in server.kubectl("label", "wd", "applied", "x=y")
    assert "annotated" in server.kubectl("annotate", "wd", "applied", "n=m")
    server.kubectl("patch", "wd", "applied", "--type", "merge", "-p", '{"spec":{"replicas":4}}')
    server.kubectl("scale", "wd", "applied", "--replicas=5")
    assert server.kubectl("get", "wd", "applied", "-o", "jsonpath={.spec.replicas}") == "5"
    assert "deleted" in server.kubectl("delete", "wd", "applied", "--timeout=10s")
    assert "NotFound" in server.kubectl("get", "wd", "applied", check=False)


@new_kubectl
def test_status_and_wait(server: Server) -> None:
    server.kubectl("apply", "-f", "-", stdin=json.dumps(widget("waited")))
    server.kubectl(
        "patch",
        "wd",
        "waited",
        "--subresource=status",
        "--type=merge",
        "-p",
        '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}',
    )
    server.kubectl("wait", "--for=condition=Ready", "wd/waited", "--timeout=5s")
    assert "True" in server.kubectl("get", "wd")
    server.kubectl("delete", "wd", "waited", "--timeout=10s")


@new_kubectl
def test_validation_messages(server: Server) -> None:
    text = server.kubectl("apply", "-f", "-", stdin=json.dumps(widget("wrong", foo=1)), check=False)
    assert 'unknown field "spec.foo"' in text
    text = server.kubectl("apply", "-f", "-", stdin=json.dumps(widget("wrong", size="huge")), check=False)
    assert 'The Widget "wrong" is invalid: spec.size: Unsupported value: "huge"' in text


@new_kubectl
def test_typed_commands(server: Server) -> None:
    server.kubectl("create", "namespace", "typed")
    server.kubectl("-n", "typed", "create", "configmap", "c", "--from-literal=a=b")
    assert server.kubectl("-n", "typed", "get", "cm", "c", "-o", "jsonpath={.data.a}") == "b"
    server.kubectl("-n", "typed", "create", "secret", "generic", "s", "--from-literal=a=b")
    assert server.kubectl("-n", "typed", "get", "secret", "s", "-o", "jsonpath={.data.a}") == "Yg=="
    server.kubectl("-n", "typed", "create", "serviceaccount", "a")
    server.kubectl("-n", "typed", "create", "role", "r", "--verb=get", "--resource=pods")
    server.kubectl("-n", "typed", "create", "rolebinding", "r", "--role=r", "--serviceaccount=typed:a")
    server.kubectl("-n", "typed", "create", "service", "clusterip", "svc", "--tcp=80:8080")
    port = server.kubectl("-n", "typed", "get", "svc", "svc", "-o", "jsonpath={.spec.ports[0].targetPort}")
    assert port == "8080"
    assert server.kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    assert server.kubectl("auth", "can-i", "create", "pods", kubeconfig="podrunner").strip() == "yes"
    assert "no" in server.kubectl("auth", "can-i", "create", "secrets", kubeconfig="podrunner", check=False)
    assert "admin" in server.kubectl("auth", "whoami")
    server.kubectl("delete", "namespace", "typed", "--timeout=10s")


@new_kubectl
def test_discovery_and_explain(server: Server) -> None:
    listed = server.kubectl("api-resources")
    assert "widgets" in listed
    assert "size" in server.kubectl("explain", "widget.spec")
    assert "Pod" in server.kubectl("explain", "pod")
    described = server.kubectl("describe", "namespace", "default")
    assert "Active" in described
    told = server.call("GET", "/version")[1]
    assert told["gitVersion"] in server.kubectl("version")
    document = server.call("GET", "/openapi/v3/api/v1")[1]["info"]["version"]
    assert told["gitVersion"].startswith(f"{document}+turtles.")
    assert f"v{told['major']}.{told['minor']}.0" == document == server.call("GET", "/openapi/v2")[1]["info"]["version"]


def test_official_client(server: Server) -> None:
    configuration = kubernetes.client.Configuration()
    loader = kubernetes.config.new_client_from_config(
        str(server.config / "admin.kubeconfig"), client_configuration=configuration
    )
    core = kubernetes.client.CoreV1Api(loader)
    assert "default" in [one.metadata.name for one in core.list_namespace().items]
    custom = kubernetes.client.CustomObjectsApi(loader)
    made = custom.create_namespaced_custom_object("example.io", "v1", "default", "widgets", widget("official"))
    watch = kubernetes.watch.Watch()
    version = str(int(made["metadata"]["resourceVersion"]) - 1)
    for event in watch.stream(
        custom.list_namespaced_custom_object,
        "example.io",
        "v1",
        "default",
        "widgets",
        resource_version=version,
        timeout_seconds=5,
    ):
        assert event["object"]["metadata"]["name"] == "official"
        break
    custom.delete_namespaced_custom_object("example.io", "v1", "default", "widgets", "official")


@new_kubectl
def test_tokens_quotas_and_budgets(server: Server) -> None:
    server.until(lambda: server.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")[0] == 200)
    token = server.kubectl("create", "token", "default", "--audience=vault", "--duration=20m").strip()
    assert token.count(".") == 2
    token = server.kubectl("create", "token", "default").strip()
    code, answer = server.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token=token)
    assert (code, answer["status"]["userInfo"]["username"]) == (201, "system:serviceaccount:default:default")
    server.kubectl("create", "namespace", "kubectl-quota")
    server.kubectl("create", "quota", "q", "--hard=pods=0,requests.memory=1Gi", "-n", "kubectl-quota")
    text = server.kubectl("run", "a", "--image=b", "--restart=Never", "-n", "kubectl-quota", check=False)
    assert "must specify requests.memory for: a" in text
    server.kubectl("create", "pdb", "p", "--selector=app=a", "--max-unavailable=0", "-n", "kubectl-quota")
    path = "/apis/policy/v1/namespaces/kubectl-quota/poddisruptionbudgets/p"
    assert server.call("GET", path)[1]["spec"]["maxUnavailable"] == 0
    server.kubectl("delete", "namespace", "kubectl-quota", "--wait=false")
