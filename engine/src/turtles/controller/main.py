# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-controller``: Turns VirtualMachines into VirtualMachineInstances, and these into launcher Pods."""

import argparse
import logging
import os
import sys
import threading
from collections.abc import Callable

from turtles import __version__
from turtles.command import Command
from turtles.controller import metrics
from turtles.controller.caches import Caches
from turtles.controller.cdi_config import CDIConfigController
from turtles.controller.cdi_object import CDIController
from turtles.controller.clone.controller import CloneController
from turtles.controller.data_source.controller import DataSourceController
from turtles.controller.data_volume.consumer import ConsumerController
from turtles.controller.data_volume.controller import DataVolumeController
from turtles.controller.data_volume.cron.controller import DataImportCronController
from turtles.controller.data_volume.populator.controller import PopulatorController
from turtles.controller.data_volume.upload.controller import UploadController
from turtles.controller.disruption import DisruptionController
from turtles.controller.evacuation import EvacuationController
from turtles.controller.export.controller import ExportController
from turtles.controller.kubevirt.controller import KubeVirtController
from turtles.controller.migration.controller import MigrationController
from turtles.controller.node import NodeController
from turtles.controller.noted_ends import NotedEnds
from turtles.controller.pod.config import LauncherConfig
from turtles.controller.pool.controller import PoolController
from turtles.controller.replicaset.controller import ReplicaSetController
from turtles.controller.restore.controller import RestoreController
from turtles.controller.shared import Shared
from turtles.controller.snapshot.controller import SnapshotController
from turtles.controller.storage_profile import StorageProfileController
from turtles.controller.vm.controller import VMController
from turtles.controller.vm.mac_pool import MacPoolError, Range
from turtles.controller.vmi.controller import VMIController
from turtles.controller.workload_update.controller import WorkloadUpdateController
from turtles.errors import ConfigurationError
from turtles.kube import metrics as kube_metrics
from turtles.kube.client import Client
from turtles.kube.configuration import ConfigurationWatch
from turtles.kube.events import Recorder
from turtles.kube.kubevirt import MIGRATION
from turtles.kube.leader import Leadership
from turtles.kube.manager import Manager
from turtles.metrics import Source

log = logging.getLogger(__name__)

COMPONENT = "virt-controller"


class VirtController:
    """All controllers of the component."""

    def __init__(
        self,
        client: Client,
        config: LauncherConfig,
        namespace: str = "kubevirt",
        in_touch_since: Callable[[], float] = lambda: 0.0,
        macs: Range | None = None,
        importer_image: str = "",
        exporter_image: str = "",
    ) -> None:
        """Put them together.

        :param macs: addresses for interfaces; without them, they are derived.
        :param namespace: the engine's.
        :param importer_image: of importers; that of launchers if not given.
        :param exporter_image: of export servers; likewise.
        :param in_touch_since: see :class:`NodeController`.
        """
        self.configuration = ConfigurationWatch(client, namespace)
        self.recorder = recorder = Recorder(client, COMPONENT)
        self._manager = manager = Manager(client)
        self.caches = caches = Caches.of(manager, self.configuration.informer)
        shared = Shared(client, manager, caches, recorder, lambda: self.configuration.current)
        noted_ends = NotedEnds()
        image = importer_image or config.image
        vmis = VMIController(shared, config, noted_ends)
        for controller in (
            VMController(shared, noted_ends, macs),
            ReplicaSetController(shared),
            PoolController(shared),
            SnapshotController(shared),
            CloneController(shared),
            RestoreController(shared),
            vmis,
            MigrationController(shared, vmis.launcher_config),
            EvacuationController(shared),
            WorkloadUpdateController(shared, config.image),
            NodeController(shared, in_touch_since),
            DisruptionController(shared),
            DataSourceController(shared),
            StorageProfileController(shared),
            CDIController(shared),
            CDIConfigController(shared),
            DataVolumeController(shared, image, vmis.mounts_images),
            UploadController(shared, image),
            PopulatorController(shared),
            DataImportCronController(shared, image),
            ConsumerController(shared, vmis.launcher_config),
            ExportController(shared, exporter_image or config.image, namespace),
            KubeVirtController(shared, namespace, config.image),
        ):
            manager.add(controller.controller())

    @property
    def ready(self) -> threading.Event:
        """Set once the caches hold everything: the component works, or waits to lead."""
        return self._manager.ready

    def start(self, gate: threading.Event) -> None:
        """Fill the caches, then work whenever ``gate`` is set; returns at once."""
        self._manager.start(gate)

    def stop(self) -> None:
        """Stop working; requests on their way are not waited for."""
        self._manager.stop()
        self.recorder.close()

    def metrics(self, gate: threading.Event) -> tuple[Source, ...]:
        """Return the component's metrics. To be called once, before the start.

        :param gate: set while the component leads.
        """
        return (
            *metrics.sources(self.caches, self._manager.informer(MIGRATION), lambda: self.configuration.current, gate),
            kube_metrics.of_queues(self._manager.queues),
        )


