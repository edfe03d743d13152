# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kinds a PUT makes when they aren't there, and which it changes without their resourceVersion.

Source: AllowCreateOnUpdate and AllowUnconditionalUpdate of Kubernetes' strategies.
"""

import pytest

from ..conftest import WIDGET_PATH, Server, widget

MERGE = "application/merge-patch+json"
NAMESPACE = "/api/v1/namespaces/default"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLE = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}}
POD = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
CLAIM = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}}
VOLUME = {"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1"}, "hostPath": {"path": "/x"}}}
EVENT = {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}}
SCHEMA = {"openAPIV3Schema": {"type": "object"}}
DEFINITION = {
    "spec": {
        "group": "updates.example.io",
        "scope": "Cluster",
        "names": {"plural": "puts", "kind": "Put"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": SCHEMA}],
    }
}
SERVICE = {"spec": {"group": "put.example.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
           "service": {"namespace": "default", "name": "put"}}}  # fmt: skip
#: Path, an object without its name, whether a PUT makes it, whether one changes it without version.
KINDS = {
    "Namespace": ("/api/v1/namespaces", {}, False, True),
    "Node": ("/api/v1/nodes", {}, False, True),
    "Pod": (f"{NAMESPACE}/pods", POD, False, True),
    "Event": (f"{NAMESPACE}/events", EVENT, True, True),
    "Secret": (f"{NAMESPACE}/secrets", {}, False, True),
    "ConfigMap": (f"{NAMESPACE}/configmaps", {}, False, True),
    "ServiceAccount": (f"{NAMESPACE}/serviceaccounts", {}, False, True),
    "Service": (f"{NAMESPACE}/services", {"spec": {"ports": [{"port": 80}]}}, True, True),
    "Endpoints": (f"{NAMESPACE}/endpoints", {}, True, True),
    "PersistentVolume": ("/api/v1/persistentvolumes", VOLUME, False, True),
    "PersistentVolumeClaim": (f"{NAMESPACE}/persistentvolumeclaims", CLAIM, False, True),
    "ResourceQuota": (f"{NAMESPACE}/resourcequotas", {"spec": {"hard": {"pods": "9"}}}, False, True),
    "LimitRange": (f"{NAMESPACE}/limitranges", {"spec": {"limits": []}}, True, True),
    "EndpointSlice": (
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        {"addressType": "IPv4", "endpoints": []},
        False,
        True,
    ),
    "StorageClass": ("/apis/storage.k8s.io/v1/storageclasses", {"provisioner": "example.io/x"}, False, True),
    "Lease": ("/apis/coordination.k8s.io/v1/namespaces/default/leases", {"spec": {}}, True, False),
    "PriorityClass": ("/apis/scheduling.k8s.io/v1/priorityclasses", {"value": 1}, False, True),
    "PodDisruptionBudget": (
        "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
        {"spec": {"minAvailable": 1}},
        False,
        False,
    ),
    "ControllerRevision": (
        "/apis/apps/v1/namespaces/default/controllerrevisions",
        {"revision": 1, "data": {}},
        False,
        True,
    ),
    "Role": (f"{RBAC}/namespaces/default/roles", {"rules": []}, True, True),
    "RoleBinding": (f"{RBAC}/namespaces/default/rolebindings", ROLE, True, True),
    "ClusterRole": (f"{RBAC}/clusterroles", {"rules": []}, True, True),
    "ClusterRoleBinding": (f"{RBAC}/clusterrolebindings", ROLE, True, True),
    "CustomResourceDefinition": (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        DEFINITION,
        False,
        False,
    ),
    "APIService": ("/apis/apiregistration.k8s.io/v1/apiservices", SERVICE, False, False),
    "MutatingWebhookConfiguration": (
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        {},
        False,
        False,
    ),
    "ValidatingWebhookConfiguration": (
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        {},
        False,
        False,
    ),
}
NAMES = {"CustomResourceDefinition": "puts.updates.example.io", "APIService": "v1.put.example.io"}


def named(kind: str) -> tuple[str, str, dict]:
    """Return the path of a kind's objects, that of one, and the object."""
    path, body, _, _ = KINDS[kind]
    name = NAMES.get(kind, "put")
    return path, f"{path}/{name}", {**body, "metadata": {"name": name}}


