# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guest writes to its serial console, on its way to the container that logs it.

QEMU appends it to a file: it waits for that file whenever the guest writes, so nothing that might keep it waiting, such
as a pipe, may be in its place. The launcher takes it from there to a pipe that the container reads (:mod:`.tail`), and
gives back the file's blocks behind it, so that a guest that writes without end fills no disk.
"""

import ctypes
import errno
import logging
import os
from pathlib import Path

from turtles.launcher import inotify, loop
from turtles.launcher.errors import LaunchError

log = logging.getLogger(__name__)

#: Bytes that may wait for the container to take them. What comes on top of them is lost.
BACKLOG = 1024 * 1024
#: Seconds that output is collected before it is passed on; and until the container is tried again that took none.
_DELAY, _PAUSE = 0.1, 1.0
#: How often to look at the file where inotify isn't available, in seconds.
_POLL_SECONDS = 0.5
_CHUNK = 64 * 1024
#: Bytes after which blocks are given back; a multiple of any file system's block size.
_GIVE_BACK = 256 * 1024
#: fallocate(2)
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def _open_pipe(path: Path) -> int:
    """Open a pipe, made if need be. A reader that found it without a writer would take that for the end."""
    # Open for reading as well, so that it keeps what is written before the container reads.
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
    if path.exists():
        return os.open(path, flags)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    os.mkfifo(new, 0o600)
    opened = os.open(new, flags)
    new.rename(path)
    return opened


class ConsoleLog:
    """Takes the output of the serial console from a file to a pipe, which it makes both."""

    def __init__(self, file: Path, pipe: Path) -> None:
        """Make the file and the pipe.

        :param file: that QEMU is to append to.
        :param pipe: that the container reads.
        :raises LaunchError: if the Pod's folders can't be used.
        """
        self._path = file
        self._offset = self._given_back = 0
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._pipe = _open_pipe(pipe)
        except OSError as error:
            raise LaunchError(f"the serial console's log can't be made: {error}") from error

    def start(self) -> None:
        """Pass on what comes from now on, while the event loop runs."""
        self._changes = inotify.watch(self._path, inotify.MODIFY)
        if self._changes is None:
            loop.every(_POLL_SECONDS, self._look)
        else:
            self._wait()

    def _look(self) -> None:
        self.copy()

    def _wait(self) -> None:
        """Wait for output; what comes with it is passed on at once: QEMU writes single characters."""
        assert self._changes is not None
        self._stop_waiting = loop.on_readable(self._changes, self._changed)

    def _changed(self) -> None:
        assert self._changes is not None
        self._stop_waiting()
        loop.after(_DELAY, self._pass_on)

    def _pass_on(self) -> None:
        assert self._changes is not None
        inotify.drain(self._changes)
        if self.copy():
            self._wait()
        else:
            loop.after(_PAUSE, self._pass_on)

    def copy(self) -> bool:
        """Write to the pipe what is new in the file; return whether it took all of it."""
        size = os.fstat(self._file).st_size
        if (lost := size - self._offset - BACKLOG) > 0:
            self._offset += lost
            log.warning("output of the serial console is lost: nothing takes it", extra={"bytes": lost})
        took_all = True
        try:
            while self._offset < size:
                data = os.pread(self._file, min(_CHUNK, size - self._offset), self._offset)
                self._offset += os.write(self._pipe, data)
        except BlockingIOError:
            took_all = False
        if self._offset - self._given_back >= _GIVE_BACK:
            self._give_back()
        return took_all

    def _give_back(self) -> None:
        end = self._offset - self._offset % _GIVE_BACK
        length = end - self._given_back
        if _LIBC.fallocate(self._file, _KEEP_SIZE | _PUNCH_HOLE, self._given_back, length) == 0:
            self._given_back = end
            return
        number = ctypes.get_errno()
        if number != errno.EOPNOTSUPP:
            log.warning("the serial console's log keeps its disk space: %s", os.strerror(number))
        elif self._offset == os.fstat(self._file).st_size:
            # QEMU appends: it goes on at the beginning.
            os.ftruncate(self._file, 0)
            self._offset = self._given_back = 0
