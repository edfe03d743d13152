# SPDX-License-Identifier: GPL-3.0-or-later
"""Connects users to devices of a guest: serial console, screen and USB ports, which are sockets of QEMU in its Pod.

Console and screen have one session each. A new one ends the one before, unless its user asks to leave that alone. A
session with a USB port takes the first one that is free.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import PurePosixPath

from turtles.api import node_server
from turtles.domain import paths
from turtles.handler.errors import OperationFailed
from turtles.handler.guest import Guest

log = logging.getLogger(__name__)

#: How many bytes are read at once.
_CHUNK = 65536
_NAMES = {node_server.CONSOLE: "serial console", node_server.VNC: "VNC"}
#: A guest's uid, and the device.
_Key = tuple[str, PurePosixPath]


class Session:
    """One user at one device."""

    def __init__(self) -> None:
        self._stop, self._ended = asyncio.Event(), asyncio.Event()

    async def end(self) -> None:
        """End it; return when the device is free."""
        self._stop.set()
        await self._ended.wait()

    def leave(self) -> None:
        """Say that the device is free."""
        self._ended.set()

    async def run(self, device: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes between the device and the user until either has enough, or it is ended."""
        await carry(*await asyncio.open_unix_connection(sock=device), reader, writer, self._stop)


class Consoles:
    """The sessions of a node's guests. Everything happens on one event loop."""

    def __init__(self) -> None:
        self._sessions: dict[_Key, Session] = {}

    @contextlib.asynccontextmanager
    async def connect(
        self, guest: Guest, stream: str, *, preserve: bool
    ) -> AsyncIterator[tuple[Session, socket.socket]]:
        """Connect to a guest's device, after ending the session that there may be.

        :param preserve: leave that session alone.
        :raises OperationFailed: it isn't possible.
        """
        session = Session()
        key = guest.uid, await self._free(guest.uid, stream, preserve=preserve)
        # A look at the screen is nobody's session
        if stream != node_server.SCREEN:
            self._sessions[key] = session
        try:
            yield session, await _open(guest, key[1])
        finally:
            if self._sessions.get(key) is session:
                del self._sessions[key]
            session.leave()

    async def _free(self, uid: str, stream: str, *, preserve: bool) -> PurePosixPath:
        """Return the socket of a device that nobody uses.

        :raises OperationFailed: there is none.
        """
        if stream == node_server.USB:
            ports = [paths.usb_redirection_socket(uid, port) for port in range(paths.USB_REDIRECTIONS)]
            free = next((port for port in ports if (uid, port) not in self._sessions), None)
            if free is None:
                raise OperationFailed(503, f"all {len(ports)} USB ports for devices of clients are in use")
            return free
        device = paths.serial_socket(uid) if stream == node_server.CONSOLE else paths.vnc_socket(uid)
        # Whoever waited for the end of a session may find another one's
        while stream in _NAMES and (session := self._sessions.get((uid, device))) is not None:
            if preserve:
                raise OperationFailed(409, f"Active {_NAMES[stream]} connection. Request denied.")
            await session.end()
        return device


async def _open(guest: Guest, device: PurePosixPath) -> socket.socket:
    launcher = guest.launcher
    try:
        if launcher is None:
            raise FileNotFoundError("the guest has no launcher")
        return await asyncio.to_thread(launcher.connect, device)
    except OSError as error:
        raise OperationFailed(503, f"the guest's {device.name} can't be reached: {error}") from error


async def carry(
    device_reader: asyncio.StreamReader,
    device_writer: asyncio.StreamWriter,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    stop: asyncio.Event,
) -> None:
    """Carry bytes between a device and a user until either has enough or *stop* is set; close the device."""
    tasks = [
        asyncio.ensure_future(_copy(device_reader, writer)),
        asyncio.ensure_future(_copy(reader, device_writer)),
        asyncio.ensure_future(stop.wait()),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        device_writer.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()
