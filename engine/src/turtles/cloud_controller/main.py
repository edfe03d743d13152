# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-cloud-controller``: a cloud provider for clusters whose nodes are virtual machines."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Mapping

from turtles import __version__
from turtles.cloud_controller import balancers
from turtles.cloud_controller.nodes import NodeController
from turtles.cloud_controller.services import ServiceController
from turtles.command import Command
from turtles.errors import ConfigurationError
from turtles.kube import metrics as kube_metrics
from turtles.kube.client import Client
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer
from turtles.kube.kubevirt import VM, VMI
from turtles.kube.leader import Leadership
from turtles.kube.manager import Manager
from turtles.kube.resources import NODE, SERVICE

log = logging.getLogger(__name__)

COMPONENT = "virt-cloud-controller"
#: Where the workload cluster keeps the lease of its cloud provider.
_NAMESPACE = "kube-system"
#: A name that is the value of a label, and can be a part of others' names.
_CLUSTER = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class CloudController:
    """All controllers of the component.

    :param client: of the workload cluster. :param infrastructure: of the cluster with its machines.
    :param namespace: that of the machines and load balancers.
    """

    def __init__(
        self, client: Client, infrastructure: Client, namespace: str, cluster: str, selector: Mapping[str, str]
    ) -> None:
        self._recorder = recorder = Recorder(client, COMPONENT)
        self.manager = manager = Manager(client)
        vms, vmis = (manager.share(Informer(infrastructure, resource, namespace=namespace)) for resource in (VM, VMI))
        existing = manager.share(
            Informer(infrastructure, SERVICE, namespace=namespace, label_selector=f"{balancers.CLUSTER}={cluster}")
        )
        nodes, services = manager.informer(NODE), manager.informer(SERVICE)
        for controller in (
            NodeController(client, infrastructure, namespace, recorder, nodes, vms, vmis),
            ServiceController(client, infrastructure, namespace, cluster, selector, recorder, services, existing),
        ):
            manager.add(controller.controller())

    def stop(self) -> None:
        """Stop working."""
        self.manager.stop()
        self._recorder.close()


def _command() -> Command:
    command = Command(COMPONENT, "Nodes and load balancers of a cluster whose nodes are virtual machines.")
    command.add_kubeconfig()
    command.add_health()
    add = command.parser.add_argument
    add("--infrastructure-kubeconfig", required=True, metavar="FILE", help="of the cluster that has the machines")
    add("--infrastructure-namespace", required=True, metavar="NAME", help="namespace of the machines")
    add("--cluster-name", required=True, metavar="NAME", help="of the workload cluster, unique in that namespace")
    add(
        "--selector",
        metavar="LABELS",
        help="labels of the machines that serve as load balancer backends, as key=value,… (default: "
        f"{balancers.CLUSTER}=<cluster name>,{balancers.ROLE}=worker)",
    )
    command.add_leader_election()
    return command


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT (exit code 0), or until the lease is lost (1)."""
    command = _command()
    return command.run(lambda options: _run(command, options), argv)


def labels_of(text: str) -> dict[str, str]:
    """Read labels as key=value,…

    :raises ConfigurationError: they are none.
    """
    labels = {}
    for part in text.split(","):
        key, sign, value = part.strip().partition("=")
        if not (key and sign):
            raise ConfigurationError(
                f"--selector {text!r}: {part!r} isn't a label; write key=value, separated by commas"
            )
        labels[key] = value
    return labels


def _run(command: Command, options: argparse.Namespace) -> int:
    if not _CLUSTER.fullmatch(options.cluster_name):
        raise ConfigurationError(
            f"--cluster-name {options.cluster_name!r}: not 1 to 63 lower case letters, digits and inner hyphens"
        )
    default = {balancers.CLUSTER: options.cluster_name, balancers.ROLE: "worker"}
    selector = labels_of(options.selector) if options.selector else default
    agent = f"{COMPONENT}/{__version__}"
    client = Client.from_kubeconfig(options.kubeconfig, user_agent=agent)
    infrastructure = Client.from_kubeconfig(options.infrastructure_kubeconfig, user_agent=agent)
    leadership = Leadership(
        client, _NAMESPACE, COMPONENT, options.identity, elect=options.leader_elect, stopped=command.stopped
    )
    controller = CloudController(
        client, infrastructure, options.infrastructure_namespace, options.cluster_name, selector
    )
    log.info(
        "started",
        extra={"version": __version__, "server": client.url, "infrastructure": infrastructure.url, "pid": os.getpid()},
    )
    sources = (kube_metrics.of_queues(controller.manager.queues), kube_metrics.of_client(client))
    controller.manager.start(leadership.gate)
    with command.health(options, controller.manager.ready.is_set, sources):
        command.stopped.wait()
    controller.stop()
    leadership.stop()
    log.info("stopped")
    return int(leadership.lost.is_set())


if __name__ == "__main__":
    sys.exit(main())
