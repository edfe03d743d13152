# SPDX-License-Identifier: GPL-3.0-or-later
"""What objects of built-in kinds are refused for; the causes are those of a real kube-apiserver."""

import pytest

from ..conftest import Server

NAMESPACE = "/api/v1/namespaces/default"
MERGE = "application/merge-patch+json"


def container(**fields: object) -> dict:
    return {"name": "a", "image": "x", **fields}


def refused(server: Server, path: str, body: dict, method: str = "POST", media: str = "application/json") -> list[str]:
    code, status = server.call(method, f"{path}?dryRun=All", body, media)
    assert code == 422, status
    return [f"{one['field']}: {one['message']}" for one in status["details"]["causes"]]


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ({"containers": [container(), container()]}, 'spec.containers[1].name: Duplicate value: "a"'),
        ({"containers": [{"name": "a"}]}, "spec.containers[0].image: Required value"),
        ({"containers": [container(volumeMounts=[{"name": "q", "mountPath": "/x"}])]},
         'spec.containers[0].volumeMounts[0].name: Not found: "q"'),
        ({"containers": [container(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})]},
         'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'),
        ({"containers": [container(ports=[{"containerPort": 0}])]},
         "spec.containers[0].ports[0].containerPort: Required value"),
        ({"containers": [container(imagePullPolicy="No")]}, "spec.containers[0].imagePullPolicy: Unsupported value"),
        ({"containers": [container(env=[{"name": "1=2"}])]}, "spec.containers[0].env[0].name: Invalid value"),
        ({"containers": [container(livenessProbe={})]},
         "spec.containers[0].livenessProbe: Required value: must specify a handler type"),
        ({"containers": [container(livenessProbe={"tcpSocket": {"port": "²"}})]},
         'spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: "²": must contain only alpha-numeric'),
        ({"containers": [container(readinessProbe={"httpGet": {"port": "80"}})]},
         'spec.containers[0].readinessProbe.httpGet.port: Invalid value: "80": must contain at least one letter'),
        ({"containers": [container(livenessProbe={"exec": {"command": []}})]},
         "spec.containers[0].livenessProbe.exec.command: Required value"),
        ({"containers": [container(livenessProbe={"httpGet": {
            "port": 1, "httpHeaders": [{"name": "a:b", "value": ""}]}})]},
         'spec.containers[0].livenessProbe.httpGet.httpHeaders[0].name: Invalid value: "a:b": a valid HTTP header'),
        ({"containers": [container()], "restartPolicy": "Sometimes"}, "spec.restartPolicy: Unsupported value"),
        ({"containers": [container()], "dnsPolicy": "X"}, "spec.dnsPolicy: Unsupported value"),
        ({"containers": [container()], "volumes": [{"name": "a"}, {"name": "a"}]},
         'spec.volumes[1].name: Duplicate value: "a"'),
        ({"containers": [container()], "volumes": [{"name": "a", "emptyDir": {}, "secret": {"secretName": "x"}}]},
         "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type"),
        ({"containers": [container()], "volumes": [{"name": "a", "secret": {}}]},
         "spec.volumes[0].secret.secretName: Required value"),
        ({"containers": [container()], "tolerations": [{"key": "a", "operator": "X"}]},
         "spec.tolerations[0].operator: Unsupported value"),
        ({"containers": [container()], "activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds: Invalid value: 0"),
        ({"containers": [container()], "securityContext": {"seccompProfile": {"type": "Strict"}}},
         'spec.securityContext.seccompProfile.type: Unsupported value: "Strict": supported values: "Localhost", '
         '"RuntimeDefault", "Unconfined"'),
        ({"containers": [container(securityContext={"seccompProfile": {"type": ""}})]},
         "spec.containers[0].securityContext.seccompProfile.type: Required value: type is required when seccompProfile "
         "is set"),
        ({"containers": [container(securityContext={"seccompProfile": {"type": "Localhost"}})]},
         "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp "
         "type is Localhost"),
        ({"containers": [container()], "securityContext": {
            "seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}}},
         "spec.securityContext.seccompProfile.localhostProfile: Invalid value"),
        ({"containers": [container()], "securityContext": {
            "seccompProfile": {"type": "Localhost", "localhostProfile": "/x"}}},
         'spec.securityContext.seccompProfile.localhostProfile: Invalid value: "/x": must be a relative path'),
        ({"containers": [container()], "securityContext": {
            "seccompProfile": {"type": "Localhost", "localhostProfile": "a/../../x"}}},
         'spec.securityContext.seccompProfile.localhostProfile: Invalid value: "a/../../x": must not contain \'..\''),
    ],
)  # fmt: skip
def test_pods(server: Server, spec: dict, cause: str) -> None:
    causes = refused(server, f"{NAMESPACE}/pods", {"metadata": {"name": "wrong"}, "spec": spec})
    assert [one for one in causes if one.startswith(cause)], causes


def test_what_stays_of_a_pod(server: Server) -> None:
    spec = {"containers": [container()], "tolerations": [{"key": "k", "operator": "Exists"}]}
    assert server.call("POST", f"{NAMESPACE}/pods", {"metadata": {"name": "fixed"}, "spec": spec})[0] == 201
    path = f"{NAMESPACE}/pods/fixed"
    for spec, cause in (
        ({"nodeName": "n"}, "spec: Forbidden: pod updates may not change fields other than"),
        ({"containers": [container(), container(name="b")]},
         "spec.containers: Forbidden: pod updates may not add or remove containers"),
        ({"tolerations": []}, "spec.tolerations: Forbidden: existing toleration can not be modified"),
    ):  # fmt: skip
        assert refused(server, path, {"spec": spec}, "PATCH", MERGE)[0].startswith(cause)
    change = [{"op": "replace", "path": "/spec/containers/0/image", "value": "y"}]
    code, obj = server.call("PATCH", path, change, "application/json-patch+json")
    assert (code, obj["spec"]["containers"][0]["image"]) == (200, "y")


@pytest.mark.parametrize(
    ("path", "body", "cause"),
    [
        ("secrets", {"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}, "data[tls.key]: Required value"),
        ("secrets", {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "YQ=="}},
         'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>"'),
        ("configmaps", {"data": {"a": "x"}, "binaryData": {"a": "YQ=="}},
         'data[a]: Invalid value: "a": duplicate of key present in binaryData'),
        ("persistentvolumeclaims", {"spec": {"accessModes": ["X"], "resources": {"requests": {"storage": "1"}}}},
         'spec.accessModes: Unsupported value: "X"'),
        ("persistentvolumeclaims",
         {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "0"}}}},
         'spec.resources[storage]: Invalid value: "0": must be greater than zero'),
        ("limitranges", {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}},
         "spec.limits[0].min[cpu]: Invalid value"),
        ("resourcequotas", {"spec": {"hard": {"pods": "1.5"}}}, "spec.hard[pods]: Invalid value"),
        ("endpoints", {"subsets": [{}]}, "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"),
    ],
)  # fmt: skip
def test_others(server: Server, path: str, body: dict, cause: str) -> None:
    causes = refused(server, f"{NAMESPACE}/{path}", {"metadata": {"name": "wrong"}, **body})
    assert [one for one in causes if one.startswith(cause)], causes


