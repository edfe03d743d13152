# SPDX-License-Identifier: GPL-3.0-or-later
"""``virt-handler``: the command that runs on every node."""

import argparse
import base64
import binascii
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turtles.api import labels
from turtles.api.kind import SUBRESOURCES_GROUP, SUBRESOURCES_VERSIONS
from turtles.api.node_server import Endpoint
from turtles.api.objects import Object
from turtles.command import Command
from turtles.errors import ConfigurationError
from turtles.handler import connection, metrics, plumbing
from turtles.handler.cluster import Key
from turtles.handler.consoles import Consoles
from turtles.handler.migration_proxy import MigrationProxy
from turtles.handler.node import NodeAgent, run_probe
from turtles.handler.operations import Operations
from turtles.handler.server import NodeServer
from turtles.handler.state import Store
from turtles.handler.sync import Synchroniser
from turtles.handler.watcher import Watcher
from turtles.handler.workers import Workers
from turtles.kube import metrics as kube_metrics
from turtles.kube.client import ApiError, Client
from turtles.kube.configuration import ConfigurationWatch
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, wait_synced
from turtles.kube.kubevirt import VMI
from turtles.kube.queue import WorkQueue
from turtles.kube.resources import APISERVICE, NODE
from turtles.probe.node import CACHE, Findings, read

log = logging.getLogger(__name__)

#: VMIs worked on at once. Mostly they wait for libvirt; starting one takes a fraction of a second.
_WORKERS = 12
#: Longest pause between two attempts, seconds.
_LONGEST_PAUSE = 30.0
#: It names the authority of virt-api's certificates.
_API_SERVICE = f"{SUBRESOURCES_VERSIONS[0]}.{SUBRESOURCES_GROUP}"


