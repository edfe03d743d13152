# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-standalone controller-manager``: scheduler, volumes, endpoints and load balancers."""

import argparse
import contextlib
import logging
import sys
import threading
from ipaddress import ip_network
from pathlib import Path

from turtles.command import Command
from turtles.kube.client import AlreadyExists, ApiError, Client
from turtles.kube.events import Recorder
from turtles.kube.manager import Manager
from turtles.kube.resources import (
    CRD,
    ENDPOINTS,
    ENDPOINTSLICE,
    NODE,
    POD,
    PV,
    PVC,
    SERVICE,
    STORAGECLASS,
    VOLUMESNAPSHOT,
    VOLUMESNAPSHOTCLASS,
    VOLUMESNAPSHOTCONTENT,
)
from turtles.standalone.endpoints import EndpointsController
from turtles.standalone.load_balancer import LoadBalancers, Network
from turtles.standalone.local_path import snapshot_kinds
from turtles.standalone.local_path.claims import ClaimController
from turtles.standalone.local_path.provisioner import Provisioner
from turtles.standalone.local_path.snapshots import ContentController, SnapshotController
from turtles.standalone.local_path.volumes import VolumeController
from turtles.standalone.scheduler import Scheduler

log = logging.getLogger(__name__)


def run(client: Client, volumes_dir: Path, external_addresses: tuple[Network, ...], stopped: threading.Event) -> None:
    """Run the controllers until stopped."""
    manager = Manager(client)
    pods, nodes, claims, volumes, classes, services, endpoints, slices = (
        manager.informer(resource) for resource in (POD, NODE, PVC, PV, STORAGECLASS, SERVICE, ENDPOINTS, ENDPOINTSLICE)
    )
    snapshots, contents, snapshot_classes = (
        manager.informer(resource) for resource in (VOLUMESNAPSHOT, VOLUMESNAPSHOTCONTENT, VOLUMESNAPSHOTCLASS)
    )
    provisioner = Provisioner(client, volumes_dir)
    provisioner_events = Recorder(client, "local-path-provisioner")
    endpoints_controller = EndpointsController(client, pods, services, endpoints, slices)
    for controller in (
        Scheduler(client, Recorder(client, "default-scheduler"), pods, nodes, claims, volumes, classes),
        ClaimController(client, provisioner_events, provisioner, pods, claims, volumes, classes, nodes),
        VolumeController(client, provisioner, claims, volumes),
        SnapshotController(client, provisioner_events, snapshots, contents, snapshot_classes, claims, volumes),
        ContentController(client, provisioner, contents, volumes),
        LoadBalancers(client, Recorder(client, "service-controller"), services, external_addresses),
        endpoints_controller,
    ):
        manager.add(controller.controller())
    _define_snapshots(client, stopped)
    prepared = threading.Event()
    manager.start(prepared)
    try:
        while not stopped.is_set() and not manager.ready.wait(0.5):
            pass
        endpoints_controller.prepare()
        while not stopped.is_set():
            try:
                provisioner.prepare(classes.list(), snapshot_classes.list())
                prepared.set()
                log.info("ready", extra={"server": client.url})
                break
            except ApiError as error:
                log.warning("can't create the classes of storage yet", extra={"error": str(error)})
                stopped.wait(1.0)
        stopped.wait()
    finally:
        manager.stop()


def _define_snapshots(client: Client, stopped: threading.Event) -> None:
    """Have the server serve volume snapshots. Whoever has brought their definitions keeps them."""
    missing = snapshot_kinds.crds()
    while missing and not stopped.is_set():
        try:
            with contextlib.suppress(AlreadyExists):
                client.create(CRD, missing[0])
            del missing[0]
        except ApiError as error:
            log.warning("can't define volume snapshots yet", extra={"error": str(error)})
            stopped.wait(1.0)


def main(argv: list[str] | None = None) -> int:
    """Run the controllers: ``--kubeconfig FILE --volumes-dir DIR``; SIGTERM ends it."""
    command = Command(
        "virt-standalone controller-manager",
        "Binds Pods to nodes, provisions volumes, maintains endpoints.",
        component="controller-manager",
    )
    command.add_kubeconfig()
    command.parser.add_argument(
        "--volumes-dir", required=True, type=Path, help="where directories of local-path volumes are created"
    )

    command.parser.add_argument(
        "--external-address",
        action="append",
        default=[],
        type=_network,
        metavar="NETWORK",
        help="addresses for Services of type LoadBalancer; may be repeated",
    )

    def main(options: argparse.Namespace) -> None:
        client = Client.from_kubeconfig(options.kubeconfig)
        run(client, options.volumes_dir.absolute(), tuple(options.external_address), command.stopped)

    return command.run(main, argv)


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no address or network: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
