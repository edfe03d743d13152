# SPDX-License-Identifier: GPL-3.0-or-later
"""The Node object of this machine: registered at start, kept alive by a Lease, as a kubelet does it."""

import logging
import os
import platform
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from turtles import __version__
from turtles.api.objects import labels_of
from turtles.api.times import now
from turtles.endpoint import outgoing_address
from turtles.kube.client import AlreadyExists, ApiError, Client, NotFound
from turtles.kube.resources import LEASE, NODE
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.status import condition, merge_conditions
from turtles.standalone.well_known import ARCH, BETA_ARCH, BETA_OS, HOSTNAME, OS

log = logging.getLogger(__name__)

_LEASE_NAMESPACE = "kube-node-lease"
_RENEW = 10.0
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def memory_total() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def node_ip(config: Config) -> str:
    """Return the node's address: as configured, or the one packets leave with, or loopback."""
    return config.node_ip or outgoing_address()


def offered_devices(config: Config) -> Iterable[str]:
    """Return the device resources that this node always offers.

    /dev/kvm is left out: that the file exists does not prove that it works; virt-handler offers it after a test.
    """
    return [name for name, path in config.devices.items() if str(path) != "/dev/kvm" and path.exists()]


def huge_pages(folder: Path = Path("/sys/kernel/mm/hugepages")) -> dict[str, int]:
    """Return the bytes of huge pages that were set aside, by the resource they are requested as."""
    capacity = {}
    for pages in folder.glob("hugepages-*kB"):
        kibibytes = int(pages.name.removeprefix("hugepages-").removesuffix("kB"))
        size = f"{kibibytes >> 20}Gi" if kibibytes >> 20 else f"{kibibytes >> 10}Mi"
        capacity[f"hugepages-{size}"] = (kibibytes << 10) * int((pages / "nr_hugepages").read_text())
    return capacity


def desired(config: Config, address: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the labels and the status (without conditions) of the Node."""
    arch = _ARCHITECTURES.get(platform.machine(), platform.machine())
    labels = {
        HOSTNAME: config.node_name,
        OS: "linux",
        ARCH: arch,
        BETA_OS: "linux",
        BETA_ARCH: arch,
    }
    disk = os.statvfs(config.root_dir)
    resources = {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{memory_total() >> 10}Ki",
        "ephemeral-storage": f"{disk.f_blocks * disk.f_frsize >> 10}Ki",
        "pods": str(config.max_pods),
        **{name: str(config.device_count) for name in offered_devices(config)},
    }
    huge = huge_pages()
    resources |= {name: f"{amount >> 10}Ki" if amount else "0" for name, amount in huge.items()}
    # Nothing else can use that memory.
    ordinary = f"{(memory_total() - sum(huge.values())) >> 10}Ki"
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    machine_id = Path("/etc/machine-id")
    status = {
        "capacity": resources,
        "allocatable": {**resources, "memory": ordinary},
        "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": config.node_name}],
        "nodeInfo": {
            "architecture": arch,
            "operatingSystem": "linux",
            "kernelVersion": platform.release(),
            "osImage": release.get("PRETTY_NAME", "Linux"),
            "containerRuntimeVersion": f"turtles://{__version__}",
            "kubeletVersion": f"v{__version__}+turtles",
            "kubeProxyVersion": "",
            "machineID": machine_id.read_text().strip() if machine_id.exists() else "",
            "bootID": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "systemUUID": "",
        },
    }
    return labels, status


class NodeKeeper:
    """Registers the Node and renews its Lease in a thread of its own."""

    def __init__(self, client: Client, config: Config) -> None:
        self._client = client
        self._config = config
        self.address = node_ip(config)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node", daemon=True)

    def register(self, ready: bool, message: str) -> dict[str, Any]:
        """Create or update the Node; labels, annotations and extended resources of others stay.

        :raises ApiError: the API server refuses.
        """
        labels, status = desired(self._config, self.address)
        name = self._config.node_name
        try:
            node = self._client.get(NODE, None, name)
        except NotFound:
            try:
                node = self._client.create(
                    NODE,
                    {
                        "apiVersion": "v1",
                        "kind": "Node",
                        "metadata": {"name": name, "labels": labels},
                        "spec": {},
                    },
                )
            except AlreadyExists:
                node = self._client.get(NODE, None, name)
        have = labels_of(node)
        if any(have.get(key) != value for key, value in labels.items()):
            node = self._client.patch(NODE, None, name, {"metadata": {"labels": labels}})
        stamp = now()
        conditions = [
            {
                "type": "Ready",
                "status": "True" if ready else "False",
                "lastHeartbeatTime": stamp,
                "lastTransitionTime": stamp,
                "reason": "KubeletReady" if ready else "KubeletNotReady",
                "message": message,
            },
            *(
                {**condition(kind, False, stamp, reason, text), "lastHeartbeatTime": stamp}
                for kind, reason, text in (
                    ("MemoryPressure", "KubeletHasSufficientMemory", "the node has sufficient memory"),
                    ("DiskPressure", "KubeletHasNoDiskPressure", "the node has no disk pressure"),
                    ("PIDPressure", "KubeletHasSufficientPID", "the node has sufficient process ids"),
                )
            ),
        ]
        for entry in conditions:
            entry.pop("lastProbeTime", None)
        old = (node.get("status") or {}).get("conditions") or []
        return self._client.patch(
            NODE,
            None,
            name,
            {"status": status | {"conditions": merge_conditions(old, conditions)}},
            subresource="status",
        )

    def start(self) -> None:
        """Start renewing the Lease."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def _run(self) -> None:
        while True:
            try:
                self._renew()
            except ApiError as error:
                log.warning("the node's lease can't be renewed", extra={"error": str(error)})
            if self._stopped.wait(_RENEW):
                return

    def _renew(self) -> None:
        name = self._config.node_name
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        try:
            self._client.patch(LEASE, _LEASE_NAMESPACE, name, {"spec": {"renewTime": stamp}})
            return
        except NotFound:
            log.info("first heartbeat", extra={"node": name})
        self._client.create(
            LEASE,
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": _LEASE_NAMESPACE},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": stamp},
            },
        )
