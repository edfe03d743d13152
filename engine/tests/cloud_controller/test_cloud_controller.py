# SPDX-License-Identifier: GPL-3.0-or-later
"""A cloud provider between two real API servers; load balancers of the infrastructure are the standalone mode's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from apiserver.conftest import Server

from turtles.api import crd
from turtles.cloud_controller import balancers, machines
from turtles.kube.client import Client, NotFound
from turtles.kube.events import Recorder
from turtles.kube.kubevirt import VM, VMI
from turtles.kube.manager import Manager
from turtles.kube.resources import (
    CLUSTERROLE,
    CLUSTERROLEBINDING,
    CRD,
    EVENT,
    NAMESPACE,
    NODE,
    ROLE,
    ROLEBINDING,
    SERVICE,
    SERVICEACCOUNT,
)
from turtles.standalone.load_balancer import LoadBalancers

TENANT = "tenant"
EXAMPLES = Path(__file__).parents[3] / "docs/examples"
ACCOUNT = {
    "ServiceAccount": SERVICEACCOUNT,
    "ClusterRole": CLUSTERROLE,
    "ClusterRoleBinding": CLUSTERROLEBINDING,
    "Role": ROLE,
    "RoleBinding": ROLEBINDING,
}
SELECTOR = {balancers.CLUSTER: "dev", balancers.ROLE: "worker"}


def until(client: Client, resource: Any, namespace: str | None, name: str, condition: Callable[[Any], bool]) -> Any:
    """Watch an object until it is as wanted; it is None when it is gone."""

    def now() -> Any:
        try:
            return client.get(resource, namespace, name)
        except NotFound:
            return None

    found = now()
    if condition(found):
        return found
    listed = client.list(resource, namespace, field_selector=f"metadata.name={name}")
    version = listed["metadata"]["resourceVersion"]
    found = now()
    if condition(found):
        return found
    stream = client.watch(
        resource, namespace, resource_version=version, field_selector=f"metadata.name={name}", seconds=30
    )
    with contextlib.closing(stream):
        for event, obj in stream:
            if event != "BOOKMARK":
                found = None if event == "DELETED" else obj
                if condition(found):
                    return found
    raise AssertionError(f"{resource.kind} {name} isn't as wanted: {found}")


class Clusters:
    """The two clusters, and the controller between them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.servers = {name: Server(self._folder(name)).start() for name in ("workload", "infrastructure")}
        self.clients = {
            name: Client.from_kubeconfig(server.config / "admin.kubeconfig") for name, server in self.servers.items()
        }
        self.workload, self.infrastructure = self.clients.values()
        for definition in crd.crds():
            self.infrastructure.create(CRD, definition)
        for kind in ("virtualmachines", "virtualmachineinstances"):
            until(self.infrastructure, CRD, None, f"{kind}.kubevirt.io", _is_established)
        self.infrastructure.create(NAMESPACE, {"metadata": {"name": TENANT}})
        self._manager = Manager(self.infrastructure)
        services = self._manager.informer(SERVICE)
        recorder = Recorder(self.infrastructure, "service-controller")
        pool = (IPv4Network("192.0.2.0/29"),)
        self._manager.add(LoadBalancers(self.infrastructure, recorder, services, pool).controller())
        gate = threading.Event()
        gate.set()
        self._manager.start(gate)
        self.process: subprocess.Popen[bytes] | None = None
        self.kubeconfigs = [
            self._account("workload", "kube-system", "cloud-controller.yml"),
            self._account("infrastructure", TENANT, "cloud-controller-rights.yml"),
        ]

    def _account(self, name: str, namespace: str, manifest: str) -> Path:
        """Return the kubeconfig of the account in a cluster that has the rights which an example gives it."""
        client = self.clients[name]
        for obj in yaml.safe_load((EXAMPLES / manifest).read_text())["items"]:
            if obj["kind"] in ACCOUNT:
                client.create(ACCOUNT[obj["kind"]], obj, namespace=namespace)
        path = SERVICEACCOUNT.path(namespace, "cloud-controller", "token")
        answer = client.request("POST", path, body={"spec": {"expirationSeconds": 3600}})
        content = yaml.safe_load((self.servers[name].config / "admin.kubeconfig").read_text())
        content["users"][0]["user"] = {"token": answer["status"]["token"]}
        found = self.root / f"{name}.kubeconfig"
        found.write_text(yaml.safe_dump(content))
        return found

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir()
        return folder

    def start(self) -> None:
        workload, infrastructure = self.kubeconfigs
        command = [sys.executable, "-m", "turtles.cloud_controller.main", "--cluster-name=dev"]
        command += [f"--kubeconfig={workload}", f"--infrastructure-kubeconfig={infrastructure}"]
        command += [f"--infrastructure-namespace={TENANT}"]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.kill()
        self._manager.stop()
        for server in self.servers.values():
            server.stop()

    def machine(self, name: str, **status: Any) -> None:
        """Make a machine that runs, with an instance."""
        body = {
            "metadata": {"name": name, "namespace": TENANT},
            "spec": {"template": {"spec": {"domain": {"devices": {}}}}},
        }
        self.infrastructure.create(VM, {"apiVersion": VM.api_version, "kind": VM.kind, **body})
        annotations = {"kubevirt.io/cluster-instancetype-name": "u1.medium"}
        vmi = {
            "apiVersion": VMI.api_version,
            "kind": VMI.kind,
            "metadata": {"name": name, "namespace": TENANT, "annotations": annotations},
            "spec": {"domain": {"devices": {}}},
            "status": {"phase": "Running", "nodeName": "host", **status},
        }
        self.infrastructure.create(VMI, vmi)

    def node(self, name: str, **spec: Any) -> None:
        """Register a node, as a kubelet with an external cloud provider does."""
        taint = {"key": machines.UNINITIALIZED, "value": "true", "effect": "NoSchedule"}
        body = {"metadata": {"name": name}, "spec": {"taints": [taint], **spec}}
        self.workload.create(NODE, {"apiVersion": "v1", "kind": "Node", **body})

    def service(self, name: str, **spec: Any) -> Any:
        ports = [{"port": 80, "targetPort": 8080, "name": "http"}]
        body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"type": "LoadBalancer", "ports": ports}}
        body["spec"].update(spec)
        return self.workload.create(SERVICE, {"apiVersion": "v1", "kind": "Service", **body})

    def balancers(self) -> list[Any]:
        found: list[Any] = self.infrastructure.list(SERVICE, TENANT)["items"]
        return found