@pytest.mark.parametrize(
    ("path", "body", "cause"),
    [
        ("/apis/scheduling.k8s.io/v1/priorityclasses", {"value": 2_000_000_000},
         "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"),
        ("/apis/storage.k8s.io/v1/storageclasses", {}, "provisioner: Required value"),
        ("/api/v1/persistentvolumes", {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}},
         "spec: Required value: must specify a volume type"),
        ("/apis/coordination.k8s.io/v1/namespaces/default/leases", {"spec": {"leaseDurationSeconds": 0}},
         "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"),
        ("/apis/policy/v1/namespaces/default/poddisruptionbudgets", {"spec": {"minAvailable": 1, "maxUnavailable": 1}},
         "spec: Invalid value"),
    ],
)  # fmt: skip
def test_other_groups(server: Server, path: str, body: dict, cause: str) -> None:
    causes = refused(server, path, {"metadata": {"name": "wrong"}, **body})
    assert [one for one in causes if one.startswith(cause)], causes


@pytest.mark.parametrize("path", ["secrets", "configmaps"])
def test_immutable_means_it(server: Server, path: str) -> None:
    body = {"metadata": {"name": "frozen"}, "immutable": True, "data": {"a": "YQ=="}}
    assert server.call("POST", f"{NAMESPACE}/{path}", body)[0] == 201
    for change, field in (({"data": {"a": "Yg=="}}, "data"), ({"immutable": False}, "immutable")):
        causes = refused(server, f"{NAMESPACE}/{path}/frozen", change, "PATCH", MERGE)
        assert causes == [f"{field}: Forbidden: field is immutable when `immutable` is set"]


