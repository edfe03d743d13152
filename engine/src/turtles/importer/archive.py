# SPDX-License-Identifier: GPL-3.0-or-later
"""Tar archives of strangers, read once from the beginning to the end; Python's tarfile knows the format."""

import io
import resource
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from turtles.importer.errors import ImportRefused

_READ = 1 << 20
#: How often an archive may be read beyond its end; tarfile does a few times.
_MAX_EMPTY_READS = 64
#: Bytes of data that this process may have besides while it reads headers, whose sizes are what the archive says.
_DATA = 256 << 20
_STATUS = Path("/proc/self/status")
_ReadError, _HeaderError = tarfile.ReadError, tarfile.HeaderError
#: Raised for a block of zeros, which ends an archive.
_EndError = tarfile.EOFHeaderError  # type: ignore[attr-defined]
#: What tarfile raises for archives that are none.
_DAMAGED = (tarfile.TarError, EOFError, MemoryError, RecursionError, ValueError, OverflowError, LookupError, TypeError)


class _Stream(io.RawIOBase):
    """Pieces as a file, counted, and closed as the format wants: some writers leave out the end marker."""

    def __init__(self, pieces: Iterable[bytes], limit: int) -> None:
        self._pieces = iter(pieces)
        self._data = b""
        self._count, self._beyond = 0, 0
        self._end: bytes | None = None
        #: Bytes that there may still be.
        self.left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._data and self._end is None:
            try:
                self._data = next(self._pieces)
            except StopIteration:
                self._end = bytes(-self._count % 512 + 1024)
                break
            self._count += len(self._data)
            self.left -= len(self._data)
            if self.left < 0:
                raise ImportRefused("the unpacked archive doesn't fit on the claim; a larger claim is required")
        if self._end is not None and not self._data:
            data, self._end = self._end[: len(buffer)], self._end[len(buffer) :]
            # A header's size is a claim: nobody must be sent over 2^60 bytes that aren't there
            self._beyond += not data
            if self._beyond > _MAX_EMPTY_READS:
                raise tarfile.ReadError("unexpected end of data")
        else:
            data, self._data = self._data[: len(buffer)], self._data[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


class _Header(tarfile.TarInfo):
    """A member whose header has to be sound: tarfile takes one that isn't for the archive's end."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(tarfile)
        except _HeaderError as error:
            if isinstance(error, _EndError):
                raise
            raise _ReadError("a header is corrupt") from error


class Reader:
    """The members of an archive, one after the other."""

    def __init__(self, archive: tarfile.TarFile, stream: _Stream) -> None:
        self._archive, self._stream = archive, stream

    @property
    def left(self) -> int:
        """Bytes that the archive may still have."""
        return self._stream.left

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        """Give the members.

        :raises ImportRefused: the archive is broken.
        """
        while True:
            with _judged():
                member = self._archive.next()
            if member is None:
                return
            # It is read once: what was is of no use, and a list of all of it has no limit
            self._archive.members = []  # type: ignore[attr-defined]
            yield member

    def content(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """Give the bytes of the member that the last step gave; holes are zeros.

        :raises ImportRefused: they aren't all there.
        """
        with _judged():
            file = self._archive.extractfile(member)
        if file is None:
            raise ImportRefused(f"{member.name!r} of the archive is not a regular file")
        left = member.size
        while left:
            with _judged():
                data = file.read(min(_READ, left))
            if not data:
                raise ImportRefused(f"the archive ends within {member.name!r}")
            left -= len(data)
            yield data


@contextmanager
def opened(pieces: Iterable[bytes], limit: int) -> Iterator[Reader]:
    """Read an archive.

    :param pieces: its bytes, not compressed. :param limit: how many there may be.
    :raises ImportRefused: it is broken, or larger.
    """
    stream = _Stream(pieces, limit)
    with _little_memory():
        with _judged():
            archive = tarfile.TarFile.open(fileobj=io.BufferedReader(stream, _READ), mode="r|", tarinfo=_Header)
        with archive:
            yield Reader(archive, stream)


@contextmanager
def _judged() -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        text = str(error) or type(error).__name__
        raise ImportRefused(f"the archive is corrupt: {text[:500]}") from error


@contextmanager
def _little_memory() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    # Threads that others start meanwhile take some, too: one that gets none waits for ever (CPython)
    ceiling = _data() + _DATA
    if before[1] != resource.RLIM_INFINITY:
        ceiling = min(ceiling, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _data() -> int:
    """Return how many bytes of data this process has."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) << 10
