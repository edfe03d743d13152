# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-controller``: VirtualMachines become VirtualMachineInstances, those become launcher Pods."""

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable

from turtles import __version__
from turtles.api.phases import phase_of
from turtles.controller.caches import Caches
from turtles.controller.disruption import DisruptionController
from turtles.controller.kubevirt.controller import KubeVirtController
from turtles.controller.node import NodeController
from turtles.controller.noted_ends import NotedEnds
from turtles.controller.pod.launcher import LauncherConfig
from turtles.controller.vm.controller import VMController
from turtles.controller.vmi.controller import VMIController
from turtles.health import HealthServer
from turtles.kube.client import Client, ConfigError
from turtles.kube.configuration import ConfigurationWatch
from turtles.kube.events import Recorder
from turtles.kube.leader import LeaderElector
from turtles.kube.manager import Manager
from turtles.log import setup_logging

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
    ) -> None:
        """Put them together.

        :param namespace: the engine's.
        :param in_touch_since: see :class:`NodeController`.
        """
        self.configuration = ConfigurationWatch(client, namespace)
        self.recorder = recorder = Recorder(client, COMPONENT)
        self._manager = manager = Manager(client)
        self.caches = caches = Caches.of(manager, self.configuration.informer)
        noted_ends = NotedEnds()
        for controller in (
            VMController(client, caches, recorder, noted_ends),
            VMIController(client, caches, recorder, config, lambda: self.configuration.current, noted_ends),
            NodeController(client, caches, recorder, in_touch_since),
            DisruptionController(client, manager, caches),
            KubeVirtController(client, manager, caches, recorder, namespace, config.image),
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

    def metrics(self, gate: threading.Event) -> dict[str, float]:
        """Return the component's metrics, under KubeVirt's names where it has them."""
        phases = Counter(phase_of(vmi).lower() for vmi in self.caches.vmis.list())
        return {
            "kubevirt_virt_controller_leading_status": float(gate.is_set()),
            "kubevirt_vmi_number_of_running": float(phases["running"]),
            "kubevirt_number_of_vms": float(len(self.caches.vms.list())),
        }


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMPONENT, description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kubeconfig", metavar="FILE", help="default: the Pod's service account, then ~/.kube/config")
    parser.add_argument("--launcher-image", default=f"turtles/virt-launcher:{__version__}",
                        help="image of launcher Pods (default: %(default)s)")
    parser.add_argument("--image-volumes", default="auto", choices=("auto", "yes", "no"),
                        help="whether container disks are image volumes or containers of their own; auto goes by the "
                             "versions of server and nodes and the feature gate ImageVolume (default: %(default)s)")
    parser.add_argument("--namespace", default="kubevirt",
                        help="where the KubeVirt object and the lease are (default: %(default)s)")
    parser.add_argument("--leader-elect", action=argparse.BooleanOptionalAction, default=True,
                        help="work only while holding the lease virt-controller (default: yes)")
    parser.add_argument("--identity", default=socket.gethostname(),
                        help="holder of the lease; must be unique among replicas and stable over restarts "
                             "(default: the host's name)")
    parser.add_argument("--health-bind", default="", help="address of health and metrics; all if not given")
    parser.add_argument("--health-port", type=int, help="port of health and metrics; not served if not given")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--version", action="version", version=__version__)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT (exit code 0), or until the lease is lost or the kubeconfig unusable (1)."""
    arguments = _arguments(argv)
    setup_logging(COMPONENT, arguments.log_level)
    # Many short tasks wait for each other here; the default of 5 ms would be most of a request's time.
    sys.setswitchinterval(0.001)
    try:
        client = Client.from_kubeconfig(arguments.kubeconfig, user_agent=f"{COMPONENT}/{__version__}")
    except ConfigError as error:
        log.error("%s", error)
        return 1
    ended = threading.Event()
    outcome = [0]

    def lost() -> None:
        outcome[0] = 1
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    images = {"yes": True, "no": False}.get(arguments.image_volumes)
    elector: LeaderElector | None = None
    if arguments.leader_elect:
        elector = LeaderElector(client, arguments.namespace, COMPONENT, arguments.identity, on_lost=lost)
        gate = elector.leading
        elector.start()
    else:
        gate = threading.Event()
        gate.set()
    controller = VirtController(
        client,
        LauncherConfig(arguments.launcher_image, image_volumes=images),
        arguments.namespace,
        elector.in_touch_since if elector else lambda: 0.0,
    )
    controller.configuration.follow_verbosity("virtController", arguments.log_level)
    log.info("started", extra={"version": __version__, "server": client.url, "pid": os.getpid()})
    controller.start(gate)
    health = None
    if arguments.health_port is not None:
        health = HealthServer(COMPONENT, arguments.health_bind, arguments.health_port, controller.ready.is_set,
                              lambda: controller.metrics(gate))
    ended.wait()
    if health is not None:
        health.close()
    controller.stop()
    if elector is not None:
        with contextlib.suppress(Exception):
            elector.stop()
    log.info("stopped")
    return outcome[0]


if __name__ == "__main__":
    sys.exit(main())