@pytest.mark.parametrize("kind", KINDS)
def test_put_of_what_is_not_there(server: Server, kind: str) -> None:
    _, path, body = named(kind)
    code, answer = server.call("PUT", f"{path}?dryRun=All", body)
    if KINDS[kind][2]:
        assert (code, answer["metadata"]["name"]) == (201, body["metadata"]["name"])
    else:
        assert (code, answer["reason"]) == (404, "NotFound")


@pytest.mark.parametrize("kind", KINDS)
def test_put_without_a_version(server: Server, kind: str) -> None:
    path, one, body = named(kind)
    code, made = server.call("POST", path, body)
    assert code == 201, made
    if kind in ("Pod", "PersistentVolumeClaim"):
        body["spec"] = made["spec"]
    try:
        body["metadata"]["labels"] = {"a": "b"}
        for version in ("", "0"):
            body["metadata"]["resourceVersion"] = version
            code, answer = server.call("PUT", one, body)
            if KINDS[kind][3]:
                assert (code, answer.get("metadata", {}).get("labels", {}).get("a")) == (200, "b"), answer
                continue
            assert code == 422
            causes = [(cause["field"], cause["message"]) for cause in answer["details"]["causes"]]
            assert causes == [("metadata.resourceVersion", "Invalid value: 0: must be specified for an update")]
        if not KINDS[kind][3]:
            code, answer = server.call("PATCH", one, {"metadata": {"resourceVersion": None}}, MERGE)
            assert code == 422, "a patch that takes the version away"
        current = server.call("GET", one)[1]
        current["metadata"]["labels"] = {"c": "d"}
        assert server.call("PUT", one, current)[0] == 200
    finally:
        server.call("DELETE", f"{one}?gracePeriodSeconds=0")
        if kind == "Namespace":
            server.until(lambda: server.call("GET", one)[0] == 404)


def test_status_without_a_version(server: Server) -> None:
    _, one, body = named("PodDisruptionBudget")
    server.call("POST", named("PodDisruptionBudget")[0], body)
    assert server.call("PUT", f"{one}/status", {**body, "status": {}})[0] == 422
    server.call("DELETE", one)
    server.call("POST", WIDGET_PATH, widget("unversioned"))
    assert server.call("PUT", f"{WIDGET_PATH}/unversioned/status", widget("unversioned"))[0] == 422
    assert server.call("PATCH", f"{WIDGET_PATH}/unversioned", {"metadata": {"resourceVersion": None}}, MERGE)[0] == 422


def test_what_a_put_makes(server: Server) -> None:
    path = f"{NAMESPACE}/services/made"
    body = {"metadata": {"name": "made", "resourceVersion": "5"}, "spec": {"ports": [{"port": 80}]}}
    code, answer = server.call("PUT", path, {**body, "metadata": {"name": "made", "uid": "u"}})
    assert (code, answer["reason"]) == (409, "Conflict")
    assert "Precondition failed: UID in precondition: u, UID in object meta: " in answer["message"]
    assert server.call("PUT", path, {**body, "metadata": {}})[0] == 400
    assert server.call("PUT", path, {**body, "metadata": {"name": "other"}})[0] == 400
    code, made = server.call("PUT", path, body)
    assert (code, made["spec"]["type"], bool(made["spec"]["clusterIP"])) == (201, "ClusterIP", True)
    code, again = server.call("PUT", path, {**body, "metadata": {"name": "made", "uid": made["metadata"]["uid"]}})
    assert (code, again["spec"]["clusterIP"]) == (200, made["spec"]["clusterIP"])
    server.call("DELETE", path)
