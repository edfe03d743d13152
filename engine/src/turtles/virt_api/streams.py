# SPDX-License-Identifier: GPL-3.0-or-later
"""Handlers of subresources that connect a user to a guest: console, screen, ports.

To users they are WebSockets with the subprotocol `plain.kubevirt.io`: binary messages whose bytes are the device's or
the connection's, without a prefix.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from turtles.api import node_server
from turtles.api.conditions import condition_of
from turtles.api.kinds.vmi import VMI as VMI_KIND
from turtles.api.objects import Object, get
from turtles.api.phases import FAILED, RUNNING, phase_of
from turtles.api.texts import to_number
from turtles.kube.client import Client
from turtles.virt_api import screenshot
from turtles.virt_api.instances import VMI_NOT_RUNNING, fetch, instance_of
from turtles.virt_api.nodes import Nodes
from turtles.virt_api.status import Failure, conflict

#: How many bytes go into one message (KubeVirt's buffer).
_CHUNK = 10240
#: Largest message of a user.
_LARGEST = 2**20
#: Seconds between two pings, which notice that a user is gone.
_HEARTBEAT = 30.0
#: Seconds to connect to a port of a guest.
_CONNECT = 30.0
#: How much of a wrong value a message shows.
_SHOWN = 40
#: What is true and false in a query.
_YES, _NO = ("true", "t", "1"), ("false", "f", "0")
_NOT_WEBSOCKET = (
    "websocket: the client is not using the websocket protocol: 'upgrade' token not found in 'Connection' header"
)

#: Takes the request, namespace and name of the object, and what follows the subresource's name in the path.
StreamHandler = Callable[[web.Request, str, str, str], Awaitable[web.StreamResponse]]


class _Connection(Protocol):
    """What a user is connected to."""

    async def read(self) -> bytes:
        """Return what came; nothing at the end."""

    async def write(self, data: bytes) -> None:
        """Send."""

    def close(self) -> None:
        """Disconnect."""


def handlers(client: Client, nodes: Nodes) -> dict[str, StreamHandler]:
    """Return all handlers, by name."""
    streams = Streams(client, nodes)
    return {
        "console_vmi": streams.console,
        "vnc_vmi": streams.vnc,
        "screenshot_vmi": streams.screenshot,
        "port_forward_vmi": streams.port_forward,
        "port_forward_vm": streams.port_forward_vm,
        "usbredir_vmi": streams.usbredir,
        "vsock_vmi": streams.vsock,
    }


class Streams:
    """Connections to guests of the VirtualMachineInstances that the client reaches."""

    def __init__(self, client: Client, nodes: Nodes) -> None:
        self._client, self._nodes = client, nodes

    async def console(self, request: web.Request, namespace: str, name: str, path: str) -> web.StreamResponse:
        """Connect to the first serial console. Ends the session that there may be, unless it is to be preserved."""
        vmi = await self._fetch(namespace, name)
        if get(vmi, "spec", "domain", "devices", "autoattachSerialConsole") is False:
            raise Failure(400, "No serial consoles are present.")
        if phase_of(vmi) == FAILED:
            raise conflict(VMI_KIND, name, "VMI is in failed status")
        if phase_of(vmi) != RUNNING:
            raise Failure(400, VMI_NOT_RUNNING)
        return await self._device(request, vmi, node_server.CONSOLE)

    async def vnc(self, request: web.Request, namespace: str, name: str, path: str) -> web.StreamResponse:
        """Connect to the screen (RFB). Ends the session that there may be, unless it is to be preserved."""
        vmi = await self._fetch(namespace, name)
        _check_screen(vmi)
        return await self._device(request, vmi, node_server.VNC)

    async def screenshot(self, request: web.Request, namespace: str, name: str, path: str) -> web.StreamResponse:
        """Return a picture of the screen (PNG). Nobody's session is disturbed."""
        vmi = await self._fetch(namespace, name)
        _check_screen(vmi)
        reader, writer = await self._nodes.open(vmi, node_server.SCREEN)
        try:
            picture = await screenshot.take(reader, writer, wake=request.query.get("moveCursor") == "true")
        except screenshot.ScreenError as error:
            raise Failure(500, f"Internal error occurred: {error}", VMI_KIND, name) from error
        finally:
            writer.transport.abort()
        return web.Response(body=picture, content_type="image/png")

    async def port_forward(self, request: web.Request, namespace: str, name: str, path: str) -> web.StreamResponse:
        """Connect to a port of the guest, as in `22` or `53/udp`."""
        return await self._port(request, await self._fetch(namespace, name), path)

    async def port_forward_vm(self, request: web.Request, namespace: str, name: str, path: str) -> web.StreamResponse:
        """Connect to a port of the guest of a VirtualMachine."""
        return await self._port(request, await asyncio.to_thread(instance_of, self._client, namespace, name), path)

    async def usbredir(self, request: web.Request, namespace: str, name: str, path: str) -> web.StreamResponse:
        """Connect a USB device of the client to the first port for such devices that is free."""
        vmi = await self._fetch(namespace, name)
        if get(vmi, "spec", "domain", "devices", "clientPassthrough") is None:
            raise conflict(VMI_KIND, name, "Not configured with USB Redirection")
        return await self._device(request, vmi, node_server.USB)

    async def vsock(self, request: web.Request, namespace: str, name: str, path: str) -> web.StreamResponse:
        """Connect to a program of the guest that listens on its VSOCK device, with TLS unless the request says no."""
        vmi = await self._fetch(namespace, name)
        if not get(vmi, "spec", "domain", "devices", "autoattachVSOCK"):
            raise Failure(400, "VSOCK is not attached.")
        port, tls = request.query.get("port", ""), request.query.get("tls") or "true"
        if to_number(port, 2**32 - 1) is None:
            raise Failure(400, f"port must be a number from 0 to {2**32 - 1}, not {port[:_SHOWN]!r}")
        if tls.lower() not in (*_YES, *_NO):
            raise Failure(400, f"tls must be true or false, not {tls!r}")
        return await self._device(request, vmi, node_server.VSOCK, port=port, tls=str(tls.lower() in _YES).lower())

    async def _fetch(self, namespace: str, name: str) -> Object:
        return await asyncio.to_thread(fetch, self._client, namespace, name)

    async def _device(self, request: web.Request, vmi: Object, stream: str, **query: str) -> web.StreamResponse:
        _check_websocket(request)
        preserve = request.query.get("preserveSession", "").lower() in _YES
        connection = _Stream(*await self._nodes.open(vmi, stream, preserve=preserve, **query))
        return await _connect(request, connection)

    async def _port(self, request: web.Request, vmi: Object, path: str) -> web.StreamResponse:
        name = vmi["metadata"]["name"]
        if condition_of(vmi, "Paused") is not None:
            raise conflict(VMI_KIND, name, "VMI is paused")
        port, protocol = _port_of(path)
        interfaces = (vmi.get("status") or {}).get("interfaces") or ()
        if not interfaces:
            raise Failure(400, "no network interfaces are present")
        address = interfaces[0].get("ipAddress") or ""
        if not address:
            raise Failure(400, "the guest has no IP address yet")
        _check_websocket(request)
        try:
            async with asyncio.timeout(_CONNECT):
                connection = await _dial(address, port, protocol)
        except OSError as error:
            reason = error.strerror or str(error) or f"no answer within {_CONNECT:g} seconds"
            message = f"Internal error occurred: dialing VM: dial {protocol} {address}:{port}: {reason}"
            raise Failure(500, message, VMI_KIND, name) from error
        return await _connect(request, connection)


