# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cluster API's provider for KubeVirt: what its controller makes and does, with no more than its rights.

Of the provider's sources: pkg/kubevirt/machine.go and utils.go, pkg/loadbalancer, config/rbac.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterator
from typing import Any

import pytest
from cluster import Cluster
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from scenarios.volumes import address_of
from test_services import banner

from engine import condition

Object = dict[str, Any]
#: In a guest whose bootstrap provider has finished.
BOOTSTRAPPED = "/run/cluster-api/bootstrap-success.complete"
#: What stands for kubeadm, and for the API server that it starts.
BOOTSTRAP = f"""#!/bin/sh
# {{key}}
mkdir -p {BOOTSTRAPPED.rpartition("/")[0]}
printf success >{BOOTSTRAPPED}
while true; do echo "SSH-of $(hostname)" | nc -l -p 6443; done >/dev/null 2>&1 &
"""
#: What the provider's documentation wants of the user in the infrastructure cluster.
RULES = [
    (["kubevirt.io"], ["virtualmachines"], ["delete", "get", "create", "update", "patch"]),
    (["kubevirt.io"], ["virtualmachineinstances"], ["delete", "get"]),
    (["cdi.kubevirt.io"], ["datavolumes"], ["get", "list", "watch"]),
    ([""], ["secrets", "services"], ["create", "delete", "get", "list", "patch", "update", "watch"]),
]


class Provider:
    """The controller's client: it gets, creates, replaces and deletes; it lists and watches no machines."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.namespace = namespace
        admin = cluster.custom.api_client
        rules = [{"apiGroups": groups, "resources": kinds, "verbs": verbs} for groups, kinds, verbs in RULES]
        rights = client.RbacAuthorizationV1Api(admin)
        cluster.core.create_namespaced_service_account(namespace, {"metadata": {"name": "capk"}})
        rights.create_namespaced_role(namespace, {"metadata": {"name": "capk"}, "rules": rules})
        binding = {
            "metadata": {"name": "capk"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "capk"},
            "subjects": [{"kind": "ServiceAccount", "name": "capk", "namespace": namespace}],
        }
        rights.create_namespaced_role_binding(namespace, binding)
        token = cluster.core.create_namespaced_service_account_token("capk", namespace, {"spec": {}}).status.token
        configuration = copy.copy(admin.configuration)
        configuration.cert_file = configuration.key_file = configuration.refresh_api_key_hook = None
        configuration.api_key = {"BearerToken": f"Bearer {token}"}
        self._api = client.ApiClient(configuration)
        self._custom = client.CustomObjectsApi(self._api)
        self.core = client.CoreV1Api(self._api)

    def close(self) -> None:
        self._api.close()

    def get(self, plural: str, name: str) -> Object | None:
        """What `NewMachine` reads."""
        try:
            return self._custom.get_namespaced_custom_object("kubevirt.io", "v1", self.namespace, plural, name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def create_or_update(self, vm: Object, labels: dict[str, str]) -> Object:
        """controllerutil.CreateOrUpdate: nothing is written where nothing differs."""
        where = ("kubevirt.io", "v1", self.namespace, "virtualmachines")
        name = vm["metadata"]["name"]
        found = self.get("virtualmachines", name)
        wanted = copy.deepcopy(found or vm)
        for metadata in (wanted["metadata"], wanted["spec"]["template"]["metadata"]):
            metadata["labels"] = {**metadata["labels"], **labels}
        if found is None:
            return self._custom.create_namespaced_custom_object(*where, wanted)
        if wanted == found:
            return found
        return self._custom.replace_namespaced_custom_object(*where, name, wanted)

    def delete(self, plural: str, name: str, **options: Any) -> None:
        where = ("kubevirt.io", "v1", self.namespace, plural, name)
        self._custom.delete_namespaced_custom_object(*where, **options)


def labels(name: str, role: str) -> dict[str, str]:
    return {
        "kubevirt.io/vm": name,
        "name": name,
        "cluster.x-k8s.io/role": role,
        "cluster.x-k8s.io/cluster-name": "dev",
    }


def machine(cluster: Cluster, name: str, role: str, strategy: str) -> Object:
    """The VirtualMachine of a KubevirtMachine whose template is that of the provider's documentation."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "labels": labels(name, role)},
        "spec": {
            "runStrategy": strategy,
            "template": {
                "metadata": {"labels": labels(name, role)},
                "spec": {
                    "domain": {
                        "cpu": {"cores": 2},
                        "memory": {"guest": "128Mi"},
                        "devices": {
                            "networkInterfaceMultiqueue": True,
                            "disks": [
                                {"disk": {"bus": "virtio"}, "name": "containervolume"},
                                {"disk": {"bus": "virtio"}, "name": "cloudinitvolume"},
                            ],
                        },
                    },
                    "evictionStrategy": "External",
                    "volumes": [
                        {"containerDisk": {"image": cluster.image}, "name": "containervolume"},
                        {
                            "cloudInitConfigDrive": {"secretRef": {"name": f"{name}-userdata"}},
                            "name": "cloudinitvolume",
                        },
                    ],
                },
            },
        },
    }


def labelled(name: str) -> dict[str, str]:
    return {
        "capk.cluster.x-k8s.io/kubevirt-machine-name": name,
        "capk.cluster.x-k8s.io/kubevirt-machine-namespace": "default",
    }


@pytest.fixture
def provider(cluster: Cluster, namespace: str) -> Iterator[Provider]:
    found = Provider(cluster, namespace)
    yield found
    found.close()


