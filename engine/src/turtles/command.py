# SPDX-License-Identifier: GPL-3.0-or-later
"""What all commands have in common: options, --version, logs, signals, errors of configuration, health.

A command is a function from options to an exit code. :class:`Command` gives it a parser with the common options, and
runs it: with logs set up, signals caught, and what can't be configured said in one line.
"""

import argparse
import logging
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from turtles import __version__
from turtles.errors import ConfigurationError
from turtles.log import setup_logging

log = logging.getLogger(__name__)

#: Exit code of a command that can't use its configuration, as of one that can't use its options.
UNUSABLE = 2


class Command:
    """A command's name and options, and the way it runs."""

    def __init__(self, name: str, description: str, *, component: str = "") -> None:
        """Make it with the options that every command has.

        :param name: as it is typed.
        :param description: one sentence for --help.
        :param component: what its log lines name; the command's name if not given.
        """
        self.name, self.component = name, component or name
        self.parser = argparse.ArgumentParser(prog=name, description=description)
        self.parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
        self.parser.add_argument("--version", action="version", version=__version__)
        #: Set by SIGTERM and SIGINT, or by the command itself.
        self.stopped = threading.Event()

    def add_kubeconfig(self) -> None:
        """Add the option that says how to reach the API server."""
        self.parser.add_argument(
            "--kubeconfig", metavar="FILE", help="default: the Pod's service account, then ~/.kube/config"
        )

    def add_namespace(self) -> None:
        """Add the option that says where the engine is."""
        self.parser.add_argument(
            "--namespace",
            default="kubevirt",
            help="namespace of the engine, with the KubeVirt object (default: %(default)s)",
        )

    def add_health(self) -> None:
        """Add the options that say where health and metrics are served."""
        self.parser.add_argument("--health-bind", default="", help="address of health and metrics; all if not given")
        self.parser.add_argument("--health-port", type=int, help="port of health and metrics; not served if not given")

    def run(
        self, main: Callable[[argparse.Namespace], int | None], argv: Sequence[str] | None, *, signals: bool = True
    ) -> int:
        """Parse the options, set up logs, and run the command; return its exit code.

        :param main: does the work; None counts as success.
        :param argv: arguments without the command's name; None takes the process's own.
        :param signals: SIGTERM and SIGINT set :attr:`stopped`; a command that handles them itself says False.
        """
        options = self.parser.parse_args(argv)
        setup_logging(self.component, options.log_level)
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stopped.set())
        try:
            return main(options) or 0
        except ConfigurationError as error:
            log.error("%s", error)
            return UNUSABLE

    def health(
        self,
        options: argparse.Namespace,
        ready: Callable[[], bool],
        metrics: Callable[[], Mapping[str, float]] = dict[str, float],
    ) -> AbstractContextManager[object]:
        """Serve health and metrics where the options say so, until the context ends.

        :raises ConfigurationError: the address can't be listened on.
        """
        if options.health_port is None:
            return nullcontext()
        # Not needed, and not in memory, where nobody asks.
        from turtles.health import HealthServer

        try:
            return HealthServer(self.component, options.health_bind, options.health_port, ready, metrics)
        except OSError as error:
            address = f"{options.health_bind or '*'}:{options.health_port}"
            raise ConfigurationError(f"health can't be served at {address}: {error.strerror}") from error
