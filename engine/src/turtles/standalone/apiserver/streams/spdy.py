# SPDX-License-Identifier: GPL-3.0-or-later
"""SPDY/3.1 as far as kubectl speaks it: framing and streams of one connection, the server's side.

Flow control is left out, as by all of Kubernetes' own clients and servers; TCP's does. Source: "SPDY Protocol, Draft
3.1" (chromium.org): sections 2.2 (frames), 2.6 (control frames), 2.6.10 (header blocks and the dictionary).
"""

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable

_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_WORDS = [*_NAMES.split(), "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 "
    "Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8"
    "charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.encode() for word in _WORDS) + _TEXT.encode()

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_FIN = 1
_REFUSED_STREAM = 3
_MAX_FRAME = 4 << 20
_MAX_HEADERS = 64 << 10
_MAX_STREAMS = 1000
#: Bytes that a stream keeps for a slow reader before the connection isn't read any more.
_BUFFER = 256 << 10
#: Seconds that a client has for its goodbye.
_GOODBYE = 5.0


class SpdyError(Exception):
    """The client doesn't keep to the protocol."""


class Stream:
    """One stream, opened by the client."""

    def __init__(self, connection: "Connection", ident: int, headers: dict[str, str]) -> None:
        self.ident, self.headers = ident, headers
        self._connection = connection
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self.buffered = 0
        self._ended = False
        self._closed = False

    def feed(self, data: bytes, end: bool) -> None:
        """Take what the client sent."""
        if self._ended:
            return
        if data:
            self.buffered += len(data)
            self._chunks.put_nowait(data)
        if end:
            self._ended = True
            self._chunks.put_nowait(b"")

    async def read(self) -> bytes:
        """Return what came next; nothing at the end."""
        data = await self._chunks.get()
        if not data:
            self._chunks.put_nowait(b"")
        self.buffered -= len(data)
        self._connection.consumed()
        return data

    async def write(self, data: bytes) -> None:
        """Send data."""
        if not self._closed:
            await self._connection.send(_data_frame(self.ident, data, False))

    async def end(self) -> None:
        """Say that nothing more comes."""
        if not self._closed:
            self._closed = True
            await self._connection.send(_data_frame(self.ident, b"", True))


class Connection:
    """Framing of one connection.

    :param send: writes bytes to the client and waits while it is too slow.
    :param pause: called with True when the client shall wait with more, with False when it may go on.
    """

    def __init__(self, send: Callable[[bytes], Awaitable[None]], pause: Callable[[bool], None]) -> None:
        self.send = send
        self._pause, self._paused = pause, False
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._streams: dict[int, Stream] = {}
        self._opened: asyncio.Queue[Stream | None] = asyncio.Queue()
        self._answers: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._leaving = False

    async def accept(self) -> Stream | None:
        """Return the stream that the client opened next, None when the connection has ended."""
        stream = await self._opened.get()
        if stream is None:
            self._opened.put_nowait(None)
            return None
        reply = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        await self.send(_control_frame(_SYN_REPLY, struct.pack(">I", stream.ident) + reply))
        return stream

    def forget(self, stream: Stream) -> None:
        """Let go of a stream that is done."""
        self._streams.pop(stream.ident, None)
        self.consumed()

    def consumed(self) -> None:
        """Look whether the client may send again."""
        waiting = not self._leaving and any(stream.buffered > _BUFFER for stream in self._streams.values())
        if waiting != self._paused:
            self._paused = waiting
            self._pause(waiting)

    async def close(self) -> None:
        """Say goodbye, and wait a moment for the client to do so.

        A connection that is closed while something comes in is reset, and what was sent last may be lost by that.
        """
        self._leaving = True
        self.consumed()
        try:
            if not self._over.is_set():
                await self.send(_control_frame(_GOAWAY, struct.pack(">II", max(self._streams, default=0), 0)))
            async with asyncio.timeout(_GOODBYE):
                await self._over.wait()
        except TimeoutError:
            self.ended()

    def ended(self) -> None:
        """The client is gone: every stream has ended."""
        if not self._over.is_set():
            self._over.set()
            for stream in self._streams.values():
                stream.feed(b"", True)
            self._opened.put_nowait(None)

    def feed(self, data: bytes) -> None:
        """Take bytes from the client.

        :raises SpdyError: they are no SPDY.
        """
        self._buffer += data
        while len(self._buffer) >= 8 and not self._over.is_set():
            first, second = struct.unpack(">II", self._buffer[:8])
            length = second & 0xFFFFFF
            if length > _MAX_FRAME:
                raise SpdyError("the frame is too large")
            if len(self._buffer) < 8 + length:
                return
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            flags = second >> 24
            if first & 0x80000000:
                self._control(first & 0xFFFF, flags, payload)
            elif (stream := self._streams.get(first)) is not None and not self._leaving:
                stream.feed(payload, bool(flags & _FIN))
                self.consumed()

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _SYN_STREAM:
            if len(payload) < 10:
                raise SpdyError("a SYN_STREAM frame is too short")
            ident = struct.unpack(">I", payload[:4])[0] & 0x7FFFFFFF
            # Also of a stream that is refused: the compression goes on over all headers.
            headers = self._headers(payload[10:])
            if ident in self._streams or len(self._streams) >= _MAX_STREAMS:
                self._answer(_control_frame(_RST_STREAM, struct.pack(">II", ident, _REFUSED_STREAM)))
                return
            stream = self._streams[ident] = Stream(self, ident, headers)
            if flags & _FIN:
                stream.feed(b"", True)
            self._opened.put_nowait(stream)
        elif kind == _RST_STREAM and len(payload) >= 8:
            reset = self._streams.pop(struct.unpack(">I", payload[:4])[0] & 0x7FFFFFFF, None)
            if reset is not None:
                reset.feed(b"", True)
        elif kind == _PING:
            self._answer(_control_frame(_PING, payload))
        elif kind == _GOAWAY:
            self.ended()

    def _answer(self, frame: bytes) -> None:
        async def answer() -> None:
            await self.send(frame)

        task = asyncio.ensure_future(answer())
        self._answers.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answers.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.ended()

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            data = self._inflate.decompress(block, _MAX_HEADERS)
        except zlib.error as error:
            raise SpdyError(f"headers can't be unpacked: {error}") from None
        if self._inflate.unconsumed_tail:
            raise SpdyError("the headers are too large")
        words: list[str] = []
        try:
            (count,) = struct.unpack_from(">I", data)
            position = 4
            for _ in range(2 * count):
                (length,) = struct.unpack_from(">I", data, position)
                position += 4
                if position + length > len(data):
                    raise SpdyError("a header is cut off")
                words.append(data[position : position + length].decode(errors="replace"))
                position += length
        except struct.error:
            raise SpdyError("the headers are cut off") from None
        return dict(zip((name.lower() for name in words[::2]), words[1::2], strict=True))


def _control_frame(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", 0x8003, kind, flags << 24 | len(payload)) + payload


def _data_frame(ident: int, data: bytes, end: bool) -> bytes:
    return struct.pack(">II", ident, (_FIN if end else 0) << 24 | len(data)) + data
