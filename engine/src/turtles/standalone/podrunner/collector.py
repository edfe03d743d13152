# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a container's output, line by line with its time, to a file of limited size.

A container writes into two named pipes that it holds open for reading too: their reader may end and be replaced,
and the container notices no more than a pause if it writes a lot. The forking process reads; it is there as
long as any container.

The file is in the format of the Container Runtime Interface (Kubernetes design proposal kubelet-cri-logging):
``<RFC 3339 time> <stdout|stderr> <F|P> <text>``, P if the line continues in the next record.
"""

import contextlib
import fcntl
import os
import termios
from datetime import UTC, datetime
from pathlib import Path

STREAMS = ("stdout", "stderr")
STDIN = "stdin"
#: Bytes after which the file is rotated; one earlier file is kept.
MAX_LOG = 10 << 20
_MAX_LINE = 16 << 10
_READ = 64 << 10


def rotated(path: Path) -> Path:
    """Return where the earlier part of a log is."""
    return path.with_name(f"{path.name}.1")


def make_pipes(directory: Path) -> None:
    """Create the named pipes of a container that is about to start."""
    for stream in (*STREAMS, STDIN):
        path = directory / stream
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)


class Collector:
    """Writes one container's log.

    :param directory: the container's, with the pipes.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "log"
        self._buffers: dict[str, bytes] = dict.fromkeys(STREAMS, b"")
        #: Stream → descriptor of the pipe's reading end, to be waited for.
        self.pipes: dict[str, int] = {}
        self._file = -1
        try:
            for stream in STREAMS:
                self.pipes[stream] = os.open(directory / stream, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._open()
        except OSError:
            self.close()
            raise

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._file).st_size

    def collect(self, stream: str) -> bool:
        """Read what a pipe has; return False when it has no writers left."""
        try:
            data = os.read(self.pipes[stream], _READ)
        except BlockingIOError:
            return True
        if not data:
            return False
        data = self._buffers[stream] + data
        *lines, rest = data.split(b"\n")
        stamp = _now()
        records = [record for line in lines for record in _records(stamp, stream, line, True)]
        while len(rest) >= _MAX_LINE:
            records.append(_record(stamp, stream, b"P", rest[:_MAX_LINE]))
            rest = rest[_MAX_LINE:]
        self._buffers[stream] = rest
        self._write(b"".join(records))
        return True

    def finish(self) -> None:
        """Read the rest when the container has ended, and close."""
        for stream in [name for name in STREAMS if name in self.pipes]:
            with contextlib.suppress(OSError):
                while _waiting(self.pipes[stream]) and self.collect(stream):
                    pass
            if self._buffers[stream]:
                self._write(b"".join(_records(_now(), stream, self._buffers[stream], False)))
                self._buffers[stream] = b""
        self.close()

    def close(self) -> None:
        """Close pipes and file."""
        for fd in (*self.pipes.values(), self._file):
            if fd >= 0:
                os.close(fd)
        self.pipes.clear()
        self._file = -1

    def _write(self, data: bytes) -> None:
        if self._file < 0 or not data:
            return
        # A full disk costs log lines, not containers.
        with contextlib.suppress(OSError):
            if self._size + len(data) > MAX_LOG and self._size:
                self._path.replace(rotated(self._path))
                os.close(self._file)
                self._file = -1
                self._open()
            self._size += os.write(self._file, data)


def _waiting(fd: int) -> bool:
    """Say whether a pipe has data (FIONREAD, ioctl_tty(2))."""
    return any(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))


def _records(stamp: bytes, stream: str, line: bytes, ended: bool) -> list[bytes]:
    """Return the records of a line; ``ended`` says whether it had its newline."""
    parts = [line[start : start + _MAX_LINE] for start in range(0, len(line), _MAX_LINE)] or [b""]
    return [
        _record(stamp, stream, b"F" if ended and number == len(parts) - 1 else b"P", part)
        for number, part in enumerate(parts)
    ]


def _record(stamp: bytes, stream: str, tag: bytes, text: bytes) -> bytes:
    return b"%s %s %s %s\n" % (stamp, stream.encode(), tag, text)


def _now() -> bytes:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()