def provision(cluster: Cluster, provider: Provider, name: str, role: str, strategy: str = "Always") -> Object:
    """A machine from its bootstrap data to a guest that says it has finished; its VMI."""
    text = base64.b64encode(BOOTSTRAP.format(key=cluster.public_key).encode()).decode()
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name=f"{name}-userdata"), data={"userdata": text})
    provider.core.create_namespaced_secret(provider.namespace, secret)
    provider.create_or_update(machine(cluster, name, role, strategy), labelled(name))
    return bootstrapped(cluster, provider, name)


def bootstrapped(cluster: Cluster, provider: Provider, name: str, not_uid: str = "") -> Object:
    cluster.wait_running(provider.namespace, name, not_uid=not_uid)
    cluster.wait(
        provider.namespace,
        "virtualmachineinstances",
        name,
        lambda o: (
            o
            and o["metadata"]["uid"] != not_uid
            and condition(o, "Ready").get("status") == "True"
            and condition(o, "LiveMigratable")
        ),
        timeout=60,
        what="Ready and LiveMigratable",
    )
    vmi = provider.get("virtualmachineinstances", name)
    assert vmi is not None
    # IsLiveMigratable fails without the condition; a guest whose address is its Pod's isn't migratable
    assert condition(vmi, "LiveMigratable")["reason"] == "InterfaceNotLiveMigratable"
    said = cluster.ssh(address_of(vmi), f"until [ -e {BOOTSTRAPPED} ]; do sleep 0.1; done; cat {BOOTSTRAPPED}")
    assert said == "success"
    return vmi


def test_machines_of_a_cluster(cluster: Cluster, namespace: str, provider: Provider) -> None:
    balancer = {
        "metadata": {"name": "dev-lb", "labels": {"cluster.x-k8s.io/cluster-name": "dev"}},
        "spec": {
            "type": "ClusterIP",
            "ports": [{"port": 6443, "targetPort": 6443, "protocol": "TCP"}],
            "selector": {"cluster.x-k8s.io/role": "control-plane", "cluster.x-k8s.io/cluster-name": "dev"},
        },
    }
    address = provider.core.create_namespaced_service(namespace, balancer).spec.cluster_ip
    name = "dev-control-plane-x7k2p"
    first = provision(cluster, provider, name, "control-plane")
    assert banner(address, 6443) == "SSH-of d"
    # Without interfaces in its template it has the Pod's address
    pod = cluster.launcher(namespace, name)
    assert first["status"]["interfaces"][0]["ipAddress"] == pod.status.pod_ip
    assert (labels(name, "control-plane") | labelled(name)).items() <= first["metadata"]["labels"].items()

    # Reconciled again, it is as it was
    before = provider.get("virtualmachines", name)
    after = provider.create_or_update(machine(cluster, name, "control-plane", "Always"), labelled(name))
    assert before is not None
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]

    # The infrastructure's node is drained: the provider is told, and lets the guest go when it has drained its own
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name=pod.metadata.name, namespace=namespace))
    with pytest.raises(ApiException) as caught:
        cluster.core.create_namespaced_pod_eviction(pod.metadata.name, namespace, eviction)
    assert caught.value.status == 429
    marked = cluster.wait(
        namespace,
        "virtualmachineinstances",
        name,
        lambda o: o and o["status"].get("evacuationNodeName"),
        timeout=60,
        what="evacuationNodeName",
    )
    assert marked is not None
    assert marked["metadata"]["uid"] == first["metadata"]["uid"]
    assert marked["status"]["evacuationNodeName"] == first["status"]["nodeName"]
    provider.delete("virtualmachineinstances", name, propagation_policy="Foreground")
    bootstrapped(cluster, provider, name, first["metadata"]["uid"])
    assert banner(address, 6443) == "SSH-of d"

    provider.delete("virtualmachines", name)
    cluster.wait_gone(namespace, name)
    assert provider.get("virtualmachineinstances", name) is None


def test_a_machine_that_runs_once_ends_for_good(cluster: Cluster, namespace: str, provider: Provider) -> None:
    vmi = provision(cluster, provider, "dev-md-0-abcde", "worker", "Once")
    cluster.ssh(address_of(vmi), "(sleep 1; poweroff) >/dev/null 2>&1 &")
    cluster.wait_phase(namespace, "dev-md-0-abcde", "Succeeded")
    found = provider.get("virtualmachineinstances", "dev-md-0-abcde")
    assert found is not None
    assert found["metadata"]["uid"] == vmi["metadata"]["uid"]


def test_a_machine_without_a_place_says_why(cluster: Cluster, namespace: str, provider: Provider) -> None:
    vm = machine(cluster, "dev-md-0-huge", "worker", "Always")
    vm["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    provider.create_or_update(vm, labelled("dev-md-0-huge"))
    cluster.wait(
        namespace,
        "virtualmachines",
        "dev-md-0-huge",
        lambda o: o and condition(o, "PodScheduled").get("status") == "False",
        timeout=60,
        what="PodScheduled",
    )
    found = provider.get("virtualmachines", "dev-md-0-huge")
    assert found is not None
    scheduled = condition(found, "PodScheduled")
    assert scheduled["reason"] == "Unschedulable"
    assert "node" in scheduled["message"]
    assert found["status"]["printableStatus"] == "ErrorUnschedulable"


def test_the_provider_has_no_other_rights(provider: Provider) -> None:
    for attempt in (provider.core.list_namespaced_pod, provider.core.list_namespaced_config_map):
        with pytest.raises(ApiException) as caught:
            attempt(provider.namespace)
        assert caught.value.status == 403
