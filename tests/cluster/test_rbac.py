# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Components may do what they need and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from deployed import COMPONENTS, NAMESPACE, Deployed
from kubernetes import client
from kubernetes.client.exceptions import ApiException

NAMES = [name for _kind, name in COMPONENTS]


def account(cluster: Deployed, name: str) -> str:
    (found,) = {pod.spec.service_account_name for pod in cluster.component_pods(name)}
    return found


def as_component(cluster: Deployed, name: str) -> client.ApiClient:
    """A client with the component's own identity: a token for its service account."""
    where = (account(cluster, name), NAMESPACE)
    body = {"spec": {"audiences": [], "expirationSeconds": 3600}}
    token = cluster.core.create_namespaced_service_account_token(*where, body).status.token
    admin = cluster.core.api_client.configuration
    configuration = client.Configuration()
    configuration.host, configuration.ssl_ca_cert = admin.host, admin.ssl_ca_cert
    configuration.api_key = {"authorization": f"Bearer {token}"}
    return client.ApiClient(configuration)


def rules(cluster: Deployed, name: str) -> Iterator[tuple[str, client.V1PolicyRule]]:
    """Name of the role and rule, for every rule that the component's account is bound to."""
    rbac = client.RbacAuthorizationV1Api(cluster.core.api_client)
    mine = account(cluster, name)
    bindings = [*rbac.list_cluster_role_binding().items, *rbac.list_role_binding_for_all_namespaces().items]
    for binding in bindings:
        for subject in binding.subjects or []:
            if (subject.kind, subject.namespace, subject.name) == ("ServiceAccount", NAMESPACE, mine):
                role = binding.role_ref.name
                if binding.role_ref.kind == "Role":
                    found = rbac.read_namespaced_role(role, binding.metadata.namespace)
                else:
                    found = rbac.read_cluster_role(role)
                for rule in found.rules or []:
                    yield role, rule


def test_every_component_has_an_account_of_its_own(cluster: Deployed) -> None:
    accounts = {account(cluster, name) for name in NAMES}
    assert len(accounts) == len(NAMES)
    assert "default" not in accounts


@pytest.mark.parametrize("name", NAMES)
def test_no_rule_has_a_wildcard_and_nobody_is_administrator(cluster: Deployed, name: str) -> None:
    found = list(rules(cluster, name))
    assert found
    for role, rule in found:
        assert role not in ("cluster-admin", "admin", "edit"), role
        for what in (rule.verbs, rule.api_groups, rule.resources, rule.non_resource_urls):
            assert not any("*" in value for value in what or []), (role, rule)
        assert not {"escalate", "bind", "impersonate"} & set(rule.verbs), (role, rule)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_granted_is_refused(cluster: Deployed, namespace: str, name: str) -> None:
    api = as_component(cluster, name)
    core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    # the identity is a good one: what is granted works
    client.CustomObjectsApi(api).list_cluster_custom_object("kubevirt.io", "v1", "virtualmachineinstances")
    binding = {
        "metadata": {"name": "escape"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": account(cluster, name), "namespace": NAMESPACE}],
    }
    pod = {"metadata": {"name": "escape"}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    impersonator = client.CoreV1Api(as_component(cluster, name))
    impersonator.api_client.set_default_header("Impersonate-User", "admin")
    attempts = {
        "read Secrets of the system": lambda: core.list_namespaced_secret("kube-system"),
        "make itself administrator": lambda: rbac.create_cluster_role_binding(binding),
        "delete a node": lambda: core.delete_node(cluster.core.list_node().items[0].metadata.name),
        "delete a namespace": lambda: core.delete_namespace(namespace),
        "be somebody else": impersonator.list_namespace,
        "delete other people's workloads": lambda: client.AppsV1Api(api).delete_collection_namespaced_deployment(
            namespace
        ),
    }
    if name != "virt-controller":
        attempts["make a Pod"] = lambda: core.create_namespaced_pod(namespace, pod)
    for what, attempt in attempts.items():
        with pytest.raises(ApiException) as refused:
            attempt()
        assert refused.value.status == 403, f"{name} may {what}: {refused.value}"


def test_launchers_have_no_identity(cluster: Deployed, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web"))
    cluster.wait_running(namespace, "web")
    pod = cluster.core.list_namespaced_pod(namespace, label_selector="kubevirt.io=virt-launcher").items[0]
    assert pod.spec.automount_service_account_token is False
    mounts = [m.mount_path for c in pod.spec.containers for m in c.volume_mounts or []]
    assert not any("serviceaccount" in path for path in mounts)


@pytest.mark.usefixtures("machines")
def test_components_ask_for_nothing_they_may_not(cluster: Deployed, namespace: str) -> None:
    """Not in the life of a virtual machine at least: a refusal would be a missing rule, or a needless request."""
    cluster.create(namespace, cluster.virtual_machine("web"))
    cluster.wait_running(namespace, "web")
    cluster.subresource(namespace, "web", "stop")
    cluster.wait_stopped(namespace, "web")
    cluster.delete(namespace, "web")
    cluster.wait_gone(namespace, "web")
    names = {f"system:serviceaccount:{NAMESPACE}:{account(cluster, name)}" for name in NAMES}
    # an object that was refused for another reason, such as its namespace's end, was allowed by the rights. Attempts
    # of the test above were from here, not from a Pod
    ours = cluster.kubernetes.host_address
    refused = {
        f"{event['user']['username']} {event['verb']} {event['requestURI']}"
        for event in cluster.kubernetes.audit()
        if event["user"]["username"] in names
        and event["sourceIPs"][0] != ours
        and event["annotations"]["authorization.k8s.io/decision"] == "forbid"
    }
    assert not refused


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("kubevirt.io:view", ["get", "list", "watch"], ["create", "delete", "patch"]),
        ("kubevirt.io:edit", ["get", "list", "create", "delete", "patch", "update"], []),
        ("kubevirt.io:admin", ["get", "list", "create", "delete", "patch", "update"], []),
    ],
)
def test_users_roles(cluster: Deployed, namespace: str, role: str, may: list[str], may_not: list[str]) -> None:
    rbac = client.RbacAuthorizationV1Api(cluster.core.api_client)
    rbac.create_namespaced_role_binding(
        namespace,
        {
            "metadata": {"name": "somebody"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody"}],
        },
    )
    reviews = client.AuthorizationV1Api(cluster.core.api_client)

    def allowed(verb: str, where: str) -> bool:
        attributes = {
            "namespace": where,
            "verb": verb,
            "group": "kubevirt.io",
            "version": "v1",
            "resource": "virtualmachines",
        }
        review = {"spec": {"user": "somebody", "resourceAttributes": attributes}}
        return bool(reviews.create_subject_access_review(review).status.allowed)

    assert [verb for verb in may if not allowed(verb, namespace)] == []
    assert [verb for verb in may_not if allowed(verb, namespace)] == []
    assert not allowed("get", "default")
