# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine on Kubernetes: what tests do with it beyond the API of virtual machines."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes.stream import stream
from kubernetes_cluster import Cluster, ExistingCluster, Node, wait_for

from engine import Engine
from playbooks import playbook

NAMESPACE = "kubevirt"
#: What runs for the engine itself: kind of its workload, name.
COMPONENTS = [("Deployment", "virt-api"), ("Deployment", "virt-controller"), ("DaemonSet", "virt-handler")]
BUSYBOX = "docker.io/library/busybox:1.35"


class Deployed(Engine):
    """The engine as the collection's playbooks install it on a cluster, with a guest image in its registry.

    :param kubernetes: that cluster.
    :param folder: where playbooks run.
    """

    def __init__(self, kubernetes: Cluster | ExistingCluster, folder: Path, **options: Any) -> None:
        image = f"{kubernetes.registry.address}/tiny:latest"
        super().__init__(kubeconfig=kubernetes.kubeconfig, image=image, **options)
        self.kubernetes = kubernetes
        self._folder = folder
        #: The guest image as an OCI archive.
        self.archive = folder / "tiny.tar"
        self.apps = client.AppsV1Api(self.core.api_client)
        self.ending: list[str] = []

    def playbook(self, name: str, *options: str, check: bool = True, **variables: Any) -> str:
        """Run a playbook of the collection against the cluster; what it prints."""
        registry = self.kubernetes.registry
        given = {
            "kubeconfig": str(self.kubeconfig),
            "guest_image_archive": str(self.archive),
            "guest_image_programs_dir": str(self._folder / "guest_image"),
            "kubevirt_registry": registry.address,
            "kubevirt_registry_cert_dir": str(registry.certificates),
            "kubevirt_kubelet_dir": str(self.kubernetes.kubelet_dir),
            "kubevirt_configuration": {"developerConfiguration": {"useEmulation": True}},
            **variables,
        }
        words = (f"turtles.kubevirt.{name}", "-e", json.dumps(given), *options)
        return playbook(*words, folder=self._folder, check=check).stdout

    def wait_available(self, timeout: float = 180) -> None:
        """Until the KubeVirt object says that the engine can be used."""

        def available() -> bool:
            kubevirt = self.custom.get_namespaced_custom_object(
                "kubevirt.io", "v1", NAMESPACE, "kubevirts", "kubevirt", _request_timeout=5
            )
            conditions = kubevirt.get("status", {}).get("conditions", [])
            return any(c["type"] == "Available" and c["status"] == "True" for c in conditions)

        wait_for("condition Available of kubevirt/kubevirt", available, timeout=timeout)

    def wait_removed(self, timeout: float = 120) -> None:
        """Until nothing of the engine is in the cluster."""

        def removed() -> bool:
            left = list(self.objects())
            if left:
                raise LookupError(f"there is still: {', '.join(left)}")
            return True

        wait_for("end of all objects of the engine", removed, timeout=timeout)

    def refused(self, users: set[str], since: datetime) -> set[str]:
        """What users asked for since then, and had no right to; of the tests' own cluster."""
        # An object that was refused for another reason, such as its namespace's end, was allowed by the rights. What
        # tests attempt with a component's identity comes from here, not from a Pod.
        ours = self.kubernetes.host_address
        return {
            f"{event['user']['username']} {event['verb']} {event['requestURI']}"
            for event in self.kubernetes.audit()
            if event["user"]["username"] in users
            and datetime.fromisoformat(event["requestReceivedTimestamp"]) >= since
            and event["sourceIPs"][0] != ours
            and event["annotations"]["authorization.k8s.io/decision"] == "forbid"
        }

    def version(self) -> tuple[int, int]:
        """Major and minor version of Kubernetes."""
        found = client.VersionApi(self.core.api_client).get_code()
        return int(found.major), int(found.minor.rstrip("+"))

    def kubectl(self, *words: str, check: bool = True, timeout: float = 300) -> str:
        """Run kubectl as an administrator; what it prints, errors included."""
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def without_virt_api(self) -> Iterator[None]:
        """Nobody reaches virt-api: its Service leads nowhere, and connections that there were are gone."""

        def lead_to(component: str, *, somewhere: bool) -> None:
            change = {"spec": {"selector": {"kubevirt.io": component}}}
            self.core.patch_namespaced_service("virt-api", NAMESPACE, change)

            def led() -> bool:
                found = self.core.read_namespaced_endpoints("virt-api", NAMESPACE).subsets
                return bool(found and found[0].addresses) == somewhere

            wait_for(f"Service virt-api to lead to {component}", led, timeout=60)

        def refused() -> bool:
            kubevirt = {"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "second"}, "spec": {}}
            where = ("kubevirt.io", "v1", NAMESPACE, "kubevirts")
            try:
                self.custom.create_namespaced_custom_object(*where, kubevirt, dry_run="All")
            except client.ApiException as error:
                return "failed calling webhook" in str(error.body)
            return False

        lead_to("nobody", somewhere=False)
        try:
            for pod in self.component_pods("virt-api"):
                self.core.delete_namespaced_pod(pod.metadata.name, NAMESPACE, grace_period_seconds=0)
            wait_for("webhooks to fail", refused, timeout=120)
            yield
        finally:
            lead_to("virt-api", somewhere=True)

    def component_pods(self, name: str) -> list[client.V1Pod]:
        """The Pods of a component that aren't being deleted."""
        pods = self.core.list_namespaced_pod(NAMESPACE, label_selector=f"kubevirt.io={name}").items
        return [pod for pod in pods if not pod.metadata.deletion_timestamp]

    def wait_component(self, name: str, not_uids: set[str] = frozenset(), timeout: float = 180) -> None:
        """Until all Pods of a component are ready, and are none of those."""

        def ready() -> bool:
            pods = self.component_pods(name)
            return bool(pods) and all(
                pod.metadata.uid not in not_uids
                and any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])
                for pod in pods
            )

        wait_for(f"ready {name}", ready, timeout=timeout)

    def spread(self) -> None:
        """Have the replicas of a component on more than one node, which Kubernetes prefers and doesn't promise."""
        for kind, name in COMPONENTS:
            pods = self.component_pods(name)
            if kind == "Deployment" and len({pod.spec.node_name for pod in pods}) == 1:
                self.core.delete_namespaced_pod(pods[0].metadata.name, NAMESPACE)
                self.wait_component(name, {pods[0].metadata.uid})

    def wait_back(self) -> None:
        """Until Kubernetes takes components for ready again that it hadn't heard of, and leads requests to them."""
        for _kind, name in COMPONENTS:
            self.wait_component(name, timeout=300)
        wait_for(
            "the aggregated API",
            lambda: self.custom.get_api_resources("subresources.kubevirt.io", "v1", _request_timeout=5),
            timeout=60,
        )

    def node(self, name: str) -> Node:
        """A node to look into; the test is skipped where nodes are somebody else's."""
        if not self.kubernetes.nodes:
            pytest.skip("looks into the machines of the tests' own cluster")
        return next(node for node in self.kubernetes.nodes if node.name == name)

    def processes_of(self, pod: client.V1Pod, *words: str) -> list[int]:
        """Processes of a Pod: those in control groups of its uid."""
        found = []
        for pid in self.node(pod.spec.node_name).machine.processes(*words):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                if f"pod{pod.metadata.uid}" in Path(f"/proc/{pid}/cgroup").read_text():
                    found.append(pid)
        return found

    def pod_processes(self, namespace: str, vmi: str, word: str) -> list[int]:
        return self.processes_of(self.launcher(namespace, vmi), word)

    def publish(self, archive: Path) -> str:
        return self.kubernetes.registry.push(f"oci-archive:{archive}:latest", f"{archive.stem}:latest")

    def kill_component(self, name: str) -> None:
        """kill -9 the main processes of all Pods of a component."""
        for pod in self.component_pods(name):
            pids = self.processes_of(pod, name)
            assert pids, f"no process {name} in Pod {pod.metadata.name}"
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

    def settle(self) -> None:
        """Until the machines of tests before are gone.

        Kubelets take ten seconds to say that a Pod has ended, for which no test has to wait but one that counts
        machines. The namespaces of tests before are in `ending`.
        """
        while self.ending:
            namespace = self.ending.pop()
            for vm in self.custom.list_namespaced_custom_object("kubevirt.io", "v1", namespace, "virtualmachines")[
                "items"
            ]:
                self.wait_gone(namespace, vm["metadata"]["name"])

    def start_pod(self, namespace: str, name: str, node: str) -> client.V1Pod:
        """A Pod with busybox on a node, running."""
        container = {"name": "main", "image": BUSYBOX, "command": ["sleep", "86400"]}
        spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
        self.core.create_namespaced_pod(namespace, {"metadata": {"name": name}, "spec": spec})

        def running() -> client.V1Pod | None:
            pod = self.core.read_namespaced_pod(name, namespace)
            return pod if pod.status.phase == "Running" else None

        return wait_for(f"running Pod {name}", running, timeout=120)

    def execute(self, pod: client.V1Pod, *command: str) -> str:
        """Run a command in a Pod; what it prints."""
        where = (pod.metadata.name, pod.metadata.namespace)
        answer = stream(
            self.core.connect_get_namespaced_pod_exec, *where, command=list(command), stdout=True, stderr=True
        )
        return str(answer).strip()

    def greeting(self, pod: client.V1Pod, address: str, port: int = 22) -> str:
        """What a server says first to a client in a Pod; waits for the server."""

        def answer() -> str:
            command = f"nc -w 5 {address} {port} </dev/null | head -n 1"
            said = self.execute(pod, "sh", "-c", command)
            return said if said.startswith("SSH-") else ""

        return wait_for(f"greeting of {address}:{port}", answer, timeout=60 * self.patience)

    def objects(self) -> Iterator[str]:
        """What of the engine is in the cluster, beyond the namespace."""
        yield from objects_of_the_engine(self.core.api_client)


