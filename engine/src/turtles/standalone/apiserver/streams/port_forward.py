# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to ports of Pods: ``kubectl port-forward``, over SPDY, SPDY in a WebSocket, or WebSocket channels."""

import asyncio
import struct
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from turtles.api.texts import to_number
from turtles.standalone.apiserver.streams.node import Descriptor
from turtles.standalone.apiserver.streams.spdy import Connection, Stream
from turtles.standalone.apiserver.wire.errors import StatusError

PROTOCOL = "portforward.k8s.io"
CHANNELS = "v4.channel.k8s.io"

#: Gives a connection to a port of the Pod.
Dial = Callable[[int], Awaitable[Descriptor]]


async def over_spdy(connection: Connection, dial: Dial, pod: str) -> None:
    """Serve a client until it goes: each of its connections is a pair of streams, one for data and one for an error."""
    waiting: dict[str, dict[str, Stream]] = {}
    tasks: set[asyncio.Task[None]] = set()
    try:
        while (stream := await connection.accept()) is not None:
            kind, request = stream.headers.get("streamtype", ""), stream.headers.get("requestid", "")
            pair = waiting.setdefault(request, {})
            pair[kind] = stream
            if "data" in pair and "error" in pair:
                del waiting[request]
                task = asyncio.ensure_future(_forward(connection, pair["data"], pair["error"], dial, pod))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forward(connection: Connection, data: Stream, error: Stream, dial: Dial, pod: str) -> None:
    port = data.headers.get("port", "")
    target: Descriptor | None = None
    try:
        try:
            target = await dial(_number(port))
        except StatusError as refused:
            await error.write(f"error forwarding port {port} to pod {pod}: {refused.message}".encode())
            return
        opposite = target

        async def upward() -> None:
            while chunk := await data.read():
                if not await opposite.write(chunk):
                    return
            opposite.end_writing()

        upstream = asyncio.ensure_future(upward())
        try:
            while chunk := await opposite.read():
                await data.write(chunk)
        finally:
            upstream.cancel()
            await asyncio.gather(upstream, return_exceptions=True)
    except (ConnectionError, OSError):
        return
    finally:
        if target is not None:
            target.close()
        try:
            await data.end()
            await error.end()
        except ConnectionError:
            connection.ended()
        connection.forget(data)
        connection.forget(error)


def _number(text: str) -> int:
    if not (number := to_number(text, 65535)):
        raise StatusError(400, "BadRequest", f'"{text[:40]}" is no port')
    return number


async def over_channels(socket: web.WebSocketResponse, ports: list[int], dial: Dial, pod: str) -> None:
    """Serve a client with two channels a port, data and error; each tells the port's number first.

    Source: websocket.go in Kubernetes' pkg/kubelet/cri/streaming/portforward.

    :param ports: those of the Pod, in the order of their channels.
    :param dial: connects to one of them.
    :param pod: the Pod's name, for messages.
    """
    targets: dict[int, Descriptor] = {}
    tasks: list[asyncio.Task[None]] = []

    async def down(channel: int, target: Descriptor) -> None:
        while chunk := await target.read():
            await socket.send_bytes(bytes((channel,)) + chunk)

    try:
        for index, port in enumerate(ports):
            for channel in (2 * index, 2 * index + 1):
                await socket.send_bytes(bytes((channel,)) + struct.pack("<H", port))
            try:
                target = targets[2 * index] = await dial(port)
            except StatusError as refused:
                text = f"error forwarding port {port} to pod {pod}: {refused.message}"
                await socket.send_bytes(bytes((2 * index + 1,)) + text.encode())
                continue
            tasks.append(asyncio.ensure_future(down(2 * index, target)))
        over = asyncio.ensure_future(asyncio.wait(tasks)) if tasks else None
        up = asyncio.ensure_future(_up(socket, targets))
        await asyncio.wait([one for one in (over, up) if one is not None], return_when=asyncio.FIRST_COMPLETED)
        for task in (over, up):
            if task is not None:
                task.cancel()
        await asyncio.gather(*[one for one in (over, up) if one is not None], return_exceptions=True)
    except ConnectionError:
        return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for target in targets.values():
            target.close()
        await socket.close()


async def _up(socket: web.WebSocketResponse, targets: dict[int, Descriptor]) -> None:
    async for message in socket:
        if message.type == aiohttp.WSMsgType.BINARY and message.data and message.data[0] in targets:
            await targets[message.data[0]].write(message.data[1:])
