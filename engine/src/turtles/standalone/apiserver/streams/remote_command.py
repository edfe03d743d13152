# SPDX-License-Identifier: GPL-3.0-or-later
"""A command's or container's streams between the node and a client: exec and attach, in each of their protocols.

``v4.channel.k8s.io``: channels 0 to 2 are the command's streams, 3 tells how it ended as a metav1.Status, 4 takes the
terminal's size. ``v5`` adds a message by which the client ends standard input (KEP-4006).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
from aiohttp import web

from turtles.standalone.apiserver.streams.node import Control, Descriptor
from turtles.standalone.apiserver.streams.spdy import Connection, Stream
from turtles.standalone.apiserver.wire.errors import Object

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
SPDY_PROTOCOLS = ("v4.channel.k8s.io",)
_CLOSE = 255
#: Seconds that output may still take when a command has ended: a process that it left behind may hold on to it.
_DRAIN = 5.0
_SPDY_WAIT = 30.0


@dataclass
class Wanted:
    """Which streams the client asks for."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    terminal: bool = False


@dataclass
class Session:
    """The node's ends.

    :param control: tells how the command ends; None for an attachment, which ends with its output.
    """

    control: Control | None = None
    stdin: Descriptor | None = None
    outputs: dict[int, Descriptor] = field(default_factory=dict)
    terminal: Descriptor | None = None

    def close(self) -> None:
        """Let go of everything; the command sees the end of its input and a hang-up of its terminal."""
        for one in (self.control, self.stdin, self.terminal, *self.outputs.values()):
            if one is not None:
                one.close()


class Peer(Protocol):
    """The client's end."""

    async def send(self, channel: int, data: bytes) -> None:
        """Send data of a channel."""

    async def receive(self, got: Callable[[int, bytes | None], Awaitable[None]]) -> None:
        """Tell of everything that comes, by channel, None where a channel ends; return when the client is gone."""


def status(code: int | None, error: str = "") -> Object:
    """Return the Status that tells how a command ended.

    :param code: its exit code, None where it didn't come to that because of ``error``.
    """
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    if code is None:
        return {
            "metadata": {},
            "status": "Failure",
            "message": f"Internal error occurred: {error}",
            "reason": "InternalError",
            "details": {"causes": [{"message": error}]},
            "code": 500,
        }
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def run(session: Session, peer: Peer) -> None:
    """Connect both ends until the command has ended or the client is gone."""
    try:
        outcome: Object = status(0)
        if session.control is not None:
            message, fds = await session.control.message()
            if "started" not in message:
                why = f"error executing command in container: {message.get('error') or 'the container has ended'}"
                await peer.send(ERROR, json.dumps(status(None, why)).encode())
                return
            if fds:
                session.terminal = fds[0]
                session.outputs = {STDOUT: fds[0]}
                session.stdin = fds[0]
        pumps = [asyncio.ensure_future(_pump(peer, channel, output)) for channel, output in session.outputs.items()]
        incoming = asyncio.ensure_future(peer.receive(lambda channel, data: _take(session, channel, data)))
        ending = asyncio.ensure_future(_end(session, pumps))
        try:
            await asyncio.wait([incoming, ending], return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                code, error = ending.result()
                outcome = status(code, error)
                if pumps:
                    await asyncio.wait(pumps, timeout=_DRAIN)
                await peer.send(ERROR, json.dumps(outcome).encode())
        finally:
            tasks = [incoming, ending, *pumps]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    except ConnectionError:
        # The client is gone, and no one is left to report to.
        return
    finally:
        session.close()


async def _end(session: Session, pumps: list[asyncio.Task[None]]) -> tuple[int | None, str]:
    """Wait for the end: the exit code, or what went wrong."""
    if session.control is None:
        await asyncio.gather(*pumps, return_exceptions=True)
        return 0, ""
    message, _ = await session.control.message()
    if "exit" in message:
        return int(message["exit"]), ""
    return None, message.get("error") or "the end of the command was not seen: the node's forking process ended"


async def _pump(peer: Peer, channel: int, output: Descriptor) -> None:
    while data := await output.read():
        await peer.send(channel, data)


async def _take(session: Session, channel: int, data: bytes | None) -> None:
    if channel == STDIN and session.stdin is not None:
        if data is None:
            if session.terminal is None:
                session.stdin.close()
                session.stdin = None
        elif not await session.stdin.write(data) and session.terminal is None:
            session.stdin.close()
            session.stdin = None
    elif channel == RESIZE and session.terminal is not None and data:
        try:
            size = json.loads(data)
            session.terminal.resize(int(size["Width"]), int(size["Height"]))
        except (ValueError, KeyError, TypeError, OSError):
            return


class WebSocketPeer:
    """A client with a WebSocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def send(self, channel: int, data: bytes) -> None:
        """Send data of a channel."""
        await self._socket.send_bytes(bytes((channel,)) + data)

    async def receive(self, got: Callable[[int, bytes | None], Awaitable[None]]) -> None:
        """Tell of everything that comes."""
        async for message in self._socket:
            data = message.data.encode() if message.type == aiohttp.WSMsgType.TEXT else message.data
            if not data:
                continue
            if data[0] == _CLOSE and len(data) == 2:
                await got(data[1], None)
            else:
                await got(data[0], data[1:])


class SpdyPeer:
    """A client with SPDY, a stream a channel."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._streams: dict[int, Stream] = {}

    async def open(self, wanted: Wanted) -> bool:
        """Wait until the client has opened its streams; False when it doesn't."""
        names = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}
        missing = {ERROR}
        missing |= {STDIN} if wanted.stdin else set()
        missing |= {STDOUT} if wanted.stdout else set()
        missing |= {STDERR} if wanted.stderr and not wanted.terminal else set()
        missing |= {RESIZE} if wanted.terminal else set()
        try:
            async with asyncio.timeout(_SPDY_WAIT):
                while missing - self._streams.keys():
                    stream = await self._connection.accept()
                    if stream is None:
                        return False
                    channel = names.get(stream.headers.get("streamtype", ""))
                    if channel is not None:
                        self._streams[channel] = stream
        except TimeoutError:
            return False
        return True

    async def send(self, channel: int, data: bytes) -> None:
        """Send data of a channel."""
        stream = self._streams.get(channel)
        if stream is not None:
            await stream.write(data)

    async def receive(self, got: Callable[[int, bytes | None], Awaitable[None]]) -> None:
        """Tell of everything that comes."""

        async def read(channel: int, stream: Stream) -> None:
            while data := await stream.read():
                await got(channel, data)
            await got(channel, None)

        reading = [
            asyncio.ensure_future(read(channel, stream))
            for channel, stream in self._streams.items()
            if channel in (STDIN, RESIZE)
        ]
        try:
            while await self._connection.accept() is not None:
                pass
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)

    async def close(self) -> None:
        """End every stream."""
        for channel in (STDOUT, STDERR, ERROR):
            if channel in self._streams:
                await self._streams[channel].end()
