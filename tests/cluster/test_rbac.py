# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Components may do what they need and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

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
    configuration.api_key = {"BearerToken": f"Bearer {token}"}
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
@pytest.mark.parametrize("where", ["default", NAMESPACE, "kube-system"])
def test_all_that_a_component_may_is_named(cluster: Deployed, name: str, where: str) -> None:
    """By the API server's own account of its rights: those of the groups it is in count too."""
    asked = client.AuthorizationV1Api(as_component(cluster, name))
    found = asked.create_self_subject_rules_review({"spec": {"namespace": where}}).status
    assert found.resource_rules
    for rule in found.resource_rules:
        assert not any("*" in value for value in (*rule.verbs, *(rule.api_groups or []), *rule.resources)), rule


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
    # before, tests restarted the API server, which refuses until it knows the rules, and took rights away
    since = datetime.now(UTC)
    cluster.create(namespace, cluster.virtual_machine("web"))
    cluster.wait_running(namespace, "web")
    cluster.subresource(namespace, "web", "stop")
    cluster.wait_stopped(namespace, "web")
    cluster.delete(namespace, "web")
    cluster.wait_gone(namespace, "web")
    names = {f"system:serviceaccount:{NAMESPACE}:{account(cluster, name)}" for name in NAMES}
    assert not cluster.refused(names, since)


#: What users may by their roles. Kubernetes' own view, edit and admin have the same by aggregation.
READ, WRITE = ("get", "list", "watch"), ("create", "update", "patch", "delete", "deletecollection")
MACHINES = [("kubevirt.io", "virtualmachines"), ("kubevirt.io", "virtualmachineinstances")]
OF_GUESTS = ("pause", "unpause", "softreboot", "reset", "freeze", "unfreeze", "evacuate/cancel")
ACTIONS = [
    *(("subresources.kubevirt.io", f"virtualmachines/{action}") for action in ("start", "stop", "restart")),
    *(("subresources.kubevirt.io", f"virtualmachineinstances/{action}") for action in OF_GUESTS),
]
STREAMS = [
    ("subresources.kubevirt.io", f"virtualmachineinstances/{stream}")
    for stream in ("console", "vnc", "vnc/screenshot", "portforward")
]
LOOKS = [
    ("subresources.kubevirt.io", f"virtualmachineinstances/{look}")
    for look in ("guestosinfo", "userlist", "filesystemlist")
]


def allowed(cluster: Deployed, user: str, namespace: str, verb: str, group: str, resource: str) -> bool:
    resource, _dummy, subresource = resource.partition("/")
    attributes = {
        "namespace": namespace,
        "verb": verb,
        "group": group,
        "version": "v1",
        "resource": resource,
        "subresource": subresource,
    }
    review = {"spec": {"user": user, "groups": ["system:authenticated"], "resourceAttributes": attributes}}
    reviews = client.AuthorizationV1Api(cluster.core.api_client)
    return bool(reviews.create_subject_access_review(review).status.allowed)


@pytest.mark.parametrize("prefix", ["kubevirt.io:", ""], ids=["the engine's", "Kubernetes' own"])
@pytest.mark.parametrize(("role", "writes"), [("view", False), ("edit", True), ("admin", True)])
def test_users_roles(cluster: Deployed, namespace: str, prefix: str, role: str, writes: bool) -> None:
    rbac = client.RbacAuthorizationV1Api(cluster.core.api_client)
    rbac.create_namespaced_role_binding(
        namespace,
        {
            "metadata": {"name": "somebody"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"{prefix}{role}"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody"}],
        },
    )
    wanted = {(verb, *what): True for verb in READ for what in MACHINES}
    wanted |= {(verb, *what): writes for verb in WRITE for what in MACHINES}
    wanted |= {("update", *what): writes for what in ACTIONS}
    wanted |= {("get", *what): writes for what in STREAMS} | {("get", *what): True for what in LOOKS}
    wanted[("update", "subresources.kubevirt.io", "virtualmachines/migrate")] = False
    # how the engine is set up is no user's matter
    wanted |= {(verb, "kubevirt.io", "kubevirts"): False for verb in WRITE}

    wrong = [right for right, may in wanted.items() if allowed(cluster, "somebody", namespace, *right) != may]
    assert wrong == []
    assert not any(allowed(cluster, "somebody", "default", verb, *what) for verb in READ for what in MACHINES)


@pytest.mark.parametrize(("role", "status"), [("view", 403), ("edit", 404)])
def test_the_aggregated_api_asks_for_rights_too(cluster: Deployed, namespace: str, role: str, status: int) -> None:
    client.RbacAuthorizationV1Api(cluster.core.api_client).create_namespaced_role_binding(
        namespace,
        {
            "metadata": {"name": "somebody"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": f"kubevirt.io:{role}",
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody"}],
        },
    )
    api = cluster.kubernetes.client()
    path = f"/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachines/nobody/start"
    headers = {"Accept": "application/json", "Content-Type": "application/json", "Impersonate-User": "somebody"}
    answer = api.call_api("PUT", api.configuration.host + path, header_params=headers, body={})
    answer.read()
    assert answer.status == status


def test_everybody_may_ask_for_version_and_configuration(cluster: Deployed, namespace: str) -> None:
    everybodys = [("get", "subresources.kubevirt.io", "version"), ("get", "kubevirt.io", "kubevirts")]
    everybodys.append(("list", "kubevirt.io", "kubevirts"))
    assert all(allowed(cluster, "anybody", NAMESPACE, *right) for right in everybodys)
    others = [(verb, *what) for verb in (*READ, *WRITE) for what in MACHINES]
    assert not any(allowed(cluster, "anybody", namespace, *right) for right in others)
