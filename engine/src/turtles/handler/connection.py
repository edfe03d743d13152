# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to a Pod's libvirtd; beside `handler/domain.py`, nothing else in the agent calls libvirt.

The libvirtd isn't trusted: each call has a deadline. When it is over the connection is given up, whatever it was used
for, and the next call needs another one.
"""

import contextlib
import functools
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import libvirt

from turtles.handler.domain import CALL, Domain, T
from turtles.handler.errors import LauncherBusy, LibvirtError
from turtles.handler.relay import Link, Relay

log = logging.getLogger(__name__)

#: Seconds for all calls that make a connection.
OPENING = 10.0
#: The first definition may find out about QEMU first; the start waits for its monitor, longer the more memory there is.
START = 120.0
#: For the farewell to a libvirtd that isn't needed any more.
CLOSING = 1.0
#: Seconds between two signs of life on a connection, and how many may be missed.
_KEEPALIVE = (5, 4)


def start_event_loop() -> None:
    """Run libvirt's event loop on a thread of its own. To be called once, before the first connection."""
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            try:
                libvirt.virEventRunDefaultImpl()
            except libvirt.libvirtError as error:  # all Pods depend on this thread
                log.error("libvirt's event loop failed: %s", error)
                time.sleep(1)

    threading.Thread(target=run, name="libvirt-events", daemon=True).start()
    # Errors come as exceptions; the library would print them as well.
    libvirt.registerErrorHandler(lambda *_: None, None)


class Connection:
    """A connection to the libvirtd of one Pod.

    :raises LauncherBusy: from every method, if libvirtd doesn't answer in time or the connection is broken.
    :raises LibvirtError: from every method, if libvirtd refuses.
    """

    def __init__(
        self,
        relay: Relay,
        pod: socket.socket,
        on_change: Callable[[], None],
        on_stop: Callable[[int], None],
    ) -> None:
        """Create it over a connected socket, which is the relay's from now on.

        :param on_change: called from other threads when the domain has changed or the connection broke.
        :param on_stop: called with the detail of the domain's STOPPED event.
        """
        self._link: Link = relay.link(pod)
        self._connection: libvirt.virConnect | None = None
        self._callbacks: list[int] = []

        def lifecycle(_connection: Any, _domain: Any, event: int, detail: int, _opaque: Any) -> None:
            if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
                on_stop(detail)
            on_change()

        def changed(*_: Any) -> None:
            on_change()

        def opening() -> None:
            connection = self._connection = libvirt.open(self._link.uri)
            self._link.takes_events = True
            connection.setKeepAlive(*_KEEPALIVE)
            connection.registerCloseCallback(changed, None)
            for event, callback in (
                (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
                (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, changed),
                (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, changed),
                (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, changed),
                (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, changed),
            ):
                self._callbacks.append(connection.domainEventRegisterAny(None, event, callback, None))

        try:
            self.call("its greeting", OPENING, opening)
        except LibvirtError as error:
            self.close()
            raise LauncherBusy(f"libvirtd refused the connection: {error}") from error
        except BaseException:
            self.close()
            raise
        finally:
            self._link.opened()

    def is_alive(self) -> bool:
        """Whether the connection has not broken. libvirtd isn't asked."""
        return self._link.lost is None and self._connection is not None and bool(self._connection.isAlive())

    def domain(self, name: str) -> "Domain | None":
        """Return the domain of that name, None if it isn't defined."""
        try:
            domain = self.call("the domain", CALL, lambda: self._live.lookupByName(name))
        except LibvirtError as error:
            if error.code == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        return Domain(self.call, domain)

    def version(self) -> int:
        """Return libvirtd's version, with three digits each for minor and release: 11003000 is 11.3.0."""
        number: int = self.call("libvirtd's version", CALL, lambda: self._live.getLibVersion())
        return number

    def sev_information(self) -> dict[str, Any]:
        """Return what the node's processor says of SEV, by libvirt's names.

        :raises LibvirtError: it has none.
        """
        found: dict[str, Any] = self.call("the processor's certificates", CALL, lambda: self._live.getSEVInfo())
        return found

    def start(self, xml: str, *, paused: bool) -> "Domain":
        """Define and start a domain. Defined, so that how it ended can be asked for afterwards."""
        domain = self.call("the domain's definition", START, lambda: self._live.defineXML(xml))
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        self.call("the domain's start", START, lambda: domain.createWithFlags(flags))
        return Domain(self.call, domain)

    def close(self) -> None:
        """Close the connection; the domain isn't touched."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Each callback holds on to the connection, and would for ever. They go even if libvirtd says nothing.
            for let_go in (
                *(functools.partial(connection.domainEventDeregisterAny, number) for number in self._callbacks),
                connection.unregisterCloseCallback,
                connection.close,
            ):
                with contextlib.suppress(LauncherBusy, LibvirtError):
                    self.call("its farewell", CLOSING, let_go)
        self._link.cut("is no longer needed")

    @property
    def _live(self) -> "libvirt.virConnect":
        if self._connection is None:
            raise LauncherBusy("the connection to libvirtd is closed")
        return self._connection

    def call(self, what: str, seconds: float, function: Callable[[], T]) -> T:
        """Call libvirt.

        :param what: is waited for, for a message.
        :param seconds: after which the connection is given up.
        """
        try:
            with self._link.within(seconds, what):
                return function()
        except libvirt.libvirtError as error:
            if self._link.lost is not None:
                raise LauncherBusy(f"libvirtd {self._link.lost}") from error
            raise LibvirtError(error.get_error_message() or str(error), error.get_error_code() or -1) from error
        except (ValueError, OverflowError) as error:  # a text that isn't UTF-8, above all
            raise LibvirtError(f"libvirtd's answer can't be read ({what}): {error}") from error
