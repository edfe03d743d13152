# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-trace``: shows where the time goes when a virtual machine starts."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from turtles.command import Tool
from turtles.errors import ConfigurationError
from turtles.kube.client import ApiError, Client
from turtles.trace import sources
from turtles.trace.picture import draw
from turtles.trace.steps import Step, latest_start, steps_of

#: The width of a component's name in the table.
_COMPONENT = 18


class NothingFound(Exception):
    """No log says anything about the machine."""


def main(argv: list[str] | None = None) -> int:
    """Print the steps of a machine's latest start; exit code 1 if there is nothing to print, 2 for wrong options."""
    command = Tool("virt-trace", "Shows from the components' logs what they did for a virtual machine, and when.")
    command.add_kubeconfig()
    add = command.parser.add_argument
    add("name", help="of the VirtualMachine or VirtualMachineInstance")
    add("-n", "--namespace", default="default", help="its namespace (default: %(default)s)")
    add("--all", action="store_true", help="everything logged about it, not only its latest start")
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--picture", type=Path, metavar="FILE", help="also draw it, as SVG")
    where = command.parser.add_mutually_exclusive_group()
    where.add_argument("--instance", metavar="NAME", help="of an engine without Kubernetes on this machine")
    where.add_argument(
        "--engine-namespace",
        default="kubevirt",
        metavar="NAME",
        help="of an engine in a cluster (default: %(default)s)",
    )
    return command.show(_trace, argv, (ApiError, NothingFound))


def _trace(options: argparse.Namespace) -> str:
    steps = steps_of(options.namespace, options.name, _lines(options))
    if not options.all:
        steps = latest_start(steps)
    if not steps:
        raise NothingFound(
            f"no start is logged for {options.namespace}/{options.name}: check the name and --namespace; logs are "
            "rotated, and those of Pods end with them"
        )
    if options.picture is not None:
        options.picture.write_text(draw(f"{options.namespace}/{options.name}", steps), encoding="utf-8")
    return _as_json(steps) if options.json else table(steps)


def _lines(options: argparse.Namespace) -> Iterator[str]:
    kubeconfig = options.kubeconfig
    if options.instance and not kubeconfig:
        kubeconfig = f"/etc/{options.instance}/admin.kubeconfig"
        if not Path(kubeconfig).exists():
            raise ConfigurationError(
                f"{kubeconfig} does not exist: --instance is the turtles_instance of an engine here"
            )
    client = Client.from_kubeconfig(kubeconfig)
    components = (
        sources.of_instance(options.instance)
        if options.instance
        else sources.of_cluster(client, options.engine_namespace)
    )
    return chain(components, sources.of_launchers(client, options.namespace, options.name))


def table(steps: Sequence[Step]) -> str:
    """Return a table: seconds since the first step and since the one before, component, what happened."""
    lines = [f"{'seconds':>9} {'step':>8}  {'component':<{_COMPONENT}} what"]
    before = began = steps[0].time
    for step in steps:
        times = f"{step.time - began:9.3f} {step.time - before:8.3f}"
        lines.append(f"{times}  {step.component:<{_COMPONENT}} {step.text()}")
        before = step.time
    return "\n".join(lines)


def _as_json(steps: Sequence[Step]) -> str:
    began = steps[0].time
    return json.dumps(
        [
            {
                "seconds": round(step.time - began, 3),
                "component": step.component,
                "message": step.message,
                "facts": dict(step.facts),
            }
            for step in steps
        ],
        indent=2,
    )


if __name__ == "__main__":
    sys.exit(main())
