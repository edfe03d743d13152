# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods: their service accounts, their generations."""

import pytest

from ..conftest import Server

NAMESPACE = "/api/v1/namespaces/default"
PODS = f"{NAMESPACE}/pods"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"


def pod(name: str, **spec: object) -> dict:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


@pytest.mark.parametrize("field", ["serviceAccountName", "serviceAccount"])
def test_a_pod_needs_its_service_account(server: Server, field: str) -> None:
    code, status = server.call("POST", PODS, pod("unknown", **{field: "nobody"}))
    assert (code, status["reason"]) == (403, "Forbidden")
    why = 'error looking up service account default/nobody: serviceaccount "nobody" not found'
    assert status["message"] == f'pods "unknown" is forbidden: {why}'
    assert status["details"] == {"name": "unknown", "kind": "pods"}


def test_a_pod_gets_its_namespace_s_account_however_new_that_is(server: Server) -> None:
    for number in range(5):
        name = f"new-{number}"
        assert server.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})[0] == 201
        code, made = server.call("POST", f"/api/v1/namespaces/{name}/pods", pod("first"))
        assert (code, made.get("spec", {}).get("serviceAccountName")) == (201, "default"), made
    for number in range(5):
        server.call("DELETE", f"/api/v1/namespaces/new-{number}")


def test_a_namespace_gets_its_account_back(server: Server) -> None:
    server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "robbed"}})
    account = "/api/v1/namespaces/robbed/serviceaccounts/default"
    made = server.until(lambda: server.call("GET", account)[1].get("metadata"))
    assert server.call("DELETE", account)[0] == 200
    server.until(lambda: server.call("GET", account)[1].get("metadata", made)["uid"] != made["uid"])
    assert server.call("POST", "/api/v1/namespaces/robbed/pods", pod("one"))[0] == 201
    server.call("DELETE", "/api/v1/namespaces/robbed")


def test_pull_secrets_of_the_account(server: Server) -> None:
    account = {"metadata": {"name": "puller"}, "imagePullSecrets": [{"name": "registry"}]}
    assert server.call("POST", f"{NAMESPACE}/serviceaccounts", account)[0] == 201

    def secrets(**more: object) -> list[dict] | None:
        code, made = server.call("POST", f"{PODS}?dryRun=All", pod("pulled", serviceAccountName="puller", **more))
        assert code == 201
        return made["spec"].get("imagePullSecrets")

    assert secrets() == [{"name": "registry"}]
    assert secrets(imagePullSecrets=[{"name": "own"}]) == [{"name": "own"}]
    server.call("DELETE", f"{NAMESPACE}/serviceaccounts/puller")


def test_a_mirror_pod_has_no_account(server: Server) -> None:
    mirror = {"annotations": {"kubernetes.io/config.mirror": "x"}}
    body = pod("mirror", serviceAccountName="default")
    body["metadata"] |= mirror
    code, status = server.call("POST", f"{PODS}?dryRun=All", body)
    assert (code, "a mirror pod may not reference service accounts" in status["message"]) == (403, True)
    body = pod("mirror")
    body["metadata"] |= mirror
    code, made = server.call("POST", f"{PODS}?dryRun=All", body)
    assert (code, made["spec"].get("serviceAccountName")) == (201, None)


def test_the_generation_counts_changes_of_the_spec(server: Server) -> None:
    body = pod("counted", nodeName="n1")
    body["metadata"]["generation"] = 7
    code, made = server.call("POST", PODS, body)
    assert (code, made["metadata"]["generation"]) == (201, 1)
    path = f"{PODS}/counted"

    def patched(change: dict, subresource: str = "") -> int:
        code, obj = server.call("PATCH", f"{path}{subresource}", change, STRATEGIC)
        assert code == 200, obj
        return obj["metadata"]["generation"]

    assert patched({"metadata": {"labels": {"a": "b"}}}) == 1
    status = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}]}
    assert patched({"status": status}, "/status") == 1
    assert server.call("GET", path)[1]["status"]["observedGeneration"] == 1
    assert patched({"spec": {"containers": [{"name": "c", "image": "j"}]}}) == 2
    code, ending = server.call("DELETE", path)
    assert (code, ending["metadata"]["generation"]) == (200, 3)
    server.call("DELETE", f"{path}?gracePeriodSeconds=0")


def test_a_binding_is_no_change_of_the_user_s(server: Server) -> None:
    assert server.call("POST", PODS, pod("bound"))[0] == 201
    target = {"target": {"kind": "Node", "name": "n1"}}
    assert server.call("POST", f"{PODS}/bound/binding", target)[0] == 201
    found = server.call("GET", f"{PODS}/bound")[1]
    assert found["metadata"]["generation"] == 1
    server.call("DELETE", f"{PODS}/bound?gracePeriodSeconds=0")


def test_a_directive_in_a_list_that_is_replaced_is_a_field_that_nothing_has(server: Server) -> None:
    assert server.call("POST", PODS, pod("directed"))[0] == 201
    for directive in ("bogus", "replace"):
        patch = {"spec": {"tolerations": [{"$patch": directive}]}}
        code, status = server.call("PATCH", f"{PODS}/directed", patch, STRATEGIC)
        assert (code, status["reason"]) == (422, "Invalid"), directive
    patch = {"spec": {"containers": [{"$patch": "bogus", "name": "c"}]}}
    code, status = server.call("PATCH", f"{PODS}/directed", patch, STRATEGIC)
    assert (code // 100 > 3, "unknown patch type: bogus" in status["message"]) == (True, True)
    patch["spec"]["containers"].append({"$patch": "replace"})
    assert "unknown patch type" in server.call("PATCH", f"{PODS}/directed", patch, STRATEGIC)[1]["message"]
    server.call("DELETE", f"{PODS}/directed?gracePeriodSeconds=0")
