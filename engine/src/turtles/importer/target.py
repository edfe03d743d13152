# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk on the claim: a sparse file disk.img, or a block device. A file gets its name when it is complete."""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from turtles.importer.errors import ImportFailed, ImportRefused

#: Where a claim is, by its volumeMode (CDI).
DIRECTORY, DEVICE = Path("/data"), Path("/dev/cdi-block-volume")
_DISK, _DRAFT = "disk.img", ".disk.img.part"
_BLOCK = 64 << 10
_ZEROS = bytes(_BLOCK)
_SECTOR = 512
#: linux/fs.h: _IO(0x12, 127), _IOR(0x12, 114, size_t), _IOW(0x94, 9, int)
_BLKZEROOUT, _BLKGETSIZE64, _FICLONE = 0x127F, 0x80081272, 0x40049409


class Target:
    """What an import writes to.

    :param path: the folder a claim is mounted at, or its device.
    :param size: bytes that the guest is to see; whole sectors.
    :param preallocate: reserve all of them before anything is written.
    """

    def __init__(self, path: Path, size: int, *, preallocate: bool = False) -> None:
        self.size = size // _SECTOR * _SECTOR
        self.preallocate = preallocate
        self.is_device = path.is_block_device()
        #: What is written to until it is complete.
        self.draft = path if self.is_device else path / _DRAFT
        self._disk = path if self.is_device else path / _DISK
        self._descriptor = -1

    def prepare(self, *, keep: int = 0) -> None:
        """Open it, with this many bytes of what an earlier attempt wrote.

        :raises ImportRefused: the device is too small, or the claim isn't what it should be.
        """
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        if self.is_device:
            self._descriptor = os.open(self.draft, flags)
            size = struct.unpack("Q", fcntl.ioctl(self._descriptor, _BLKGETSIZE64, bytes(8)))[0]
            self.size = min(self.size, size)
            return
        if not self.draft.parent.is_dir():
            raise ImportRefused(f"the claim is not mounted at {self.draft.parent}")
        self._descriptor = os.open(self.draft, flags | os.O_CREAT, 0o660)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise ImportRefused(f"{self.draft} is not a regular file")
        os.ftruncate(self._descriptor, keep)
        if self.preallocate and not keep:
            os.posix_fallocate(self._descriptor, 0, self.size)

    def adopt(self) -> int:
        """Open the disk that is there already, and return its size in bytes.

        :raises ImportRefused: there is none.
        """
        try:
            self._descriptor = os.open(self._disk, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise ImportRefused(f"the restored volume has no {self._disk.name}") from error
        mode = os.fstat(self._descriptor).st_mode
        if not (stat.S_ISBLK(mode) if self.is_device else stat.S_ISREG(mode)):
            raise ImportRefused(f"the restored volume has a {self._disk.name} that is not a regular file")
        # Of a device, the guest sees all
        return 0 if self.is_device else os.fstat(self._descriptor).st_size

    def grow(self) -> None:
        """Give a disk that was there already its size."""
        if not self.is_device:
            os.ftruncate(self._descriptor, self.size)
            if self.preallocate:
                os.posix_fallocate(self._descriptor, 0, self.size)
        os.fsync(self._descriptor)

    def write(self, data: bytes, position: int) -> None:
        """Write some bytes. Zeros become holes of a file, which has nothing else there."""
        sparse = not self.is_device
        view, count = memoryview(data), len(data)
        start = 0
        while start < count:
            end = start
            # One write for as much as there is between two holes
            while end < count and not (sparse and _is_zero(data, end)):
                end += _BLOCK
            if end > start:
                _write_all(self._descriptor, view[start : min(end, count)], position + start)
            start = end + _BLOCK if end < count else count

    def read(self, count: int, position: int) -> bytes:
        """Read what has been written."""
        return os.pread(self._descriptor, count, position)

    def reflink(self, source: int) -> bool:
        """Let a file share the data of another one; return False where the file system can't.

        :param source: descriptor of the other file.
        """
        if self.is_device or self.preallocate:
            return False
        try:
            fcntl.ioctl(self._descriptor, _FICLONE, source)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
                return False
            raise
        return True

    def keep(self, position: int) -> None:
        """Make sure that all before a position is there, also after a crash."""
        if not self.is_device and os.fstat(self._descriptor).st_size < position:
            os.ftruncate(self._descriptor, position)
        os.fdatasync(self._descriptor)

    def erase(self) -> None:
        """Fill a device with zeros; a file has nothing else."""
        if not self.is_device:
            return
        try:
            fcntl.ioctl(self._descriptor, _BLKZEROOUT, struct.pack("QQ", 0, self.size))
        except OSError:
            for position in range(0, self.size, len(_ZEROS)):
                _write_all(self._descriptor, memoryview(_ZEROS)[: self.size - position], position)

    @contextlib.contextmanager
    def written(self, problem: str) -> Iterator[None]:
        """Discard what is there if what writes fails, and close it in any case.

        :param problem: begins the message if there is no space, or no access.
        :raises ImportFailed: it has failed.
        """
        try:
            yield
        except ImportFailed:
            self.discard()
            raise
        except OSError as error:
            self.discard()
            raise ImportFailed(f"{problem}: {error.strerror or error}") from error
        finally:
            self.close()

    def close(self) -> None:
        """Stop writing; the draft stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def publish(self) -> None:
        """Give a disk its size and its name, once all of it is there."""
        if self._descriptor < 0:
            self._descriptor = os.open(self.draft, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        if not self.is_device:
            os.ftruncate(self._descriptor, self.size)
        os.fsync(self._descriptor)
        self.close()
        if not self.is_device:
            self.draft.rename(self._disk)
            _sync_folder(self._disk.parent)

    def discard(self) -> None:
        """Leave nothing behind. What is on a device can't be taken for a disk any more."""
        if self.is_device and self._descriptor >= 0:
            with contextlib.suppress(OSError):
                _write_all(self._descriptor, memoryview(bytes(min(self.size, 1 << 20))), 0)
        self.close()
        if not self.is_device:
            self.draft.unlink(missing_ok=True)


def guarded(action: Callable[[], None]) -> None:
    """Do something that writes.

    :raises ImportFailed: there is no space.
    """
    try:
        action()
    except OSError as error:
        raise ImportFailed(f"the claim can't be written: {error.strerror}") from error


def _is_zero(data: bytes, start: int) -> bool:
    """Say whether a block consists of zeros. Nothing is copied for it."""
    left = len(data) - start
    return data.startswith(_ZEROS if left >= _BLOCK else _ZEROS[:left], start)


def _write_all(descriptor: int, data: memoryview, position: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, position)
        data, position = data[written:], position + written


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