def objects_of_the_engine(api_client: client.ApiClient) -> Iterator[str]:
    """What of the engine is in a cluster, beyond its namespace."""
    core, rbac = client.CoreV1Api(api_client), client.RbacAuthorizationV1Api(api_client)
    admission = client.AdmissionregistrationV1Api(api_client)
    for listed in (
        client.ApiextensionsV1Api(api_client).list_custom_resource_definition,
        client.ApiregistrationV1Api(api_client).list_api_service,
        rbac.list_cluster_role,
        rbac.list_cluster_role_binding,
        rbac.list_role_binding_for_all_namespaces,
        rbac.list_role_for_all_namespaces,
        admission.list_mutating_webhook_configuration,
        admission.list_validating_webhook_configuration,
        client.SchedulingV1Api(api_client).list_priority_class,
        core.list_namespace,
    ):
        for item in listed().items:
            if "kubevirt" in item.metadata.name or "virt-" in item.metadata.name:
                yield f"{listed.__name__.removeprefix('list_')} {item.metadata.name}"
    for node in core.list_node().items:
        for kind in ("labels", "annotations"):
            for key in getattr(node.metadata, kind) or {}:
                if "kubevirt.io" in key:
                    yield f"{kind[:-1]} {key} of node {node.metadata.name}"