class _Cluster:
    """The API server, as :class:`turtles.handler.cluster.Cluster` says."""

    def __init__(self, client: Client, node: str) -> None:
        self._client = client
        self._recorder = Recorder(client, "virt-handler", node)
        #: VMIs of this node, and those that migrate to it.
        self.informers = tuple(
            Informer(client, VMI, label_selector=f"{label}={node}")
            for label in (labels.NODE_NAME, labels.MIGRATION_TARGET_NODE_NAME)
        )
        self.queue: WorkQueue[Key] = WorkQueue("vmi", first_delay=0.05, longest_delay=_LONGEST_PAUSE)
        for informer in self.informers:
            informer.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is not None:
            self.queue.add((obj["metadata"]["namespace"], obj["metadata"]["name"]))

    def get(self, key: Key) -> Object | None:
        vmis = [vmi for informer in self.informers if (vmi := informer.get(*key)) is not None]
        # One of them may be behind
        return max(vmis, key=lambda vmi: int(vmi["metadata"]["resourceVersion"]), default=None)

    def list(self) -> list[Object]:
        """Return all of them; one may be there twice."""
        return [vmi for informer in self.informers for vmi in informer.list()]

    def start(self) -> None:
        """Fill the caches."""
        for informer in self.informers:
            informer.start()

    def patch(
        self, vmi: Mapping[str, Any], status: Mapping[str, Any], *, labels: Mapping[str, str] | None = None
    ) -> None:
        metadata = vmi["metadata"]
        own: dict[str, Any] = {"resourceVersion": metadata["resourceVersion"]}
        if labels:
            own["labels"] = dict(labels)
        body = {"metadata": own, "status": status}
        # Seen at once, so that the next look doesn't start from what was there before.
        stored = self._client.patch(VMI, metadata["namespace"], metadata["name"], body)
        for informer in self.informers:
            if informer.get(metadata["namespace"], metadata["name"]) is not None:
                informer.observe(stored)

    def event(self, vmi: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        self._recorder.event(vmi, type_, reason, message)

    def enqueue(self, key: Key) -> None:
        self.queue.add(key)

    def close(self) -> None:
        self.queue.close()
        for informer in self.informers:
            informer.stop()
        self._recorder.close()


def _command() -> Command:
    command = Command("virt-handler", "Runs the virtual machines on one node.")
    command.add_kubeconfig()
    command.add_namespace()
    command.add_health()
    add = command.parser.add_argument
    add("--node-name", required=True, help="name of this node's Node object")
    add("--pods-dir", default="/var/lib/kubelet/pods", help="the kubelet's folder of Pods (default: %(default)s)")
    add(
        "--state-dir",
        default="/var/lib/turtles/handler",
        type=Path,
        help="folder for state that survives a restart (default: %(default)s)",
    )
    add("--probe-dir", type=Path, help="folder with virt-node-probe's results; if not given, it is run here")
    add(
        "--device-plugins-dir",
        type=Path,
        help="the kubelet's folder for device plugins; if given, devices are registered with the kubelet",
    )
    add(
        "--host-root",
        default=Path("/"),
        type=Path,
        help="where the node's root file system, with its /dev, is mounted (default: %(default)s)",
    )
    add(
        "--node-folder",
        action="append",
        default=[],
        type=Path,
        help="folder on the node to remove along with the engine; can be repeated",
    )
    add(
        "--qemu-binary",
        default="/usr/bin/qemu-system-x86_64",
        help="path of QEMU, here and in launchers (default: %(default)s)",
    )
    add(
        "--server-address",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address of this node on which to serve virt-api, and no other clients (default: %(default)s)",
    )
    add("--server-port", default=0, type=int, metavar="PORT", help="its port (default: a free one)")
    add(
        "--migration-address",
        metavar="ADDRESS",
        help="address of this node that receives migrating guests, over mutual TLS (default: that of the interface "
        "migration0, or else --server-address)",
    )
    add("--migration-port", default=0, type=int, metavar="PORT", help="its port (default: a free one)")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the node agent until SIGTERM or SIGINT. Guests keep running without it.

    Where there is no KubeVirt object any more, the engine is being removed, and the node is left as it was found.
    """
    command = _command()
    return command.run(lambda options: _run(command, options), argv)


def _run(command: Command, options: argparse.Namespace) -> None:
    client = Client.from_kubeconfig(options.kubeconfig)
    configuration = ConfigurationWatch(client, options.namespace)
    configuration.follow_verbosity("virtHandler", options.log_level)
    configuration.informer.start()
    connection.start_event_loop()
    watcher = Watcher()
    cluster = _Cluster(client, options.node_name)
    proxy = _migration_proxy(options)

    def find(node: str) -> Endpoint:
        return _migration_server(client, node)

    synchroniser = Synchroniser(
        cluster,
        options.node_name,
        options.pods_dir,
        Store(options.state_dir),
        watcher,
        proxy,
        find,
        emulator=options.qemu_binary,
        capability_cache=options.probe_dir / CACHE if options.probe_dir else None,
        configuration=lambda: configuration.current,
    )
    server = _node_server(options, Operations(synchroniser.guests, cluster))
    api_service = Informer(client, APISERVICE, field_selector=f"metadata.name={_API_SERVICE}")
    api_service.add_handler(lambda old, new: server.trust(_bundle(new)))
    api_service.start()
    devices: list[Any] = []
    if options.device_plugins_dir:
        from turtles.handler.host_devices import HostDevices

        devices.append(HostDevices(options.device_plugins_dir, watcher, root=options.host_root))
        configuration.add_handler(devices[0].follow)
    node = _node_agent(client, options, watcher, devices, server.endpoint, proxy.endpoint)
    node.start()
    cluster.start()
    sources = (
        metrics.version(),
        metrics.of_guests(synchroniser.guests, options.node_name, cluster.get),
        metrics.of_migrations(synchroniser.guests, options.node_name, cluster.get, synchroniser.departures.progress),
        kube_metrics.of_client(client),
        kube_metrics.of_queues((cluster.queue,)),
    )
    with command.health(options, lambda: all(informer.synced for informer in cluster.informers), sources):
        while not wait_synced((*cluster.informers, configuration.informer), 1.0):
            if command.stopped.is_set():
                return
        synchroniser.forget_except({vmi["metadata"]["uid"] for vmi in cluster.list()})
        log.info("ready", extra={"node": options.node_name})
        Workers(cluster.queue, synchroniser.sync, _WORKERS, "vmi")
        command.stopped.wait()
        log.info("leaving")
    node.stop()
    server.close()
    proxy.close()
    api_service.stop()
    for each in devices:
        each.stop()
    cluster.close()
    if not configuration.informer.list():
        log.info("the engine is being removed", extra={"node": options.node_name})
        node.leave(options.node_folder)
    configuration.informer.stop()


def _node_server(options: argparse.Namespace, operations: Operations) -> NodeServer:
    """Return what takes requests about guests."""
    address, port = options.server_address, options.server_port
    try:
        return NodeServer(operations, Consoles(), address, port, bind=address)
    except OSError as error:
        raise ConfigurationError(f"can't listen for requests at {address}:{port}: {error.strerror}") from error


def _migration_proxy(options: argparse.Namespace) -> MigrationProxy:
    """Return what guests leave this node by, and come to it."""
    port = options.migration_port
    try:
        own = plumbing.own_address(labels.MIGRATION_INTERFACE)
    except plumbing.PlumbingError as error:
        raise ConfigurationError(f"the network of migrations can't be used: {error}") from error
    address = options.migration_address or own or options.server_address
    try:
        return MigrationProxy(address, port, bind=address)
    except OSError as error:
        raise ConfigurationError(f"can't listen for migrating guests at {address}:{port}: {error.strerror}") from error


def _migration_server(client: Client, node: str) -> Endpoint:
    """Return where the virt-handler of a node takes guests.

    :raises LookupError: it isn't known.
    """
    try:
        annotations = client.get(NODE, None, node)["metadata"].get("annotations") or {}
        return Endpoint.from_annotation(annotations.get(labels.NODE_MIGRATION_SERVER) or "")
    except (ApiError, ValueError) as error:
        raise LookupError(f"the migration address of virt-handler on node {node} is unknown: {error}") from error


def _bundle(api_service: Object | None) -> str:
    """Return the authorities that an APIService names, PEM texts."""
    try:
        return base64.b64decode(((api_service or {}).get("spec") or {}).get("caBundle") or "").decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _node_agent(
    client: Client,
    options: argparse.Namespace,
    watcher: Watcher,
    devices: list[Any],
    server: Endpoint,
    migration_server: Endpoint,
) -> NodeAgent:
    """Return what keeps the node's object; *devices* gets the plugins that it starts."""
    servers = {labels.NODE_SERVER: server.annotation(), labels.NODE_MIGRATION_SERVER: migration_server.annotation()}

    def findings() -> Findings:
        return read(options.probe_dir) if options.probe_dir else run_probe(options.qemu_binary)

    def offer(kvm: bool) -> None:
        # Only here is gRPC loaded: standalone mode doesn't need it.
        from turtles.handler.device_plugin import KVM, TUN, VHOST_NET, VHOST_VSOCK, DevicePlugins

        offers = (TUN, VHOST_NET, VHOST_VSOCK, *((KVM,) if kvm else ()))
        devices.append(DevicePlugins(options.device_plugins_dir, offers, watcher, root=options.host_root))
        devices[-1].start()

    if not options.device_plugins_dir:
        return NodeAgent(client, options.node_name, findings, servers=servers)
    # The folder itself isn't mounted here: it has secrets of all Pods in it
    kubelet_dir = Path("/proc/1/root", *Path(options.pods_dir).parent.parts[1:])
    return NodeAgent(client, options.node_name, findings, servers=servers, offer_devices=offer, kubelet_dir=kubelet_dir)
