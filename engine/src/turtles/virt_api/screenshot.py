# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a picture of a guest's screen: as a client of its VNC server (RFC 6143), in PNG (RFC 2083).

The server is QEMU in the guest's Pod, and isn't trusted: what it sends is bounded in size and time.
"""

from __future__ import annotations

import asyncio
import struct
import zlib

#: Seconds that the server may take in all.
_PATIENCE = 15.0
#: Largest screen.
_WIDTH, _HEIGHT = 8192, 8192
_MAX_TEXT = 64 * 1024
_VERSION = b"RFB 003.008\n"
_NO_AUTHENTICATION = 1
#: Messages of a server: a part of the screen, colours, a bell, a text that was cut.
_UPDATE, _COLOURS, _BELL, _CUT_TEXT = range(4)
#: 32 bits a pixel: red, green, blue and nothing, in this order.
_PIXEL_FORMAT = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 0, 8, 16)
_RAW, _DESKTOP_SIZE = 0, -223


class ScreenError(Exception):
    """No picture can be taken; the message says why."""


async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, wake: bool = False) -> bytes:
    """Return a picture of the screen.

    :param wake: move the pointer first, which wakes up a screen that sleeps.
    :raises ScreenError: that isn't possible.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            width, height = await _greet(reader, writer)
            if wake:
                for x, y in ((0, 0), (1, 1)):
                    writer.write(struct.pack(">BBHH", 5, 0, x, y))
            return await _picture(reader, writer, width, height)
    except TimeoutError:
        raise ScreenError("timed out waiting for VNC server messages") from None
    except EOFError as error:
        raise ScreenError("failed to retrieve the VNC screen: the connection was closed") from error
    except OSError as error:
        raise ScreenError(f"failed to retrieve the VNC screen: {error}") from error


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, int]:
    """Introduce ourselves; return the screen's size."""
    if not (await reader.readexactly(len(_VERSION))).startswith(b"RFB 003."):
        raise ScreenError("the guest's screen is not served by VNC")
    writer.write(_VERSION)
    kinds = await reader.readexactly((await reader.readexactly(1))[0])
    if _NO_AUTHENTICATION not in kinds:
        raise ScreenError("the guest's VNC server asks for credentials")
    writer.write(bytes([_NO_AUTHENTICATION]))
    if struct.unpack(">I", await reader.readexactly(4))[0]:
        raise ScreenError("the guest's VNC server refuses")
    shared = 1  # other viewers stay connected
    writer.write(bytes([shared]))
    width, height = struct.unpack(">HH", await reader.readexactly(4))
    await reader.readexactly(16)  # its own pixel format
    await _skip(reader, struct.unpack(">I", await reader.readexactly(4))[0])  # its name
    writer.write(struct.pack(">Bxxx", 0) + _PIXEL_FORMAT)
    writer.write(struct.pack(">BxHii", 2, 2, _RAW, _DESKTOP_SIZE))
    return width, height


async def _picture(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, width: int, height: int) -> bytes:
    """Ask for the whole screen until all of it is there: while it changes its size, it comes in the old one."""
    while True:
        if not (0 < width <= _WIDTH and 0 < height <= _HEIGHT):
            raise ScreenError(f"the guest's screen is {width} x {height}; at most {_WIDTH} x {_HEIGHT} is accepted")
        pixels = bytearray(4 * width * height)
        writer.write(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
        await writer.drain()
        missing = width * height
        while missing > 0:
            resized, drawn = await _update(reader, pixels, width, height)
            if resized is not None:
                width, height = resized
                break
            missing -= drawn
        else:
            return _png(pixels, width, height)


async def _update(
    reader: asyncio.StreamReader, pixels: bytearray, width: int, height: int
) -> tuple[tuple[int, int] | None, int]:
    """Draw the next part of the screen; return the screen's new size, if it has one, and how many pixels were drawn."""
    while (kind := (await reader.readexactly(1))[0]) != _UPDATE:
        if kind == _COLOURS:
            await _skip(reader, 6 * struct.unpack(">xHH", await reader.readexactly(5))[1])
        elif kind == _CUT_TEXT:
            await _skip(reader, struct.unpack(">xxxI", await reader.readexactly(7))[0])
        elif kind != _BELL:
            raise ScreenError(f"the guest's VNC server sent an unexpected message ({kind})")
    (count,) = struct.unpack(">xH", await reader.readexactly(3))
    drawn, resized = 0, None
    for _ in range(count):
        x, y, columns, rows, encoding = struct.unpack(">HHHHi", await reader.readexactly(12))
        if encoding == _DESKTOP_SIZE:
            resized = columns, rows
            continue
        if encoding != _RAW or x + columns > width or y + rows > height:
            raise ScreenError("the guest's VNC server sent a part of the screen that wasn't requested")
        for row in range(y, y + rows):
            begin = 4 * (row * width + x)
            pixels[begin : begin + 4 * columns] = await reader.readexactly(4 * columns)
        drawn += columns * rows
    return resized, drawn


async def _skip(reader: asyncio.StreamReader, length: int) -> None:
    if length > _MAX_TEXT:
        raise ScreenError(f"the guest's VNC server sent a text of {length} bytes")
    await reader.readexactly(length)


def _png(pixels: bytearray, width: int, height: int) -> bytes:
    """Encode pixels of four bytes, of which the last one is nothing."""
    colours = bytearray(3 * width * height)
    for channel in range(3):
        colours[channel::3] = pixels[channel::4]
    no_filter, stride = b"\0", 3 * width
    lines = b"".join(no_filter + colours[begin : begin + stride] for begin in range(0, len(colours), stride))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
