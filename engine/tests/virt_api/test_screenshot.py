# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of screens, from VNC servers that do and don't behave."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable

import pytest

from turtles.virt_api import screenshot

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RED, BLUE = b"\xff\0\0\0", b"\0\0\xff\0"


async def picture_of(script: Script, *, wake: bool = False) -> bytes:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            return await screenshot.take(reader, writer, wake=wake)
        finally:
            writer.transport.abort()


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, width: int, height: int) -> None:
    writer.write(b"RFB 003.008\n")
    assert await reader.readexactly(12) == b"RFB 003.008\n"
    writer.write(b"\x01\x01")
    assert await reader.readexactly(1) == b"\x01"
    writer.write(struct.pack(">I", 0))
    assert await reader.readexactly(1) == b"\x01", "others may go on looking"
    writer.write(struct.pack(">HH16xI", width, height, 4) + b"QEMU")
    await reader.readexactly(20 + 12)


def update(*rectangles: tuple[int, int, int, int, int, bytes]) -> bytes:
    return struct.pack(">BxH", 0, len(rectangles)) + b"".join(
        struct.pack(">HHHHi", *rectangle[:5]) + rectangle[5] for rectangle in rectangles
    )


def decoded(png: bytes) -> tuple[int, int, bytes]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack_from(">II", png, 16)
    begin = png.index(b"IDAT")
    (length,) = struct.unpack_from(">I", png, begin - 4)
    lines = zlib.decompress(png[begin + 4 : begin + 4 + length])
    stride = 3 * width + 1
    assert all(lines[row * stride] == 0 for row in range(height))
    return width, height, b"".join(lines[row * stride + 1 : (row + 1) * stride] for row in range(height))


async def test_parts_of_the_screen_and_other_messages():
    async def script(reader, writer):
        await greet(reader, writer, 2, 2)
        assert await reader.readexactly(10) == struct.pack(">BBHHHH", 3, 0, 0, 0, 2, 2)
        writer.write(b"\x02")  # a bell
        writer.write(struct.pack(">BxxxI", 3, 5) + b"hello")
        writer.write(update((0, 0, 2, 1, 0, RED + RED)))
        writer.write(update((0, 1, 1, 1, 0, BLUE), (1, 1, 1, 1, 0, RED)))

    red, blue = RED[:3], BLUE[:3]
    assert decoded(await picture_of(script)) == (2, 2, red + red + blue + red)


async def test_a_screen_that_changes_its_size():
    async def script(reader, writer):
        await greet(reader, writer, 4, 4)
        await reader.readexactly(10)
        writer.write(update((0, 0, 1, 2, -223, b"")))
        assert await reader.readexactly(10) == struct.pack(">BBHHHH", 3, 0, 0, 0, 1, 2)
        writer.write(update((0, 0, 1, 2, 0, RED + BLUE)))

    assert decoded(await picture_of(script)) == (1, 2, RED[:3] + BLUE[:3])


async def test_the_pointer_is_moved_to_wake_a_screen_up():
    async def script(reader, writer):
        await greet(reader, writer, 1, 1)
        assert await reader.readexactly(12) == struct.pack(">BBHHBBHH", 5, 0, 0, 0, 5, 0, 1, 1)
        writer.write(update((0, 0, 1, 1, 0, RED)))

    assert decoded(await picture_of(script, wake=True)) == (1, 1, RED[:3])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (update((0, 0, 3, 1, 0, b"")), "wasn't requested"),
        (update((0, 0, 2, 2, 7, b"")), "wasn't requested"),
        (struct.pack(">BxxxI", 3, 2**31), "a text of 2147483648 bytes"),
        (update((0, 0, 0, 9, -223, b"")), "0 x 9"),
        (b"\x63", "unexpected message"),
        (b"", "closed"),
    ],
)
async def test_a_server_that_does_not_behave(answer, message):
    async def script(reader, writer):
        await greet(reader, writer, 2, 2)
        await reader.readexactly(10)
        writer.write(answer)

    with pytest.raises(screenshot.ScreenError, match=message):
        await picture_of(script)


async def test_too_large_a_screen_is_never_asked_for():
    async def script(reader, writer):
        await greet(reader, writer, 60000, 60000)
        await reader.read()

    with pytest.raises(screenshot.ScreenError, match="at most 8192 x 8192"):
        await picture_of(script)


async def test_a_server_that_says_nothing(monkeypatch):
    monkeypatch.setattr(screenshot, "_PATIENCE", 0.1)

    async def script(reader, writer):
        await reader.read()

    with pytest.raises(screenshot.ScreenError, match="timed out"):
        await picture_of(script)
