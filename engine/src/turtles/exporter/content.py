# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to download: disks and files on claims. What is on a claim is not to be trusted.

A guest, or whoever had the claim before, has written it: nothing leads out of it.
"""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PIECE = 1 << 20
#: Of a disk: fast, because what is empty is gone then already.
_LEVEL = 1
#: Stands for the content of devices while this process runs: they have no times of changes.
_SESSION = secrets.token_hex(8)
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Unreadable(Exception):
    """There is no such content. The message says what there is instead."""


@dataclass(frozen=True)
class Volume:
    """A claim.

    :param path: the folder where it is mounted, or its device. :param is_disk: it holds a disk, and not files.
    """

    path: Path
    is_disk: bool

    def check(self) -> None:
        """Open it once.

        :raises Unreadable: that isn't possible.
        """
        if self.is_disk:
            with self.disk():
                return
        with File.folder(self.path):
            return

    def disk(self) -> File:
        """Return its disk.

        :raises Unreadable: there is none.
        """
        path = self.path if self.path.is_block_device() else self.path / "disk.img"
        try:
            return File(os.open(path, _OPEN))
        except FileNotFoundError:
            raise Unreadable("it has no disk.img: no disk was ever created on it") from None
        except OSError as error:
            raise Unreadable(f"{path.name} can't be read: {error.strerror}") from error

    def find(self, names: Iterable[str]) -> File:
        """Return a file or folder on it, by the names of the folders and its own.

        :raises Unreadable: there is none, or the way there has a symbolic link.
        """
        file = File.folder(self.path)
        for name in names:
            if name in (".", "..") or "/" in name or "\0" in name:
                file.close()
                raise Unreadable(f"{name!r} is not the name of a file")
            with file:
                file = file.below(name)
        return file

    def archive(self) -> Iterator[bytes]:
        """Give all files on it as a tar archive.

        :raises Unreadable: they can't be read; what was given until then is to be thrown away.
        """
        command = ["tar", "--create", "--sparse", "--exclude=./lost+found", "--directory", str(self.path), "."]
        # What it complains about is in the log of the container
        tar = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert tar.stdout is not None
        try:
            while piece := tar.stdout.read(_PIECE):
                yield piece
        finally:
            # One that has more ends because nobody reads it
            tar.stdout.close()
            status = tar.wait()
        if status:
            raise Unreadable(f"tar ended with status {status}")


class File:
    """A file, a device or a folder on a claim. To be closed."""

    def __init__(self, descriptor: int) -> None:
        """Take an open file.

        :raises Unreadable: it is something else, such as a pipe.
        """
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self.is_folder = stat.S_ISDIR(status.st_mode)
        is_device = stat.S_ISBLK(status.st_mode)
        if not (self.is_folder or is_device or stat.S_ISREG(status.st_mode)):
            self.close()
            raise Unreadable("it is neither a regular file nor a folder")
        #: Bytes; of a device, all that it has.
        self.size = 0 if self.is_folder else os.lseek(descriptor, 0, os.SEEK_END)
        #: Differs from that of other content (RFC 9110, section 8.8.3).
        self.tag = f'"{self.size:x}-{_SESSION if is_device else format(status.st_mtime_ns, "x")}"'

    @classmethod
    def folder(cls, path: Path) -> File:
        """Open the folder where a claim is mounted.

        :raises Unreadable: that isn't possible.
        """
        try:
            return cls(os.open(path, _OPEN | os.O_DIRECTORY))
        except OSError as error:
            raise Unreadable(f"it can't be read: {error.strerror}") from error

    def __enter__(self) -> File:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def below(self, name: str) -> File:
        """Return what is called so in this folder.

        :raises Unreadable: there is nothing, or a symbolic link, or it isn't for everyone.
        """
        try:
            return File(os.open(name, _OPEN, dir_fd=self._descriptor))
        except OSError as error:
            raise Unreadable(f"{name}: {error.strerror}") from error

    def names(self) -> list[tuple[str, bool]]:
        """Return what is in this folder: names, and whether they are those of folders."""
        with os.scandir(self._descriptor) as entries:
            members = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if not entry.is_symlink()]
        return sorted(members)

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Give the content from one offset to another.

        :raises OSError: it can't be read, or there is less of it by now.
        """
        while start < end:
            piece = os.pread(self._descriptor, min(_PIECE, end - start), start)
            if not piece:
                raise OSError(f"it has only {start} bytes")
            start += len(piece)
            yield piece


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress (RFC 1952); the same content always becomes the same."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)
    for piece in pieces:
        if compressed := compressor.compress(piece):
            yield compressed
    yield compressor.flush()