def _is_established(definition: Any) -> bool:
    conditions = (definition or {}).get("status", {}).get("conditions", ())
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    clusters = Clusters(tmp_path_factory.mktemp("clusters"))
    clusters.start()
    yield clusters
    clusters.stop()


def interface(*addresses: str, name: str = "default") -> dict[str, Any]:
    return {"name": name, "ipAddress": addresses[0], "ipAddresses": list(addresses)}


def test_a_node_gets_what_its_machine_says(running: Clusters) -> None:
    running.machine("one", interfaces=[interface("10.1.1.9", name="blue"), interface("10.0.0.9", "fd00::9")])
    running.node("one")
    node = until(running.workload, NODE, None, "one", lambda node: not node["spec"].get("taints"))
    assert node["spec"]["providerID"] == "kubevirt://one"
    assert node["metadata"]["labels"] == {machines.INSTANCE_TYPE: "u1.medium"}
    assert node["status"]["addresses"] == [
        {"type": "InternalIP", "address": "10.0.0.9"},
        {"type": "InternalIP", "address": "fd00::9"},
        {"type": "Hostname", "address": "one"},
    ]
    # It comes back with another address after a restart; while it doesn't run, nothing is placed on it.
    running.infrastructure.delete(VMI, TENANT, "one")
    until(running.workload, NODE, None, "one", lambda node: _taints(node) == [machines.SHUTDOWN])
    running.infrastructure.delete(VM, TENANT, "one")
    until(running.workload, NODE, None, "one", lambda node: node is None)


def _taints(node: Any) -> list[str]:
    return [taint["key"] for taint in node["spec"].get("taints", ())]


