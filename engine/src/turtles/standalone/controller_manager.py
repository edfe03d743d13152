# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-standalone controller-manager``: scheduler, volumes and endpoints, with one set of informers."""

import argparse
import logging
import sys
import threading
from pathlib import Path

from turtles.command import Command
from turtles.kube.client import ApiError, Client
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, wait_synced
from turtles.kube.resources import ENDPOINTS, ENDPOINTSLICE, NODE, POD, PV, PVC, SERVICE, STORAGECLASS
from turtles.standalone.endpoints import EndpointsController
from turtles.standalone.local_path import LocalPath
from turtles.standalone.scheduler import Scheduler

log = logging.getLogger(__name__)


def run(client: Client, volumes_dir: Path, stopped: threading.Event) -> None:
    """Run scheduler, volumes and endpoints until stopped."""
    pods, nodes, claims, volumes, classes, services, endpoints, slices = informers = [
        Informer(client, resource) for resource in (POD, NODE, PVC, PV, STORAGECLASS, SERVICE, ENDPOINTS, ENDPOINTSLICE)
    ]
    for informer in informers:
        informer.start()
    while not stopped.is_set() and not wait_synced(informers, 0.5):
        pass
    scheduler = Scheduler(client, Recorder(client, "default-scheduler"), pods, nodes, claims, volumes, classes)
    local_path = LocalPath(
        client, Recorder(client, "local-path-provisioner"), volumes_dir, pods, claims, volumes, classes, nodes
    )
    endpoints_controller = EndpointsController(client, pods, services, endpoints, slices)
    try:
        if not stopped.is_set():
            endpoints_controller.start()
        while not stopped.is_set():
            try:
                local_path.start()
                break
            except ApiError as error:
                log.warning("volumes are not served yet", extra={"error": str(error)})
                stopped.wait(1.0)
        if not stopped.is_set():
            scheduler.start()
            log.info("ready", extra={"server": client.url})
        stopped.wait()
    finally:
        scheduler.stop()
        local_path.stop()
        endpoints_controller.stop()
        for informer in informers:
            informer.stop()


def main(argv: list[str] | None = None) -> int:
    """Run the controllers: ``--kubeconfig FILE --volumes-dir DIR``; SIGTERM ends it."""
    command = Command(
        "virt-standalone controller-manager",
        "Binds Pods to nodes, provisions volumes, keeps endpoints.",
        component="controller-manager",
    )
    command.add_kubeconfig()
    command.parser.add_argument("--volumes-dir", required=True, type=Path, help="where volumes of local-path are made")

    def main(options: argparse.Namespace) -> None:
        run(Client.from_kubeconfig(options.kubeconfig), options.volumes_dir.absolute(), command.stopped)

    return command.run(main, argv)


if __name__ == "__main__":
    sys.exit(main())
