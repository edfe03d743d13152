# SPDX-License-Identifier: GPL-3.0-or-later
"""What leads to a Service's Pods: pure functions, and the controller beside a real API server."""

import json
import os
import subprocess
import sys

import pytest
from apiserver.conftest import Server

from turtles.standalone.endpoints import mirrored, slices, subsets


def service(name="web", selector=None, ports=None, **spec):
    """Return a Service."""
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
        "spec": {
            "selector": selector or {"app": "web"},
            "ports": ports or [{"port": 80, "targetPort": 8080}],
            "clusterIP": "10.96.1.1",
            **spec,
        },
    }


def pod(name, ip, ready=True, ports=(), **metadata):
    """Return a Pod."""
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": {"app": "web"}, **metadata},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": list(ports)}]},
        "status": {
            "podIP": ip,
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def test_ready_and_other_addresses():
    found = subsets(service(), [pod("b", "10.0.0.10"), pod("a", "10.0.0.9"), pod("c", "10.0.0.3", ready=False)])
    (subset,) = found
    assert [address["ip"] for address in subset["addresses"]] == ["10.0.0.9", "10.0.0.10"]
    assert [address["ip"] for address in subset["notReadyAddresses"]] == ["10.0.0.3"]
    assert subset["ports"] == [{"port": 8080, "protocol": "TCP"}]
    assert subset["addresses"][0]["targetRef"] == {
        "kind": "Pod",
        "namespace": "default",
        "name": "a",
        "uid": "uid-a",
    }


def test_published_though_not_ready():
    open_to_all = service(publishNotReadyAddresses=True)
    (subset,) = subsets(open_to_all, [pod("a", "10.0.0.9", ready=False)])
    assert "notReadyAddresses" not in subset
    (one,) = slices(open_to_all, [pod("a", "10.0.0.9", ready=False)])
    assert one["endpoints"][0]["conditions"] == {"ready": True, "serving": False, "terminating": False}


def dual(name, *addresses):
    """Return a Pod with addresses of both families."""
    found = pod(name, addresses[0])
    found["status"]["podIPs"] = [{"ip": address} for address in addresses]
    return found


@pytest.mark.parametrize(
    ("families", "in_endpoints", "in_slices"),
    [
        (["IPv4"], ["10.0.0.1", "10.0.0.2"], {"IPv4": ["10.0.0.1", "10.0.0.2"]}),
        (["IPv6"], ["fd00::1"], {"IPv6": ["fd00::1"]}),
        (["IPv6", "IPv4"], ["fd00::1"], {"IPv4": ["10.0.0.1", "10.0.0.2"], "IPv6": ["fd00::1"]}),
    ],
)
def test_addresses_of_the_service_s_families(families, in_endpoints, in_slices):
    pods = [dual("a", "10.0.0.1", "fd00::1"), dual("b", "10.0.0.2")]
    (subset,) = subsets(service(ipFamilies=families), pods)
    assert [address["ip"] for address in subset["addresses"]] == in_endpoints
    found = {
        one["addressType"]: [endpoint["addresses"][0] for endpoint in one["endpoints"]]
        for one in slices(service(ipFamilies=families), pods)
    }
    assert found == in_slices


def test_a_service_of_the_other_family_without_pods():
    assert [one["addressType"] for one in slices(service(ipFamilies=["IPv6"]), [])] == ["IPv6"]


def test_named_ports_may_differ_from_pod_to_pod():
    named = service(ports=[{"name": "http", "port": 80, "targetPort": "web"}])
    pods = [pod(f"p{n}", f"10.0.0.{n}", ports=[{"name": "web", "containerPort": 8000 + n}]) for n in (1, 2)]
    pods.append(pod("without", "10.0.0.3"))
    assert [subset["ports"][0]["port"] for subset in subsets(named, pods)] == [8001, 8002]
    assert {tuple(port["port"] for port in one["ports"]) for one in slices(named, pods)} == {(8001,), (8002,), ()}


def test_a_pod_that_leaves_still_serves():
    (one,) = slices(service(), [pod("a", "10.0.0.9", deletionTimestamp="2026-01-01T00:00:00Z")])
    assert one["endpoints"][0]["conditions"] == {"ready": False, "serving": True, "terminating": True}
    assert subsets(service(), [pod("a", "10.0.0.9", deletionTimestamp="2026-01-01T00:00:00Z")]) == []


def test_ended_pods_are_none():
    ended = pod("a", "10.0.0.9")
    ended["status"]["phase"] = "Succeeded"
    assert subsets(service(), [ended]) == []
    assert [one["endpoints"] for one in slices(service(), [ended])] == [[]]


def test_a_slice_has_a_hundred_endpoints_at_most():
    many = [pod(f"p{n}", f"10.0.{n // 200}.{n % 200 + 1}") for n in range(250)]
    found = slices(service(), many)
    assert [len(one["endpoints"]) for one in found] == [100, 100, 50]
    assert len({one["metadata"]["name"] for one in found}) == 3


def test_hand_made_endpoints_are_mirrored():
    endpoints = {
        "metadata": {"name": "db", "namespace": "default", "uid": "u"},
        "subsets": [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 5432, "name": "sql"}]}],
    }
    (one,) = mirrored(service("db"), endpoints)
    assert one["endpoints"] == [{"addresses": ["192.0.2.9"], "conditions": {"ready": True}}]
    assert one["ports"] == [{"name": "sql", "port": 5432, "protocol": "TCP"}]
    assert one["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"].startswith("endpointslicemirroring")
    endpoints["metadata"]["labels"] = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    assert mirrored(service("db"), endpoints) == []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """An API server and a controller manager."""
    server = Server(tmp_path_factory.mktemp("endpoints")).start()
    command = [
        sys.executable,
        "-m",
        "turtles.standalone.main",
        "controller-manager",
        "--kubeconfig",
        str(server.config / "controller-manager.kubeconfig"),
        "--volumes-dir",
        str(server.root / "volumes"),
        "--external-address=192.0.2.0/31",
    ]
    with open(server.root / "manager.log", "wb") as output:
        manager = subprocess.Popen(command, stdout=output, stderr=output, env=dict(os.environ))
    yield server
    manager.terminate()
    assert manager.wait(60) == 0
    server.stop()


