# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-standalone dns``: serves the cluster's names, or prints the objects that lead to it."""

import argparse
import asyncio
import logging
import os
import sys
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import yaml

from turtles.command import Command
from turtles.kube.client import Client
from turtles.kube.informer import Informer
from turtles.kube.resources import ENDPOINTSLICE, SERVICE
from turtles.standalone.dns import addresses, zone
from turtles.standalone.dns.answers import Answers
from turtles.standalone.dns.server import Server, bind
from turtles.standalone.dns.upstream import Upstream
from turtles.standalone.dns.zone import Zone

log = logging.getLogger(__name__)

#: User and group "nobody": answering strangers' packets needs no rights.
_NOBODY = 65534


def main(argv: list[str] | None = None) -> int:
    """Serve DNS, or with ``--manifests`` print its objects as YAML; SIGTERM ends it."""
    command = Command("virt-standalone dns", "Serves the names of Services and Pods.", component="dns")
    command.add_kubeconfig()
    add = command.parser.add_argument
    add("--service-cidr", required=True, type=_network, help="the range of cluster IPs")
    add("--service-cidr-ipv6", action="append", default=[], type=_network6, help="that of the second family")
    add("--pod-cidr", required=True, type=_network, help="the Pods' network; its first address is served")
    add("--client", action="append", default=[], type=_network, metavar="NETWORK", help="another network of Pods")
    add("--port", type=int, default=10053, help="port of the server (default: %(default)s)")
    add("--domain", default=addresses.DOMAIN, help="domain of the cluster (default: %(default)s)")
    add("--upstream", action="append", default=[], metavar="ADDRESS", help="server for other names; may be repeated")
    add("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"), help="file with servers for other names")
    add("--manifests", action="store_true", help="print the Service and its endpoints, and do nothing else")

    def run(options: argparse.Namespace) -> None:
        address, cluster_ip = addresses.gateway(str(options.pod_cidr)), addresses.cluster_ip(str(options.service_cidr))
        if options.manifests:
            print(yaml.safe_dump_all(addresses.manifests(str(options.service_cidr), address, options.port)), end="")
            return
        pods = [options.pod_cidr, *options.client]
        sockets = bind(address, options.port)
        client = Client.from_kubeconfig(options.kubeconfig)
        _give_up_rights()
        services, slices = Informer(client, SERVICE), Informer(client, ENDPOINTSLICE)
        services.add_index("address", zone.cluster_ips)
        services.add_index("namespace", zone.namespace_of)
        slices.add_index("address", zone.named_addresses)
        slices.add_index("service", zone.service_of)
        answers = Answers(
            Zone(options.domain, services, slices),
            Upstream(tuple(options.upstream), options.resolv_conf, (address, cluster_ip)),
            (options.service_cidr, *options.service_cidr_ipv6, *pods),
            lambda: services.synced and slices.synced,
        )
        server = Server(answers, pods)
        for informer in (services, slices):
            informer.start()
        log.info("ready", extra={"address": address, "port": options.port, "domain": options.domain})
        try:
            asyncio.run(server.serve(sockets, command.stopped))
        finally:
            for informer in (services, slices):
                informer.stop()

    return command.run(run, argv)


def _network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _network6(text: str) -> IPv6Network:
    try:
        return IPv6Network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _give_up_rights() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)


if __name__ == "__main__":
    sys.exit(main())
