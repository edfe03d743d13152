# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a VM's libvirtd running, and a connection to it."""

import logging
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import libvirt

from turtles.launcher import loop, process
from turtles.launcher.errors import LaunchError
from turtles.launcher.libvirtd import Libvirtd, LibvirtdError

log = logging.getLogger(__name__)

_START_SECONDS = 30
_FIRST_ATTEMPTS = 3
_RESTART_DELAYS = (0.0, 0.2, 1.0, 5.0)
#: A libvirtd that ran this long is restarted immediately, however often it has died before.
_STABLE_SECONDS = 30


class Supervisor:
    """Starts libvirtd, and restarts it when it has ended; it finds the running VM by itself.

    :param socket: where the node agent finds libvirtd's socket, once it is published.
    :param on_lifecycle: libvirt's callback for lifecycle events of domains.
    :param on_restart: called when a restarted libvirtd answers.
    """

    def __init__(
        self,
        libvirtd: Libvirtd,
        socket: Path,
        on_lifecycle: Callable[[libvirt.virConnect, libvirt.virDomain, int, int, object], None],
        on_restart: Callable[[], None],
    ) -> None:
        self._libvirtd, self._socket = libvirtd, socket
        self._on_lifecycle, self._on_restart = on_lifecycle, on_restart
        #: None while there is none.
        self.connection: libvirt.virConnect | None = None
        self._restarts = 0
        self._started_at = 0.0

    def start(self) -> None:
        """Configure and start libvirtd; it is ready some time later.

        :raises LaunchError: this machine has no libvirt with a QEMU driver.
        """
        self._libvirtd.configure()
        self._start()

    def connect(self) -> None:
        """Connect to libvirtd, and watch it from then on.

        :raises LaunchError: with the end of libvirtd's log, if it doesn't start.
        """
        for attempt in range(1, _FIRST_ATTEMPTS + 1):
            try:
                self._connect()
                break
            except LibvirtdError as error:
                message = f"libvirtd doesn't start in the Pod: {error}; its log: {self._libvirtd.last_words()}"
            log.warning("%s", message, extra={"attempt": attempt})
            self._libvirtd.kill()
            self._libvirtd.forget()
            if attempt < _FIRST_ATTEMPTS:
                self._start()
        else:
            raise LaunchError(message)
        self._watch()
        process.reap_automatically()

    def publish(self) -> None:
        """Show the node agent libvirtd's socket."""
        self._libvirtd.publish(self._socket)

    def check(self) -> None:
        """Reconnect if libvirtd runs but the connection to it is broken."""
        alive = self.connection is not None and self.connection.isAlive() == 1
        if self._libvirtd.pidfd is not None and not alive:
            self._reconnect()

    def kill(self) -> None:
        """End libvirtd."""
        self._libvirtd.kill()

    def _start(self) -> None:
        self._started_at = monotonic()
        self._libvirtd.start(self._libvirtd.listen())

    def _watch(self) -> None:
        assert self._libvirtd.pidfd is not None
        self._stop_watching = loop.on_readable(self._libvirtd.pidfd, self._on_end)

    def _connect(self) -> None:
        """Connect and subscribe to what happens to the domain.

        :raises LibvirtdError: libvirtd doesn't answer.
        """
        connection = self._libvirtd.connect(_START_SECONDS)
        try:
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None)
        except libvirt.libvirtError as error:
            raise LibvirtdError(f"can't subscribe to libvirtd's events: {error}") from error
        self.connection = connection

    def _on_end(self) -> None:
        self._stop_watching()
        self._libvirtd.forget()
        self.connection = None
        self._socket.unlink(missing_ok=True)
        if monotonic() - self._started_at >= _STABLE_SECONDS:
            self._restarts = 0
        delay = _RESTART_DELAYS[min(self._restarts, len(_RESTART_DELAYS) - 1)]
        self._restarts += 1
        log.warning(
            "libvirtd exited; the VM keeps running",
            extra={"restart_in_seconds": delay, "log": self._libvirtd.last_words()},
        )
        loop.after(delay, self._restart)

    def _restart(self) -> None:
        self._start()
        process.reap_automatically()
        self._watch()
        self._reconnect()

    def _reconnect(self) -> None:
        """Connect to a restarted libvirtd, or kill it: its end is handled like any other."""
        try:
            self._connect()
        except LibvirtdError as error:
            log.warning("libvirtd doesn't answer", extra={"error": str(error)})
            self._libvirtd.kill()
            return
        self.publish()
        log.info("libvirtd is back")
        self._on_restart()
