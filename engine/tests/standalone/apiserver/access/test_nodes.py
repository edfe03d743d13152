# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node may see and do: its own Pods' things, and no others'."""

from collections.abc import Iterator

import pytest

from ..conftest import Server

DEFAULT = "/api/v1/namespaces/default"


def pod(name: str, node: str, **spec: object) -> dict:
    container = {"name": "c", "image": "i"}
    return {"metadata": {"name": name}, "spec": {"containers": [container], "nodeName": node, **spec}}


@pytest.fixture
def node(server: Server) -> Iterator[str]:
    """The token of the node n1, with a Pod on it and one on n2."""
    for name in ("mine", "theirs"):
        server.call("POST", f"{DEFAULT}/secrets", {"metadata": {"name": name}})
        server.call("POST", f"{DEFAULT}/configmaps", {"metadata": {"name": name}})
        volumes = [
            {"name": "a", "secret": {"secretName": name}},
            {"name": "b", "projected": {"sources": [{"configMap": {"name": name}}]}},
            {"name": "c", "persistentVolumeClaim": {"claimName": name}},
        ]
        body = pod(name, "n1" if name == "mine" else "n2", volumes=volumes)
        code, answer = server.call("POST", f"{DEFAULT}/pods", body)
        assert code == 201, answer
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": name}
        server.call("POST", f"{DEFAULT}/persistentvolumeclaims", {"metadata": {"name": name}, "spec": claim})
        reference = {"namespace": "default", "name": name}
        volume = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}
        body = {"metadata": {"name": name}, "spec": {**volume, "claimRef": reference}}
        assert server.call("POST", "/api/v1/persistentvolumes", body)[0] in (201, 409)
        server.call("POST", "/api/v1/nodes", {"metadata": {"name": "n1" if name == "mine" else "n2"}})
    yield server.token("podrunner")
    for name in ("mine", "theirs"):
        for plural in ("pods", "secrets", "configmaps", "persistentvolumeclaims"):
            server.call("DELETE", f"{DEFAULT}/{plural}/{name}", {"gracePeriodSeconds": 0})
        server.call("DELETE", f"/api/v1/persistentvolumes/{name}")
    for name in ("n1", "n2"):
        server.call("DELETE", f"/api/v1/nodes/{name}")


@pytest.mark.parametrize(
    "path",
    [f"{DEFAULT}/secrets", f"{DEFAULT}/configmaps", f"{DEFAULT}/persistentvolumeclaims", "/api/v1/persistentvolumes"],
)
def test_node_reads_what_its_pods_use(server: Server, node: str, path: str) -> None:
    assert server.call("GET", f"{path}/mine", token=node)[0] == 200
    assert server.call("GET", f"{path}/theirs", token=node)[0] == 403
    assert server.call("GET", path, token=node)[0] == 403
    if "persistentvolumes" not in path:
        assert server.call("GET", f"{path}?fieldSelector=metadata.name%3Dmine", token=node)[0] == 200
    server.call("DELETE", f"{DEFAULT}/pods/mine", {"gracePeriodSeconds": 0})
    assert server.call("GET", f"{path}/mine", token=node)[0] == 403, "the Pod is gone"


def test_node_reads_nothing_of_the_same_name_elsewhere(server: Server, node: str) -> None:
    server.call("POST", "/api/v1/namespaces/kube-system/secrets", {"metadata": {"name": "mine"}})
    for plural in ("secrets", "configmaps", "persistentvolumeclaims"):
        for watch in ("", "&watch=true"):
            path = f"/api/v1/{plural}?fieldSelector=metadata.name%3Dmine{watch}"
            assert server.call("GET", path, token=node)[0] == 403, path
    server.call("DELETE", "/api/v1/namespaces/kube-system/secrets/mine")


