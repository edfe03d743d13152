# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits on what a download may do to the disk."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from turtles.standalone.podrunner.confined import waits_for_disk
from turtles.standalone.podrunner.unpack import RESERVE

#: A download that brings less than so many bytes in so many seconds is given up: others wait for its place.
_STALL_BYTES, _STALL_SECONDS = 1 << 20, 60.0
#: Of a downloaded or expanded image: blobs, not what is in them.
_MAX_FILES = 600
#: Inodes that stay free.
_MIN_INODES = 20_000


class PullError(Exception):
    """An image can't be pulled; the message says why."""


class SilenceError(PullError):
    """Nothing answers: asking again with other credentials is of no use."""


class RoomWatch:
    """Ends a program that fills the disk.

    :param folder: where it writes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self, pid: int) -> None:
        """Check on a running program.

        :raises PullError: the disk is full.
        """
        status = os.statvfs(self._folder)
        if status.f_bavail * status.f_frsize < RESERVE // 2:
            raise PullError("the disk with the images is full")
        if status.f_files and status.f_favail < _MIN_INODES:
            raise PullError("the file system with the images has no inodes left")


class SizeWatch(RoomWatch):
    """Ends a program that also writes more than it may.

    :param limit: bytes it may write.
    :param excess: error message if it writes more.
    """

    def __init__(self, folder: Path, limit: int, excess: str) -> None:
        super().__init__(folder)
        self._limit, self.excess = limit, excess

    def check(self, pid: int) -> None:
        """Check on a running program.

        :raises PullError: the disk is full, or it wrote more than it may.
        """
        super().check(pid)
        size = size_of(self._folder)
        if size is None:
            raise PullError(f"it consists of more than {_MAX_FILES} files")
        if size > self._limit:
            raise PullError(self.excess)
        self.arrived(size, pid)

    def arrived(self, size: int, pid: int) -> None:
        """Record how much was written so far."""


class DownloadWatch(SizeWatch):
    """Ends a download that also stalls.

    :param expected: bytes to download.
    :param source: where they come from.
    :param progress: called with the amount so far.
    """

    def __init__(
        self, folder: Path, limit: int, excess: str, expected: int, source: str, progress: Callable[[str], None]
    ) -> None:
        super().__init__(folder, limit, excess)
        self._expected, self._source, self._progress = expected, source, progress
        self._mark, self._since = 0, time.monotonic()

    def arrived(self, size: int, pid: int) -> None:
        """Record how much was written so far.

        :raises PullError: it has been too slow for a while.
        """
        far = f"{mib(size)} of {mib(self._expected)}"
        self._progress(f"downloading it from {self._source}: {far}")
        # Large files take their time to be synced, which isn't the registry's fault.
        if size - self._mark >= _STALL_BYTES or waits_for_disk(pid):
            self._mark, self._since = size, time.monotonic()
        elif time.monotonic() - self._since > _STALL_SECONDS:
            raise PullError(
                f"{self._source} sent {far}, of which less than {mib(_STALL_BYTES)} in the last {_STALL_SECONDS:.0f} s"
            )


def size_of(folder: Path) -> int | None:
    """Return the sum of a folder's files' sizes, None if there are too many files."""
    total = count = 0
    for root, folders, names in os.walk(folder):
        count += len(folders) + len(names)
        if count > _MAX_FILES:
            return None
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118
    return total


def mib(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / (1 << 20):.1f} MiB" if count < 10 << 20 else f"{count >> 20} MiB"
