# SPDX-License-Identifier: GPL-3.0-or-later
"""What all commands have in common: options, --version, logs, signals, configuration errors, health.

:class:`Command` is for components: it gives them a parser with the common options and runs them, with logs set up,
signals caught, and configuration errors logged in one line. :class:`Tool` is for commands that administrators and roles
run: they print a result as JSON, and errors as text.
"""

import argparse
import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from turtles import __version__
from turtles.errors import ConfigurationError
from turtles.log import setup_logging
from turtles.metrics import Source

log = logging.getLogger(__name__)

#: Exit code after a configuration error: the same as argparse's for an invalid option.
UNUSABLE = 2


class Command:
    """A command's name and options, and the way it runs."""

    def __init__(self, name: str, description: str, *, component: str = "") -> None:
        """Create it with the options that every command has.

        :param name: as typed.
        :param description: for --help.
        :param component: its name in logs; the command's name if not given.
        """
        self.name, self.component = name, component or name
        self.parser = argparse.ArgumentParser(prog=name, description=description)
        self.parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
        self.parser.add_argument("--version", action="version", version=__version__)
        #: Set by SIGTERM and SIGINT, or by the command itself.
        self.stopped = threading.Event()

    def add_kubeconfig(self) -> None:
        """Add the option for the API server's address and credentials."""
        self.parser.add_argument(
            "--kubeconfig", metavar="FILE", help="default: the Pod's service account, then ~/.kube/config"
        )

    def add_namespace(self) -> None:
        """Add the option for the engine's namespace."""
        self.parser.add_argument(
            "--namespace",
            default="kubevirt",
            help="namespace of the engine, with the KubeVirt object (default: %(default)s)",
        )

    def add_leader_election(self) -> None:
        """Take ``--leader-elect`` and ``--identity``: of several replicas, only one works."""
        self.parser.add_argument(
            "--leader-elect",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="work only while holding the component's lease (default: yes)",
        )
        self.parser.add_argument(
            "--identity",
            default=socket.gethostname(),
            help="holder of the lease; unique among replicas and stable over restarts (default: the host's name)",
        )

    def add_health(self) -> None:
        """Add the options for where health and metrics are served."""
        self.parser.add_argument("--health-bind", default="", help="address for health and metrics (default: all)")
        self.parser.add_argument("--health-port", type=_port, help="port for health and metrics (default: none)")

    def run(
        self, main: Callable[[argparse.Namespace], int | None], argv: Sequence[str] | None, *, signals: bool = True
    ) -> int:
        """Parse the options, set up logs, and run the command; return its exit code.

        :param main: does the work and returns an exit code; None counts as success.
        :param argv: arguments without the command's name; None means the process's own.
        :param signals: whether SIGTERM and SIGINT set :attr:`stopped`; False for a command that handles them itself.
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
        metrics: Sequence[Source] = (),
    ) -> AbstractContextManager[object]:
        """Serve health and metrics, if the options ask for them, until the context ends.

        :param metrics: the component's own.
        :raises ConfigurationError: it isn't possible to listen at the address.
        """
        if options.health_port is None:
            return nullcontext()
        # Imported only if needed, to save memory.
        from turtles.health import HealthServer

        try:
            return HealthServer(self.component, options.health_bind, options.health_port, ready, metrics)
        except OSError as error:
            address = f"{options.health_bind or '*'}:{options.health_port}"
            raise ConfigurationError(f"can't serve health at {address}: {error.strerror}") from error


def _port(text: str) -> int | None:
    return int(text) if text else None


class Tool(Command):
    """A command that does one thing, for administrators and roles: prints a result, and errors as text."""

    def report(
        self,
        act: Callable[[argparse.Namespace], Mapping[str, object]],
        argv: Sequence[str] | None,
        failures: tuple[type[Exception], ...] = (),
    ) -> int:
        """Parse the options, act, and print the result as JSON; return the exit code, 1 after a failure.

        Parameters are those of :meth:`show`.
        """
        return self.show(lambda options: json.dumps(act(options)), argv, failures)

    def show(
        self,
        act: Callable[[argparse.Namespace], str],
        argv: Sequence[str] | None,
        failures: tuple[type[Exception], ...] = (),
    ) -> int:
        """Parse the options, act, and print the text that this gives; return the exit code, 1 after a failure.

        :param act: does the work and returns the result.
        :param argv: as for :meth:`run`.
        :param failures: exceptions besides OSError whose messages are for users.
        """
        known: tuple[type[Exception], ...] = (OSError, *failures)

        def main(options: argparse.Namespace) -> int:
            try:
                print(act(options))
            except ConfigurationError as error:
                return self._fail(UNUSABLE, error)
            except known as error:
                return self._fail(1, error)
            return 0

        return self.run(main, argv, signals=False)

    def _fail(self, code: int, error: Exception) -> int:
        print(f"{self.name}: {error}", file=sys.stderr)
        return code