def test_a_node_waits_for_its_machine_and_others_are_left_alone(running: Clusters) -> None:
    running.node("early")
    running.node("iron", providerID="example://iron")
    running.machine("early", interfaces=[interface("10.0.0.8")])
    until(running.workload, NODE, None, "early", lambda node: not node["spec"].get("taints"))
    iron = running.workload.get(NODE, None, "iron")
    assert _taints(iron) == [machines.UNINITIALIZED]
    # Somebody who writes its addresses himself keeps that right.
    body = {"metadata": {"name": "own"}, "spec": {"providerID": "kubevirt://own"}}
    running.machine("own", interfaces=[interface("10.0.0.7")])
    running.workload.create(NODE, {"apiVersion": "v1", "kind": "Node", **body})
    node = until(running.workload, NODE, None, "own", lambda node: bool(node["metadata"].get("labels")))
    assert not node["status"].get("addresses")


def test_a_load_balancer_comes_changes_and_goes(running: Clusters) -> None:
    service = running.service("web")
    web = until(running.workload, SERVICE, "default", "web", lambda service: bool(balancers.ingress(service)))
    (balancer,) = running.balancers()
    assert balancers.ingress(web) == balancers.ingress(balancer)
    assert balancer["metadata"]["labels"] == balancers.marks("dev", service)
    assert balancer["spec"]["selector"] == SELECTOR
    (port,) = balancer["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (80, web["spec"]["ports"][0]["nodePort"])

    # Another start doubles nothing, and takes note of what happened meanwhile.
    running.kill()
    ports = [*web["spec"]["ports"], {"port": 443, "name": "https", "protocol": "TCP"}]
    running.workload.patch(SERVICE, "default", "web", {"spec": {"ports": ports}})
    running.start()
    name = balancer["metadata"]["name"]
    changed = until(running.infrastructure, SERVICE, TENANT, name, lambda each: len(each["spec"]["ports"]) == 2)
    assert changed["spec"]["ports"][0] == port, "what is there stays as it is"
    assert [each["metadata"]["name"] for each in running.balancers()] == [name]
    running.infrastructure.delete(SERVICE, TENANT, name)
    until(running.infrastructure, SERVICE, TENANT, name, lambda each: each is not None)

    running.workload.patch(SERVICE, "default", "web", {"spec": {"type": "ClusterIP"}})
    until(running.infrastructure, SERVICE, TENANT, name, lambda each: each is None)
    web = until(running.workload, SERVICE, "default", "web", lambda each: not each["metadata"].get("finalizers"))
    assert balancers.ingress(web) == []
    running.workload.patch(SERVICE, "default", "web", {"spec": {"type": "LoadBalancer"}})
    until(running.infrastructure, SERVICE, TENANT, name, lambda each: each is not None)
    running.workload.delete(SERVICE, "default", "web")
    until(running.workload, SERVICE, "default", "web", lambda each: each is None)
    assert running.balancers() == []


def test_what_somebody_else_has(running: Clusters) -> None:
    """Nothing of anybody else is changed, and somebody who takes a finalizer off leaves nothing behind."""
    running.service("classy", loadBalancerClass="example.com/own")
    running.service("web2")
    until(running.workload, SERVICE, "default", "web2", lambda service: bool(balancers.ingress(service)))
    (balancer,) = running.balancers()
    running.kill()
    running.workload.patch(SERVICE, "default", "web2", {"metadata": {"finalizers": None}})
    running.workload.delete(SERVICE, "default", "web2")
    running.start()
    until(running.infrastructure, SERVICE, TENANT, balancer["metadata"]["name"], lambda each: each is None)

    running.kill()
    third = running.service("web3")
    taken = balancers.name_of(third)
    body = {"metadata": {"name": taken, "namespace": TENANT}, "spec": {"ports": [{"port": 1}]}}
    running.infrastructure.create(SERVICE, {"apiVersion": "v1", "kind": "Service", **body})
    running.start()
    _wait_event(running.workload, "web3", "belongs to another cluster; delete it")
    assert running.infrastructure.get(SERVICE, TENANT, taken)["spec"]["ports"][0]["port"] == 1
    running.infrastructure.delete(SERVICE, TENANT, taken)
    until(running.workload, SERVICE, "default", "web3", lambda service: bool(balancers.ingress(service)))
    running.workload.delete(SERVICE, "default", "web3")


def test_ports_that_nodes_do_not_have(running: Clusters) -> None:
    running.service("portless", allocateLoadBalancerNodePorts=False)
    _wait_event(running.workload, "portless", "set spec.allocateLoadBalancerNodePorts to true")


def _wait_event(client: Client, name: str, words: str) -> None:
    stream = client.watch(
        EVENT, "default", resource_version="0", field_selector=f"involvedObject.name={name}", seconds=30
    )
    with contextlib.closing(stream):
        assert any(words in event.get("message", "") for _, event in stream), f"no event of {name} says {words!r}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cluster-name=Dev"], "--cluster-name 'Dev': not 1 to 63 lower case letters"),
        (["--cluster-name=dev", "--selector=role"], "'role' isn't a label; write key=value"),
        (["--cluster-name=dev", "--kubeconfig=/nowhere"], "/nowhere"),
    ],
)
def test_options_that_cannot_be(options: list[str], message: str) -> None:
    command = [sys.executable, "-m", "turtles.cloud_controller.main", "--infrastructure-kubeconfig=/nowhere"]
    done = subprocess.run(
        [*command, "--infrastructure-namespace=x", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def vmi(phase: str = "Running", **status: Any) -> dict[str, Any]:
    annotations = {"kubevirt.io/instancetype-name": "small"}
    status = {"phase": phase, "interfaces": [interface("10.0.0.9")], **status}
    return {"metadata": {"name": "one", "annotations": annotations}, "status": status}


def node(*taints: str, **metadata: Any) -> dict[str, Any]:
    found = [{"key": taint, "effect": "NoSchedule"} for taint in taints]
    spec = {"providerID": "kubevirt://one", **({"taints": found} if found else {})}
    return {"metadata": {"name": "one", **metadata}, "spec": spec}


SHUT = {"key": machines.SHUTDOWN, "effect": "NoSchedule"}
READY = {"labels": {machines.INSTANCE_TYPE: "small", machines.ZONE: "east"}}
OURS = {"annotations": {machines.ADDRESSES_ARE_OURS: "true"}}
ADDRESSES = [{"type": "InternalIP", "address": "10.0.0.9"}, {"type": "Hostname", "address": "one"}]


@pytest.mark.parametrize(
    ("node", "vmi", "patch", "addresses"),
    [
        (node(**READY), vmi(), {}, None),
        (node(**READY, **OURS), vmi(), {}, ADDRESSES),
        ({**node(**READY, **OURS), "status": {"addresses": ADDRESSES}}, vmi(), {}, None),
        (node(**READY, **OURS), vmi(interfaces=[]), {}, None),
        (node(**READY), vmi("Unknown"), {}, None),
        (node(**READY), vmi("Failed"), {"spec": {"taints": [SHUT]}}, None),
        (node(machines.SHUTDOWN, **READY), vmi("Succeeded"), {}, None),
        (node(machines.SHUTDOWN, **READY), vmi(), {"spec": {"taints": None}}, None),
        (node("mine", **READY), None, {"spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}, SHUT]}}, None),
    ],
)  # fmt: skip
def test_what_changes_of_a_node(
    node: dict[str, Any], vmi: dict[str, Any] | None, patch: dict[str, Any], addresses: list[Any] | None
) -> None:
    status = {"status": {"addresses": addresses}} if addresses else {}
    assert machines.changes(node, vmi, {machines.ZONE: "east"}) == (patch, status)


def test_zone_and_region_where_they_may_be_read() -> None:
    beneath = {machines.ZONE: "east", machines.REGION: "earth", "other": "label"}
    patch, status = machines.changes(node(machines.UNINITIALIZED), vmi(), beneath)
    assert patch["metadata"]["labels"] == {
        machines.INSTANCE_TYPE: "small", machines.ZONE: "east", machines.REGION: "earth",
    }  # fmt: skip
    assert patch["spec"] == {"taints": None}
    assert status == {"status": {"addresses": ADDRESSES}}
