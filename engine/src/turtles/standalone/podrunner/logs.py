# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading what :mod:`collector` writes: the last lines, lines since, following until the container ends.

Rules: kubernetes.io/docs/reference, PodLogOptions. Lines without the format's head, which an earlier version wrote, are
taken as standard output of unknown time.
"""

import contextlib
import ctypes
import logging
import os
import select
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from turtles.standalone.podrunner.collector import rotated

log = logging.getLogger(__name__)

_LIBC = ctypes.CDLL(None, use_errno=True)
#: Seconds between two looks where changes can't be watched.
_POLL = 0.5
# inotify(7)
_IN_MODIFY, _IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE_SELF = 0x2, 0x40, 0x80, 0x100, 0x400
_IN_ONLYDIR = 0x01000000


@dataclass(frozen=True)
class Options:
    """Which part of a log to return.

    :param since: RFC 3339 time in UTC; earlier lines are left out.
    :param limit: bytes at most.
    """

    follow: bool = False
    previous: bool = False
    tail: int | None = None
    since: str = ""
    timestamps: bool = False
    limit: int | None = None
    stream: str = ""


@dataclass(frozen=True)
class Record:
    """A line, or with ``whole`` not set a part of one."""

    time: str
    stream: str
    whole: bool
    text: bytes


def log_path(directory: Path, previous: bool) -> Path:
    """Return the log of a container's last start, or of the one before."""
    return directory / ("previous.log" if previous else "log")


def parse(line: bytes) -> Record:
    """Return the record in a line of the file, which ends with its newline."""
    parts = line.rstrip(b"\n").split(b" ", 3)
    if len(parts) == 4 and parts[1] in (b"stdout", b"stderr") and parts[2] in (b"F", b"P") and parts[0][-1:] == b"Z":
        return Record(parts[0].decode(errors="replace"), parts[1].decode(), parts[2] == b"F", parts[3])
    return Record("", "stdout", True, line.rstrip(b"\n"))


class Reader:
    """Reads the log of one start of a container."""

    def __init__(self, directory: Path, options: Options) -> None:
        self._directory, self._options = directory, options
        self._left = options.limit
        self._fresh = True

    def __iter__(self) -> Iterator[bytes]:
        """Yield the log in pieces; with ``follow`` an empty one where nothing is there now."""
        for record in self.records():
            if record is None:
                yield b""
                continue
            data = self._shown(record)
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
            if data:
                yield data
            if self._left == 0:
                return

    def _shown(self, record: Record) -> bytes:
        # A line that came in parts has the time of its first.
        head = f"{record.time} ".encode() if self._options.timestamps and self._fresh and record.time else b""
        self._fresh = record.whole
        return head + record.text + (b"\n" if record.whole else b"")

    def _wanted(self, record: Record) -> bool:
        if self._options.stream and record.stream != self._options.stream:
            return False
        # Both have the same form, so that their order is that of time.
        return not (self._options.since and record.time and record.time < self._options.since)

    def records(self) -> Iterator[Record | None]:
        """Yield the wanted records; with ``follow`` None where nothing is there now, until the container has ended."""
        path = log_path(self._directory, self._options.previous)
        following = self._options.follow and not self._options.previous
        with contextlib.ExitStack() as stack:
            changes = stack.enter_context(contextlib.closing(Changes(self._directory))) if following else None
            current = _open(path)
            earlier = _open(rotated(path))
            before = (record for file in (earlier, current) for record in _lines(file) if self._wanted(record))
            if self._options.tail is None:
                yield from before
            else:
                yield from deque(before, maxlen=self._options.tail)
            if earlier is not None:
                earlier.close()
            while changes is not None:
                # Looked at first: whatever was said before the end is in the file by now.
                ended = not self._directory.is_dir() or (self._directory / "exit.json").exists()
                current = yield from self._more(path, current)
                if ended:
                    break
                yield None
                changes.wait()
            if current is not None:
                current.close()

    def _more(self, path: Path, current: BinaryIO | None) -> Generator[Record, None, BinaryIO | None]:
        while True:
            yield from (record for record in _lines(current) if self._wanted(record))
            if current is not None and _same(current, path):
                return current
            following = _open(path)
            if following is None:
                return current
            if current is not None:
                # What was written between the last look and the rotation.
                yield from (record for record in _lines(current) if self._wanted(record))
                current.close()
            current = following


class Changes:
    """Waits for changes in a container's directory (inotify(7))."""

    def __init__(self, directory: Path) -> None:
        self._fd = _LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            # The user has no instances left (fs.inotify.max_user_instances): looking now and then shows the same.
            error = os.strerror(ctypes.get_errno())
            log.warning("polling logs: no inotify instance is left", extra={"error": error})
            return
        wanted = _IN_MODIFY | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF | _IN_ONLYDIR
        if _LIBC.inotify_add_watch(self._fd, os.fsencode(directory), ctypes.c_uint32(wanted)) < 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, f"watch {directory}: {os.strerror(number)}")

    def close(self) -> None:
        """Stop watching."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def wait(self) -> None:
        """Wait until something changes, or at most a second, as the reader may have gone."""
        if self._fd < 0:
            time.sleep(_POLL)
        elif select.select([self._fd], [], [], 1.0)[0]:
            os.read(self._fd, 64 << 10)


def _open(path: Path) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except OSError:
        return None


def _same(file: BinaryIO, path: Path) -> bool:
    try:
        there = path.stat()
    except OSError:
        return True
    here = os.fstat(file.fileno())
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _lines(file: BinaryIO | None) -> Iterator[Record]:
    """Yield the records that a file has from its position on; an incomplete line is left for the next time."""
    if file is None:
        return
    while line := file.readline():
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield parse(line)


def send(reader: Reader, out: int) -> None:
    """Write a log to a descriptor until it ends or has no reader left, and close it."""
    poll = select.poll()
    poll.register(out, 0)
    try:
        for data in reader:
            if not data and poll.poll(0):
                return
            while data:
                data = data[os.write(out, data) :]
    except OSError:
        return
    finally:
        os.close(out)
