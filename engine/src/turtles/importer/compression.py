# SPDX-License-Identifier: GPL-3.0-or-later
"""What was compressed with gzip, xz or zstd, as it was before; told apart by the first bytes.

Python's own modules do the work, and their backport for zstd, which Python has from 3.14 on.
"""

import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from backports import zstd

from turtles.importer.errors import ImportRefused

#: Bytes of memory that a stream may ask for: eight times what `xz -9` does.
_XZ_MEMORY = 512 << 20
#: Bytes given at once, however small what they are unpacked from.
_PIECE = 1 << 20


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib with the face that the others have."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


#: Magic numbers: RFC 1952, the .xz file format, RFC 8878.
_FORMATS: dict[bytes, tuple[str, Callable[[], _Decompressor]]] = {
    b"\x1f\x8b": ("gzip", _Gzip),
    b"\xfd7zXZ\0": ("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)),
    b"\x28\xb5\x2f\xfd": ("zstd", zstd.ZstdDecompressor),
}


def compression(head: bytes) -> str:
    """Return what data with this beginning was compressed with; empty if it wasn't."""
    return next((name for magic, (name, _) in _FORMATS.items() if head.startswith(magic)), "")


def decompressed(pieces: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Give what was compressed, in pieces of at most a MiB.

    :param name: as :func:`compression` gives it.
    :raises ImportRefused: it is broken, incomplete, or something else follows it.
    """
    make = next(made for found, made in _FORMATS.values() if found == name)
    decompressor = make()
    try:
        for piece in pieces:
            data = piece
            while True:
                if decompressor.eof:
                    # Several in a row are one; between them there may be zeros
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    decompressor = make()
                if found := decompressor.decompress(data, _PIECE):
                    yield found
                data = decompressor.unused_data if decompressor.eof else b""
                if not decompressor.eof and decompressor.needs_input:
                    break
    except (zlib.error, lzma.LZMAError, zstd.ZstdError, EOFError) as error:
        raise ImportRefused(f"its {name} data is corrupt: {error}") from error
    if not decompressor.eof:
        raise ImportRefused(f"its {name} data is truncated")
