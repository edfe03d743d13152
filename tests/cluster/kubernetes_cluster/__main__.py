# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""``python -m kubernetes_cluster``: see --help."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from .build import build
from .cluster import Cluster
from .errors import ClusterError
from .settings import Settings, cache_dir


def main() -> None:
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="kubernetes_cluster", description="A real Kubernetes for tests. Needs root.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help=f"fetch and build everything into {cache_dir()}")
    for name, text in (
        ("up", "start a cluster and wait until it is ready"),
        ("down", "end a cluster and remove all it made"),
        ("run", "run a command on a machine of a cluster"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--instance", default=defaults.instance, help="name of the cluster (%(default)s)")
        if name == "up":
            command.add_argument("--network", default=defaults.network, help="a /16 of its own (%(default)s)")
            command.add_argument(
                "--nodes", type=int, default=defaults.nodes, help="0 for a control plane only (%(default)s)"
            )
            command.add_argument(
                "--programs",
                type=Path,
                metavar="FOLDER",
                help="with programs of another version, 1.20 or later, or of what Kubernetes needs (containerd, etcd)",
            )
            command.add_argument(
                "--api-server-only", action="store_true", help="with --nodes 0: no controller manager, no scheduler"
            )
        if name == "run":
            command.add_argument("machine", help="control, node1, …")
            command.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            build(cache_dir())
            return
        if arguments.command == "up":
            wanted = {name: getattr(arguments, name) for name in ("instance", "network", "nodes")}
            wanted["programs"] = arguments.programs and arguments.programs.resolve()
            cluster = Cluster(Settings(**wanted, controllers=not arguments.api_server_only))
            cluster.up()
            print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
            return
        cluster = Cluster(Settings.load(arguments.instance))
        if arguments.command == "down":
            cluster.down()
        else:
            machines = {m.name: m for m in (cluster.control, *(node.machine for node in cluster.nodes))}
            if arguments.machine not in machines:
                raise ClusterError(f"no machine {arguments.machine!r}: {', '.join(machines)}")
            sys.stdout.write(machines[arguments.machine].run(*arguments.words, timeout=3600))
    except ClusterError as error:
        sys.exit(f"kubernetes_cluster: {error}")


if __name__ == "__main__":
    main()