def created(cluster, path, body):
    """Create an object."""
    code, answer = cluster.call("POST", path, body)
    assert code == 201, answer
    return answer


def addresses(cluster, name):
    """Return what a Service's Endpoints and its slices say."""
    _, endpoints = cluster.call("GET", f"/api/v1/namespaces/default/endpoints/{name}")
    good = [address["ip"] for subset in endpoints.get("subsets") or () for address in subset.get("addresses") or ()]
    _, found = cluster.call(
        "GET",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        f"?labelSelector=kubernetes.io/service-name%3D{name}",
    )
    ready = [
        address
        for one in found["items"]
        for entry in one["endpoints"] or ()
        if entry["conditions"]["ready"]
        for address in entry["addresses"]
    ]
    return good, ready


def test_the_controller_follows_pods_and_services(cluster):
    core = "/api/v1/namespaces/default"
    made = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
    created(cluster, f"{core}/services", {"apiVersion": "v1", "kind": "Service", **made})
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p1", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "x:1"}]},
    }
    created(cluster, f"{core}/pods", body)
    status = pod("p1", "10.0.0.7")["status"]
    merge = "application/merge-patch+json"
    assert cluster.call("PATCH", f"{core}/pods/p1/status", {"status": status}, merge)[0] == 200
    cluster.until(lambda: addresses(cluster, "web") == (["10.0.0.7"], ["10.0.0.7"]), 30)
    status["conditions"][0]["status"] = "False"
    cluster.call("PATCH", f"{core}/pods/p1/status", {"status": status}, merge)
    cluster.until(lambda: addresses(cluster, "web") == ([], []), 30)
    assert cluster.call("DELETE", f"{core}/services/web")[0] == 200
    cluster.until(lambda: cluster.call("GET", f"{core}/endpoints/web")[0] == 404, 30)
    cluster.until(
        lambda: (
            "web-"
            not in json.dumps(cluster.call("GET", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices")[1])
        ),
        30,
    )


def test_the_controller_leaves_hand_made_endpoints_alone(cluster):
    core = "/api/v1/namespaces/default"
    endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "db"},
        "subsets": [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 5432}]}],
    }
    # Before its Service, as some tools do it.
    created(cluster, f"{core}/endpoints", endpoints)
    created(
        cluster,
        f"{core}/services",
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {"ports": [{"port": 5432}]}},
    )
    cluster.until(lambda: addresses(cluster, "db") == (["192.0.2.9"], ["192.0.2.9"]), 30)
    assert cluster.call("DELETE", f"{core}/services/db")[0] == 200
    cluster.until(lambda: cluster.call("GET", f"{core}/endpoints/db")[0] == 404, 30)


def balanced(name, port, **spec):
    """Return a Service of type LoadBalancer."""
    spec = {"type": "LoadBalancer", "ports": [{"port": port}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def outside(cluster, name):
    """Return the addresses that a Service's load balancer has."""
    _, found = cluster.call("GET", f"/api/v1/namespaces/default/services/{name}")
    return [entry["ip"] for entry in found["status"]["loadBalancer"].get("ingress") or ()]


def test_load_balancers_get_addresses(cluster):
    core = "/api/v1/namespaces/default"
    for name, expected in (("one", "192.0.2.0"), ("two", "192.0.2.1")):
        created(cluster, f"{core}/services", balanced(name, 80))
        cluster.until(lambda name=name, expected=expected: outside(cluster, name) == [expected], 30)
    created(cluster, f"{core}/services", balanced("three", 80))
    created(cluster, f"{core}/services", balanced("others", 80, loadBalancerClass="example.org/metal"))

    def told():
        _, events = cluster.call("GET", f"{core}/events?fieldSelector=involvedObject.name%3Dthree")
        return [event["message"] for event in events["items"] if event["reason"] == "SyncLoadBalancerFailed"]

    cluster.until(told, 30)
    assert told()[0].startswith("other Services have 80/TCP at all of turtles_external_addresses")
    # What one gives back, another one gets
    merge = "application/merge-patch+json"
    assert cluster.call("PATCH", f"{core}/services/one", {"spec": {"type": "ClusterIP"}}, merge)[0] == 200
    cluster.until(lambda: outside(cluster, "three") == ["192.0.2.0"], 30)
    assert outside(cluster, "one") == outside(cluster, "others") == []
    for name in ("one", "two", "three", "others"):
        assert cluster.call("DELETE", f"{core}/services/{name}")[0] == 200