def _check_screen(vmi: Object) -> None:
    if get(vmi, "spec", "domain", "devices", "autoattachGraphicsDevice") is False:
        raise Failure(400, "No graphics devices are present.")
    if phase_of(vmi) != RUNNING:
        raise Failure(400, VMI_NOT_RUNNING)


def _check_websocket(request: web.Request) -> None:
    if not web.WebSocketResponse().can_prepare(request).ok:
        raise Failure(400, _NOT_WEBSOCKET)


def _port_of(path: str) -> tuple[int, str]:
    port, _, protocol = path.partition("/")
    protocol = protocol or "tcp"
    if not (number := to_number(port, 65535)):
        what = f"be a number from 1 to 65535, not {port[:_SHOWN]!r}" if port else "not be empty"
        raise Failure(400, f"port must {what}")
    if protocol not in ("tcp", "udp"):
        raise Failure(400, f"protocol must be tcp or udp, not {protocol[:_SHOWN]!r}")
    return number, protocol


async def _dial(address: str, port: int, protocol: str) -> _Connection:
    if protocol == "tcp":
        return _Stream(*await asyncio.open_connection(address, port))
    _, datagrams = await asyncio.get_running_loop().create_datagram_endpoint(_Datagrams, remote_addr=(address, port))
    return datagrams


async def _connect(request: web.Request, connection: _Connection) -> web.StreamResponse:
    """Carry bytes between a user and a connection until either has enough."""
    user = web.WebSocketResponse(
        protocols=(node_server.PROTOCOL,), max_msg_size=_LARGEST, heartbeat=_HEARTBEAT, compress=False
    )
    try:
        await user.prepare(request)
        ways = [asyncio.ensure_future(_to_user(user, connection)), asyncio.ensure_future(_from_user(user, connection))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        await user.close()
    finally:
        connection.close()
    return user


async def _to_user(user: web.WebSocketResponse, connection: _Connection) -> None:
    with contextlib.suppress(OSError):
        while data := await connection.read():
            await user.send_bytes(data)


async def _from_user(user: web.WebSocketResponse, connection: _Connection) -> None:
    with contextlib.suppress(OSError):
        async for message in user:
            if message.type == WSMsgType.BINARY:
                await connection.write(message.data)
            elif message.type == WSMsgType.TEXT:
                await connection.write(message.data.encode())


class _Stream:
    """A stream of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        return await self._reader.read(_CHUNK)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.transport.abort()


class _Datagrams(asyncio.DatagramProtocol):
    """Datagrams: each is one message. What a slow user doesn't take is dropped."""

    def __init__(self) -> None:
        self._received: asyncio.Queue[bytes] = asyncio.Queue(maxsize=256)
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            if data:
                self._received.put_nowait(data)

    async def read(self) -> bytes:
        return await self._received.get()

    async def write(self, data: bytes) -> None:
        self._transport.sendto(data)

    def close(self) -> None:
        self._transport.close()