def test_tables_have_the_columns_of_kubernetes(server: Server) -> None:
    quota = {"metadata": {"name": "columns"}, "spec": {"hard": {"pods": "2"}}}
    server.call("POST", f"{NAMESPACE}/resourcequotas", quota)
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    for path, columns in (
        (f"{NAMESPACE}/resourcequotas", ["Name", "Request", "Limit", "Age"]),
        (f"{NAMESPACE}/limitranges", ["Name", "Created At"]),
        ("/apis/policy/v1/poddisruptionbudgets",
         ["Name", "Min Available", "Max Unavailable", "Allowed Disruptions", "Age"]),
        ("/apis/discovery.k8s.io/v1/endpointslices", ["Name", "AddressType", "Ports", "Endpoints", "Age"]),
    ):  # fmt: skip
        code, table = server.call("GET", path, headers=accept)
        assert (code, [one["name"] for one in table["columnDefinitions"]]) == (200, columns)
    server.call("DELETE", f"{NAMESPACE}/resourcequotas/columns")


def test_a_load_balancer_has_addresses_others_have_not(server: Server) -> None:
    path = f"{NAMESPACE}/services/addressed"
    body = {"metadata": {"name": "addressed"}, "spec": {"ports": [{"port": 80}]}}
    assert server.call("POST", f"{NAMESPACE}/services", body)[0] == 201
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}
    text = 'status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is "LoadBalancer"'
    assert refused(server, f"{path}/status", status, "PATCH", MERGE) == [text]
    assert server.call("PATCH", path, {"spec": {"type": "LoadBalancer"}}, MERGE)[0] == 200
    assert server.call("PATCH", f"{path}/status", status, MERGE)[0] == 200
    wrong = {"status": {"loadBalancer": {"ingress": [{"ip": "x"}, {"hostname": "192.0.2.7"}]}}}
    assert refused(server, f"{path}/status", wrong, "PATCH", MERGE) == [
        'status.loadBalancer.ingress[0].ip: Invalid value: "x": must be a valid IP address, '
        "(e.g. 10.9.8.7 or 2001:db8::ffff)",
        'status.loadBalancer.ingress[1].hostname: Invalid value: "192.0.2.7": must be a DNS name, not an IP address',
    ]
    server.call("DELETE", path)


def test_generation_of_pods_counts_what_changes_their_spec(server: Server) -> None:
    path = f"{NAMESPACE}/pods/counted"
    body = {"metadata": {"name": "counted"}, "spec": {"containers": [container()], "nodeName": "n1"}}
    code, pod = server.call("POST", f"{NAMESPACE}/pods", body)
    assert (code, pod["metadata"]["generation"]) == (201, 1)
    for change, below, generation in (
        ({"metadata": {"labels": {"a": "b"}}}, "", 1),
        ({"status": {"phase": "Running"}}, "/status", 1),
        ({"spec": {"activeDeadlineSeconds": 60}}, "", 2),
    ):
        code, pod = server.call("PATCH", path + below, change, MERGE)
        assert (code, pod["metadata"]["generation"]) == (200, generation)
    assert server.call("DELETE", path)[1]["metadata"]["generation"] == 3
    server.call("DELETE", path, {"gracePeriodSeconds": 0})


def test_claims_grow_once_they_are_bound(server: Server) -> None:
    path = f"{NAMESPACE}/persistentvolumeclaims/growing"
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "x"}
    body = {"metadata": {"name": "growing"}, "spec": spec}
    assert server.call("POST", f"{NAMESPACE}/persistentvolumeclaims", body)[0] == 201
    larger = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    code, status = server.call("PATCH", path, larger, MERGE)
    assert (code, status["reason"]) == (403, "Forbidden")
    assert "Only bound persistent volume claims can be expanded" in status["message"]
    assert server.call("PATCH", f"{path}/status", {"status": {"phase": "Bound"}}, MERGE)[0] == 200
    assert server.call("PATCH", path, larger, MERGE)[0] == 200
    server.call("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
    server.call("DELETE", path)


def test_a_volume_says_since_when_it_has_its_phase(server: Server) -> None:
    path = "/api/v1/persistentvolumes/timed"
    volume = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}
    code, made = server.call("POST", "/api/v1/persistentvolumes", {"metadata": {"name": "timed"}, "spec": volume})
    assert code == 201
    assert made["status"]["lastPhaseTransitionTime"] == made["metadata"]["creationTimestamp"]
    given = {"status": {"phase": "Available", "lastPhaseTransitionTime": "2026-01-01T00:00:00Z"}}
    assert server.call("PATCH", f"{path}/status", given, MERGE)[1]["status"] == given["status"]
    _, bound = server.call("PATCH", f"{path}/status", {"status": {"phase": "Bound"}}, MERGE)
    assert bound["status"]["lastPhaseTransitionTime"] >= made["status"]["lastPhaseTransitionTime"]
    server.call("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
    server.call("DELETE", path)
