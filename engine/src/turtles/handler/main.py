# SPDX-License-Identifier: GPL-3.0-or-later
"""``virt-handler``: the command that runs on every node."""

import argparse
import logging
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turtles.api import labels
from turtles.handler import domain
from turtles.handler.node import NodeAgent, run_probe
from turtles.handler.state import Store
from turtles.handler.sync import Key, Synchroniser
from turtles.handler.watcher import Watcher
from turtles.handler.workers import Workers
from turtles.health import HealthServer
from turtles.kube.client import Client
from turtles.kube.configuration import ConfigurationWatch
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, wait_synced
from turtles.kube.kubevirt import VMI
from turtles.kube.queue import WorkQueue
from turtles.log import setup_logging
from turtles.probe.node import CACHE, Findings, read

log = logging.getLogger(__name__)

#: VMIs worked on at once. Mostly they wait for libvirt; starting one takes a fraction of a second.
_WORKERS = 12
#: Longest pause between two attempts, seconds.
_LONGEST_PAUSE = 30.0


class _Cluster:
    """The API server, as :class:`turtles.handler.sync.Synchroniser` sees it."""

    def __init__(self, client: Client, node: str) -> None:
        self._client = client
        self._recorder = Recorder(client, "virt-handler", node)
        self.informer = Informer(client, VMI, label_selector=f"{labels.NODE_NAME}={node}")
        self.queue: WorkQueue[Key] = WorkQueue("vmi", first_delay=0.05, longest_delay=_LONGEST_PAUSE)
        self.informer.add_handler(self._changed)

    def _changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        obj = new or old
        if obj is not None:
            self.queue.add((obj["metadata"]["namespace"], obj["metadata"]["name"]))

    def get(self, key: Key) -> dict[str, Any] | None:
        return self.informer.get(*key)

    def patch(self, vmi: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        metadata = vmi["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
        # Seen at once, so that the next look doesn't start from what was there before.
        self.informer.observe(self._client.patch(VMI, metadata["namespace"], metadata["name"], body))

    def event(self, vmi: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        self._recorder.event(vmi, type_, reason, message)

    def enqueue(self, key: Key) -> None:
        self.queue.add(key)

    def close(self) -> None:
        self.queue.close()
        self.informer.stop()
        self._recorder.close()


def main(argv: list[str] | None = None) -> int:
    """Run the node agent until SIGTERM or SIGINT. Guests go on without it.

    Where there is no KubeVirt object any more, the engine is being removed, and the node is left as it was found.
    """
    parser = argparse.ArgumentParser(prog="virt-handler", description="Runs the virtual machines of one node.")
    parser.add_argument("--kubeconfig", help="the cluster's address and credentials; inside a Pod its own are used")
    parser.add_argument("--node-name", required=True, help="name of this node's object")
    parser.add_argument("--pods-dir", default="/var/lib/kubelet/pods", help="where the Pods' volumes are")
    parser.add_argument("--state-dir", default="/var/lib/turtles/handler", type=Path, help="what survives a restart")
    parser.add_argument("--probe-dir", type=Path, help="what virt-node-probe found; without it, it is run here")
    parser.add_argument("--device-plugins-dir", type=Path, help="the kubelet's; devices are offered to it where given")
    parser.add_argument("--host-root", default=Path("/"), type=Path, help="where the node's own /dev is seen below")
    parser.add_argument("--node-folder", action="append", default=[], type=Path, help="a folder of the node that goes "
                        "when the engine is removed; more than one may be given")
    parser.add_argument("--qemu-binary", default="/usr/bin/qemu-system-x86_64", help="QEMU, here and in the launchers")
    parser.add_argument("--namespace", default="kubevirt", help="namespace of the engine, with the KubeVirt object")
    parser.add_argument("--health-bind", default="", help="address of health and metrics; all if not given")
    parser.add_argument("--health-port", type=int, help="port of health and metrics; not served if not given")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    options = parser.parse_args(argv)
    setup_logging("virt-handler", options.log_level)

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    client = Client.from_kubeconfig(options.kubeconfig)
    configuration = ConfigurationWatch(client, options.namespace)
    configuration.follow_verbosity("virtHandler", options.log_level)
    configuration.informer.start()
    domain.start_event_loop()
    watcher = Watcher()

    def findings() -> Findings:
        return read(options.probe_dir) if options.probe_dir else run_probe(options.qemu_binary)

    devices: list[Any] = []

    def offer(kvm: bool) -> None:
        # Only here is gRPC loaded, which standalone mode needs not.
        from turtles.handler.device_plugin import KVM, TUN, VHOST_NET, DevicePlugins

        offers = (TUN, VHOST_NET, *((KVM,) if kvm else ()))
        devices.append(DevicePlugins(options.device_plugins_dir, offers, watcher, root=options.host_root))
        devices[0].start()

    if options.device_plugins_dir:
        # The folder itself isn't mounted here: it has secrets of all Pods in it
        kubelet_dir = Path("/proc/1/root", *Path(options.pods_dir).parent.parts[1:])
        node = NodeAgent(client, options.node_name, findings, offer_devices=offer, kubelet_dir=kubelet_dir)
    else:
        node = NodeAgent(client, options.node_name, findings)
    node.start()
    cluster = _Cluster(client, options.node_name)
    synchroniser = Synchroniser(
        cluster, options.node_name, options.pods_dir, Store(options.state_dir), watcher, emulator=options.qemu_binary,
        capability_cache=options.probe_dir / CACHE if options.probe_dir else None,
        configuration=lambda: configuration.current,
    )
    cluster.informer.start()
    health = None
    if options.health_port is not None:
        health = HealthServer("virt-handler", options.health_bind, options.health_port, lambda: cluster.informer.synced)
    while not wait_synced((cluster.informer, configuration.informer), 1.0):
        if stop.is_set():
            return 0
    synchroniser.forget_except({vmi["metadata"]["uid"] for vmi in cluster.informer.list()})
    log.info("ready", extra={"node": options.node_name})
    Workers(cluster.queue, synchroniser.sync, _WORKERS, "vmi")
    stop.wait()
    log.info("leaving")
    if health is not None:
        health.close()
    node.stop()
    for each in devices:
        each.stop()
    cluster.close()
    if not configuration.informer.list():
        log.info("the engine is removed", extra={"node": options.node_name})
        node.leave(options.node_folder)
    configuration.informer.stop()
    return 0