def test_node_sees_its_own_pods_only(server: Server, node: str) -> None:
    code, answer = server.call("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", token=node)
    # Other tests of this server bind Pods to n1 in namespaces of their own.
    names = [one["metadata"]["name"] for one in answer["items"] if one["metadata"]["namespace"] == "default"]
    assert (code, names) == (200, ["mine"])
    assert {one["spec"]["nodeName"] for one in answer["items"]} == {"n1"}
    for path in ("/api/v1/pods", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2", f"{DEFAULT}/pods/theirs"):
        assert server.call("GET", path, token=node)[0] == 403, path
    assert server.call("GET", f"{DEFAULT}/pods/mine", token=node)[0] == 200
    assert server.call("GET", "/api/v1/nodes/n1", token=node)[0] == 200


def merge(server: Server, token: str, path: str, body: dict) -> tuple[int, str]:
    code, answer = server.call("PATCH", path, body, "application/merge-patch+json", token=token)
    return code, answer.get("message", "")


def test_node_writes_of_itself_and_its_pods(server: Server, node: str) -> None:
    status = {"status": {"phase": "Running"}}
    assert merge(server, node, f"{DEFAULT}/pods/mine/status", status)[0] == 200
    code, text = merge(server, node, f"{DEFAULT}/pods/theirs/status", status)
    assert code == 403
    itself = "for pods with spec.nodeName set to itself"
    assert text == f'pods "theirs" is forbidden: node "n1" can only update pod status {itself}'
    assert merge(server, node, f"{DEFAULT}/pods/mine", {"metadata": {"labels": {"a": "b"}}})[0] == 403
    assert merge(server, node, "/api/v1/nodes/n1", {"metadata": {"labels": {"kubernetes.io/hostname": "n1"}}})[0] == 200
    code, text = merge(server, node, "/api/v1/nodes/n2", {"metadata": {"labels": {"a": "b"}}})
    assert (code, text) == (403, 'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"')
    for label in ("node-restriction.kubernetes.io/a", "node-role.kubernetes.io/control-plane"):
        assert merge(server, node, "/api/v1/nodes/n1", {"metadata": {"labels": {label: "x"}}})[0] == 403, label
    taint = {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    code, text = merge(server, node, "/api/v1/nodes/n1", taint)
    assert (code, text) == (403, 'nodes "n1" is forbidden: node "n1" is not allowed to modify taints')


def test_node_deletes_and_evicts_its_own_pods(server: Server, node: str) -> None:
    for path in (f"{DEFAULT}/pods/theirs", f"{DEFAULT}/pods/mine"):
        code, answer = server.call("DELETE", path, {"gracePeriodSeconds": 0}, token=node)
        assert code == (403 if "theirs" in path else 200), answer
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "theirs"}}
    assert server.call("POST", f"{DEFAULT}/pods/theirs/eviction", eviction, token=node)[0] == 403


def test_node_creates_mirror_pods_only(server: Server, node: str) -> None:
    code, answer = server.call("POST", f"{DEFAULT}/pods", pod("static", "n1"), token=node)
    assert code == 403
    assert 'node "n1" can only create mirror pods' in answer["message"]


def test_node_has_one_lease(server: Server, node: str) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
    for namespace, name, wanted in (
        ("kube-node-lease", "n1", 201),
        ("kube-node-lease", "n2", 403),
        ("default", "n1", 403),
    ):
        body = {"metadata": {"name": name}, "spec": {"holderIdentity": name}}
        assert server.call("POST", path.format(namespace), body, token=node)[0] == wanted, (namespace, name)
    assert server.call("GET", f"{path.format('kube-node-lease')}/n1", token=node)[0] == 200
    server.call("DELETE", f"{path.format('kube-node-lease')}/n1")


def test_node_has_tokens_for_its_pods(server: Server, node: str) -> None:
    path = f"{DEFAULT}/serviceaccounts/default/token"

    def ask(name: str, **change: str) -> int:
        uid = server.call("GET", f"{DEFAULT}/pods/{name}")[1]["metadata"]["uid"]
        reference = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid, **change}
        return server.call("POST", path, {"spec": {"boundObjectRef": reference}}, token=node)[0]

    server.until(lambda: server.call("GET", f"{DEFAULT}/serviceaccounts/default")[0] == 200)
    assert ask("mine") == 201
    assert ask("theirs") == 403
    assert ask("mine", uid="") == 403
    assert server.call("POST", path, {"spec": {}}, token=node)[0] == 403


def test_reviews_know_what_nodes_may(server: Server, node: str) -> None:
    attributes = {"verb": "get", "resource": "secrets", "namespace": "default", "name": "mine"}
    spec = {"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": attributes}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert server.call("POST", path, {"spec": spec})[1]["status"]["allowed"] is True
    attributes["name"] = "theirs"
    assert server.call("POST", path, {"spec": spec})[1]["status"]["allowed"] is False