def _command() -> Command:
    command = Command(COMPONENT, "Turns VirtualMachines into VirtualMachineInstances, and these into launcher Pods.")
    command.add_kubeconfig()
    command.add_namespace()
    command.add_health()
    add = command.parser.add_argument
    add(
        "--launcher-image",
        default=f"turtles/virt-launcher:{__version__}",
        help="image of launcher Pods (default: %(default)s)",
    )
    add("--importer-image", default="", help="image of importers' Pods (default: that of launcher Pods)")
    add("--exporter-image", default="", help="image of export servers' Pods (default: that of launcher Pods)")
    add(
        "--image-volumes",
        default="auto",
        choices=("auto", "yes", "no"),
        help="whether container disks are image volumes or separate containers; auto depends on the versions of "
        "server and nodes and the feature gate ImageVolume (default: %(default)s)",
    )
    add(
        "--mac-pool",
        metavar="START-END",
        help="range of unique MAC addresses for interfaces of VirtualMachines that don't declare one, such as "
        "02:00:00:00:00:00-02:00:00:00:ff:ff (default: derived from the machine's uid)",
    )
    command.add_leader_election()
    return command


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT (exit code 0), or until the lease is lost (1)."""
    command = _command()
    # Many short tasks wait for each other here; the default of 5 ms would be most of a request's time.
    sys.setswitchinterval(0.001)
    return command.run(lambda options: _run(command, options), argv)


def _run(command: Command, options: argparse.Namespace) -> int:
    client = Client.from_kubeconfig(options.kubeconfig, user_agent=f"{COMPONENT}/{__version__}")
    leadership = Leadership(
        client,
        options.namespace,
        COMPONENT,
        options.identity,
        elect=options.leader_elect,
        stopped=command.stopped,
    )
    try:
        macs = Range.parse(options.mac_pool) if options.mac_pool else None
    except MacPoolError as error:
        raise ConfigurationError(f"--mac-pool: {error}") from error
    images = {"yes": True, "no": False}.get(options.image_volumes)
    controller = VirtController(
        client,
        LauncherConfig(options.launcher_image, image_volumes=images),
        options.namespace,
        leadership.in_touch_since,
        macs,
        options.importer_image,
        options.exporter_image,
    )
    controller.configuration.follow_verbosity("virtController", options.log_level)
    log.info("started", extra={"version": __version__, "server": client.url, "pid": os.getpid()})
    sources = (*controller.metrics(leadership.gate), kube_metrics.of_client(client))
    controller.start(leadership.gate)
    with command.health(options, controller.ready.is_set, sources):
        command.stopped.wait()
    controller.stop()
    leadership.stop()
    log.info("stopped")
    return int(leadership.lost.is_set())


if __name__ == "__main__":
    sys.exit(main())
