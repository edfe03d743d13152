# SPDX-License-Identifier: GPL-3.0-or-later
"""ResourceQuotas, LimitRanges, PodDisruptionBudgets: what Pods and others are held against."""

import itertools
import threading
from collections.abc import Iterator

import pytest

from ..conftest import Server, widget

_numbers = itertools.count()


@pytest.fixture
def namespace(server: Server) -> Iterator[str]:
    name = f"limited{next(_numbers)}"
    assert server.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})[0] == 201
    yield f"/api/v1/namespaces/{name}"
    server.call("DELETE", f"/api/v1/namespaces/{name}")


def pod(name: str, requests: dict | None = None, limits: dict | None = None, **spec: object) -> dict:
    resources = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    container = {"name": "c", "image": "i", "resources": resources}
    return {"metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"containers": [container], **spec}}


def make_quota(server: Server, namespace: str, **spec: object) -> None:
    body = {"metadata": {"name": "q"}, "spec": spec}
    assert server.call("POST", f"{namespace}/resourcequotas", body)[0] == 201


def used(server: Server, namespace: str) -> dict:
    return server.call("GET", f"{namespace}/resourcequotas/q")[1].get("status", {}).get("used", {})


def test_quota_is_counted_and_kept(server: Server, namespace: str) -> None:
    make_quota(server, namespace, hard={"pods": "2", "requests.memory": "1Gi", "count/widgets.example.io": "1"})
    nothing = {"pods": "0", "requests.memory": "0", "count/widgets.example.io": "0"}
    server.until(lambda: used(server, namespace) == nothing)
    assert server.call("POST", f"{namespace}/pods", pod("a", {"memory": "768Mi"}))[0] == 201
    server.until(lambda: used(server, namespace).get("requests.memory") == "768Mi")
    code, answer = server.call("POST", f"{namespace}/pods", pod("b", {"memory": "512Mi"}))
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert answer["message"] == (
        'pods "b" is forbidden: exceeded quota: q, requested: requests.memory=512Mi, used: requests.memory=768Mi, '
        "limited: requests.memory=1Gi"
    )
    code, answer = server.call("POST", f"{namespace}/pods", pod("b"))
    assert answer["message"] == 'pods "b" is forbidden: failed quota: q: must specify requests.memory for: c'
    server.call("DELETE", f"{namespace}/pods/a")
    server.until(lambda: used(server, namespace)["pods"] == "0")
    assert server.call("POST", f"{namespace}/pods", pod("b", {"memory": "512Mi"}))[0] == 201
    path = f"{namespace.replace('/api/v1', '/apis/example.io/v1')}/widgets"
    assert server.call("POST", path, {**widget("one"), "metadata": {"name": "one"}})[0] == 201
    code, answer = server.call("POST", path, {**widget("two"), "metadata": {"name": "two"}})
    assert code == 403
    assert "exceeded quota: q, requested: count/widgets.example.io=1, used: count/widgets" in answer["message"]


def test_quota_holds_against_many_at_once(server: Server, namespace: str) -> None:
    make_quota(server, namespace, hard={"pods": "3"})
    codes: list[int] = []

    def create(number: int) -> None:
        codes.append(server.call("POST", f"{namespace}/pods", pod(f"p{number}"))[0])

    threads = [threading.Thread(target=create, args=(number,)) for number in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(codes) == [201] * 3 + [403] * 9


def test_quota_of_a_scope(server: Server, namespace: str) -> None:
    make_quota(server, namespace, hard={"pods": "0"}, scopes=["BestEffort"])
    assert server.call("POST", f"{namespace}/pods", pod("best"))[0] == 403
    assert server.call("POST", f"{namespace}/pods", pod("burst", {"cpu": "1"}))[0] == 201


def test_quota_of_storage(server: Server, namespace: str) -> None:
    make_quota(server, namespace, hard={"requests.storage": "3Gi"})

    def claim(name: str, size: str) -> dict:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        return {"metadata": {"name": name}, "spec": spec}

    assert server.call("POST", f"{namespace}/persistentvolumeclaims", claim("a", "2Gi"))[0] == 201
    code, answer = server.call("POST", f"{namespace}/persistentvolumeclaims", claim("b", "2Gi"))
    assert code == 403
    text = "requested: requests.storage=2Gi, used: requests.storage=2Gi, limited: requests.storage=3Gi"
    assert text in answer["message"]


def limit(server: Server, namespace: str, **item: object) -> None:
    body = {"metadata": {"name": "l"}, "spec": {"limits": [item]}}
    assert server.call("POST", f"{namespace}/limitranges", body)[0] == 201


def test_limit_range_gives_defaults(server: Server, namespace: str) -> None:
    limit(server, namespace, type="Container", default={"memory": "512Mi"}, defaultRequest={"memory": "256Mi"})
    made = server.call("POST", f"{namespace}/pods", pod("a"))[1]
    resources = made["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"memory": "512Mi"}, "requests": {"memory": "256Mi"}}
    assert made["status"]["qosClass"] == "Burstable"
    note = "LimitRanger plugin set: memory request for container c; memory limit for container c"
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == note
    made = server.call("POST", f"{namespace}/pods", pod("b", {"memory": "1Mi"}, {"memory": "2Mi"}))[1]
    assert made["spec"]["containers"][0]["resources"]["limits"] == {"memory": "2Mi"}


@pytest.mark.parametrize(
    ("item", "requests", "limits", "message"),
    [
        (
            {"min": {"cpu": "1"}},
            {"cpu": "500m"},
            {"cpu": "2"},
            "minimum cpu usage per Container is 1, but request is 500m",
        ),
        ({"max": {"cpu": "1"}}, {"cpu": "1"}, {"cpu": "2"}, "maximum cpu usage per Container is 1, but limit is 2"),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"cpu": "1"},
            {"cpu": "3"},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
        ),
        (
            {"type": "Pod", "max": {"memory": "1Gi"}},
            None,
            None,
            "maximum memory usage per Pod is 1Gi.  No limit is specified",
        ),
    ],
)
def test_limit_range_refuses(server: Server, namespace: str, item, requests, limits, message: str) -> None:
    limit(server, namespace, **{"type": "Container", **item})
    code, answer = server.call("POST", f"{namespace}/pods", pod("a", requests, limits))
    assert (code, answer["message"]) == (403, f'pods "a" is forbidden: {message}')


def test_limit_range_of_claims(server: Server, namespace: str) -> None:
    limit(server, namespace, type="PersistentVolumeClaim", min={"storage": "1Gi"}, max={"storage": "5Gi"})
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    code, answer = server.call("POST", f"{namespace}/persistentvolumeclaims", {"metadata": {"name": "a"}, "spec": spec})
    text = "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 10Gi"
    assert (code, answer["message"]) == (403, f'persistentvolumeclaims "a" is forbidden: {text}')


def run(server: Server, namespace: str, name: str, ready: bool = True) -> None:
    assert server.call("POST", f"{namespace}/pods", pod(name, nodeName="n1"))[0] == 201
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    status = {"status": {"phase": "Running", "conditions": [condition]}}
    code, _ = server.call("PATCH", f"{namespace}/pods/{name}/status", status, "application/merge-patch+json")
    assert code == 200


def evict(server: Server, namespace: str, name: str, query: str = "") -> tuple[int, dict]:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    return server.call("POST", f"{namespace}/pods/{name}/eviction{query}", body)


def test_budget_counts_and_is_respected(server: Server, namespace: str) -> None:
    for name in ("a", "b", "c"):
        run(server, namespace, name)
    path = f"{namespace.replace('/api/v1', '/apis/policy/v1')}/poddisruptionbudgets"
    spec = {"minAvailable": 2, "selector": {"matchLabels": {"app": "x"}}}
    assert server.call("POST", path, {"metadata": {"name": "b"}, "spec": spec})[0] == 201

    def status() -> dict:
        return server.call("GET", f"{path}/b")[1]["status"]

    server.until(lambda: status().get("disruptionsAllowed") == 1)
    found = status()
    assert (found["expectedPods"], found["currentHealthy"], found["desiredHealthy"]) == (3, 3, 2)
    assert found["conditions"][0]["reason"] == "SufficientPods"
    assert evict(server, namespace, "a", "?dryRun=All")[0] == 201
    assert evict(server, namespace, "a")[0] == 201
    code, answer = evict(server, namespace, "b")
    assert (code, answer["reason"]) == (429, "TooManyRequests")
    assert answer["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    cause = answer["details"]["causes"][0]
    assert cause["reason"] == "DisruptionBudget"
    assert cause["message"] == "The disruption budget b needs 2 healthy pods and has 2 currently"
    assert server.call("GET", f"{namespace}/pods/b")[1]["metadata"].get("deletionTimestamp") is None
    run(server, namespace, "d", ready=False)
    assert evict(server, namespace, "d")[0] == 201, "what isn't healthy may go while the budget is met"
    server.call("DELETE", f"{path}/b")
    assert evict(server, namespace, "b")[0] == 201


@pytest.mark.parametrize(("field", "value", "allowed"), [("maxUnavailable", "50%", 2), ("minAvailable", "100%", 0)])
def test_budget_in_percent(server: Server, namespace: str, field: str, value: str, allowed: int) -> None:
    for name in ("a", "b", "c"):
        run(server, namespace, name)
    path = f"{namespace.replace('/api/v1', '/apis/policy/v1')}/poddisruptionbudgets"
    spec = {field: value, "selector": {"matchLabels": {"app": "x"}}}
    assert server.call("POST", path, {"metadata": {"name": "b"}, "spec": spec})[0] == 201
    server.until(lambda: server.call("GET", f"{path}/b")[1]["status"].get("disruptionsAllowed") == allowed)
