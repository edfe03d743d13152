# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster: bringing it up, and down without a trace."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, config

from . import cgroup, network, provisioner
from .build import Say, build
from .control import AUDIT_LOG, ControlPlane
from .errors import ClusterError, wait_for
from .images import BUSYBOX
from .machine import Machine
from .network import Network
from .node import KUBELET_DIR, NodeAgents
from .registry import Registry, start_registry
from .settings import Settings, cache_dir


@dataclass(frozen=True)
class Node:
    """A node that tests look at from inside: its machine (processes, commands), its agents and its address."""

    name: str
    machine: Machine
    agents: NodeAgents

    @property
    def address(self) -> str:
        """Its InternalIP."""
        return self.agents.address


class Cluster:
    """A cluster on this machine. Needs root.

    :param settings: which one.
    :ivar kubeconfig: an administrator's.
    :ivar registry: where tests push images; None on a control plane without nodes.
    :ivar nodes: its nodes.
    :ivar control: the machine of the control plane.
    :ivar kubelet_dir: where the nodes' kubelets keep Pods.
    """

    kubelet_dir = KUBELET_DIR

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.kubeconfig = self.settings.directory / "kubeconfig"
        self.registry: Registry | None = None
        self.control = Machine(self.settings, "control")
        machines = [Machine(self.settings, f"node{number}") for number in range(1, self.settings.nodes + 1)]
        self.nodes = [Node(m.name, m, NodeAgents(self.settings, m, n)) for n, m in enumerate(machines, 1)]
        self._control_plane = ControlPlane(self.settings, self.control)

    @property
    def host_address(self) -> str:
        """This machine's address as everything in the cluster reaches it: for tests' own servers."""
        return self.settings.host_address

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._control_plane.server

    @property
    def authority(self) -> Path:
        """The certificate that signs all others."""
        return self._control_plane.pki / "ca.crt"

    def client(self) -> client.ApiClient:
        """A client with all rights."""
        return config.new_client_from_config(str(self.kubeconfig))

    def up(self, say: Say = print) -> None:
        """Build what isn't in the cache, start everything and wait until it is ready.

        :raises ClusterError: what didn't come, with the ends of the logs. What is there stays, to be looked at.
        """
        if os.geteuid() != 0:
            raise ClusterError("a cluster needs root: it makes namespaces, control groups and a network interface")
        if self.nodes:
            cgroup.check_for_nodes()
        if self.settings.directory.exists():
            raise ClusterError(f"{self.settings.directory} exists: end instance {self.settings.instance} first")
        build(cache_dir(), say, programs=self.settings.programs)
        start = time.monotonic()
        machines = [self.control, *(node.machine for node in self.nodes)]
        self.settings.save()
        for machine in machines:
            machine.prepare()
        authority = self._control_plane.certify()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda machine: machine.boot(cache_dir()), machines))
        lan = Network(self.settings, self.control)
        lan.start()
        self._control_plane.start_etcd()
        self._control_plane.start_api_server()
        say(f"API server after {time.monotonic() - start:.1f} s: {self.kubeconfig}")
        if self.settings.controllers or self.nodes:
            self._start_controllers()
            say(f"controllers after {time.monotonic() - start:.1f} s")
        if self.nodes:
            etc = self.control.etc / "registry"
            etc.mkdir()
            authority.issue("registry", "registry", hosts=(self.settings.control_address,))
            for kind in ("crt", "key"):
                shutil.copy(authority.directory / f"registry.{kind}", etc)
            address, certificates = self.settings.control_address, self.settings.directory / "registry"
            self.registry = start_registry(self.control, address, authority, etc, certificates)
            for number, node in enumerate(self.nodes, 1):
                lan.connect(number, node.machine)
                node.agents.configure(authority, self.registry)
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda node: node.agents.start(), self.nodes))
            self._await_nodes()
            self._start_provisioner()
            say(f"{len(self.nodes)} nodes after {time.monotonic() - start:.1f} s, registry {self.registry.address}")

    def _start_controllers(self) -> None:
        self._control_plane.start_controllers()
        core = client.CoreV1Api(self.client())
        wait_for(
            "service account default/default (from kube-controller-manager)",
            lambda: core.read_namespaced_service_account("default", "default", _request_timeout=5),
            timeout=120,
            logs=self._control_plane.logs,
        )
        # kubeadm does the same for kube-proxy
        client.RbacAuthorizationV1Api(core.api_client).create_cluster_role_binding(
            {
                "metadata": {"name": "kube-proxy"},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": "system:node-proxier",
                },
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}],
            }
        )

    def _await_nodes(self) -> None:
        core = client.CoreV1Api(self.client())
        for number, node in enumerate(self.nodes, 1):
            logs = [node.machine.log("kubelet"), node.machine.log("containerd")]
            wait_for(f"ready node {node.name}", lambda name=node.name: _ready(core, name), timeout=180, logs=logs)
            cidr = self.settings.pod_network(number)
            core.patch_node(node.name, {"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}})

    def _start_provisioner(self) -> None:
        client.StorageV1Api(self.client()).create_storage_class(provisioner.CLASS)
        program, *arguments = provisioner.__file__, self.kubeconfig, self.settings.directory / "machines"
        self.control.start_outside("provisioner", sys.executable, program, *map(str, arguments))

    def is_up(self) -> bool:
        """Whether it runs with these settings; then it is used as if it had been started here."""
        if Settings.load(self.settings.instance) != self.settings:
            return False
        try:
            self._control_plane.ready()
        except OSError:
            return False
        if self.nodes:
            self.registry = Registry.at(self.settings.control_address, self.settings.directory / "registry")
        return True

    def interrupt_api_server(self, seconds: float) -> None:
        """Kill the API server, and start another after that time."""
        self.control.kill("kube-apiserver")
        time.sleep(seconds)
        self._control_plane.start_api_server()

    def unplug(self, node: Node) -> None:
        """Pull a node's network cable: whatever runs there goes on, and nobody hears of it."""
        self.control.run("ip", "link", "set", node.name, "down")

    def plug(self, node: Node) -> None:
        """Put it back."""
        self.control.run("ip", "link", "set", node.name, "up")

    def audit(self) -> list[dict[str, Any]]:
        """What service accounts asked of the API, oldest first (audit.k8s.io/v1 Event at level Metadata)."""
        return [json.loads(line) for line in self.control.run("cat", AUDIT_LOG).splitlines()]

    def push_busybox(self) -> str:
        """Put busybox into the registry; its reference there."""
        if self.registry is None:
            raise ClusterError("a control plane without nodes has no registry")
        return self.registry.push(f"docker-archive:{cache_dir()}/images/busybox.tar", BUSYBOX.rpartition("/")[2])

    def down(self) -> None:
        """End it, in whatever state it is, and remove all it made. Nothing happens where there is none.

        Processes are found by their control group, everything else ends with them: namespaces with their processes,
        mounts, interfaces, routes and packet filters with their namespaces.
        """
        cgroup.remove(self.settings.cgroup)
        network.remove(self.settings)
        # with the group above, if this was the last instance
        cgroup.remove_empty(str(Path(self.settings.cgroup).parent))
        if self.settings.directory.exists():
            shutil.rmtree(self.settings.directory)


def _ready(core: client.CoreV1Api, name: str) -> bool:
    conditions = core.read_node(name, _request_timeout=5).status.conditions
    return any(c.type == "Ready" and c.status == "True" for c in conditions)
