# SPDX-License-Identifier: GPL-3.0-or-later
"""What only root can do about files that back disks: learn the size of their blocks, create those on the host."""

import array
import contextlib
import fcntl
import os
import stat
from collections.abc import Mapping
from typing import Any

from turtles.api import quantity
from turtles.api.guests import QEMU_UID

# <linux/fs.h>
_BLKSSZGET, _BLKPBSZGET = 0x1268, 0x127B
_MIB = 2**20
#: What QEMU takes for the size of blocks.
_SMALLEST, _LARGEST = 512, 2 * _MIB


def block_sizes(disk: int) -> tuple[int, int] | None:
    """Return the logical and the physical size of the blocks of a file or a block device; None if a disk can't have it.

    :param disk: an open descriptor.
    :raises OSError: if they can't be found out.
    """
    if stat.S_ISBLK(os.fstat(disk).st_mode):
        logical, physical = (_ask(disk, request) for request in (_BLKSSZGET, _BLKPBSZGET))
    else:
        logical = physical = os.fstatvfs(disk).f_bsize
    fits = all(_SMALLEST <= size <= _LARGEST and not size & (size - 1) for size in (logical, physical))
    return (logical, physical) if fits and logical <= physical else None


def room(disk: int) -> int:
    """Return how many bytes a disk can have: the size of a device, or what a file has and could have in addition.

    :param disk: an open descriptor.
    """
    status = os.fstat(disk)
    if stat.S_ISBLK(status.st_mode):
        return os.lseek(disk, 0, os.SEEK_END)
    system = os.fstatvfs(disk)
    return status.st_blocks * 512 + system.f_bavail * system.f_frsize


def own_host_disk(folder: int, name: str, wanted: Mapping[str, Any]) -> None:
    """Give QEMU's user the disk file of a hostDisk, created (sparse) if that is asked for and there is none.

    What has the name of a file may be a link that the host's users have made; none is followed.

    :param folder: descriptor of the file's folder.
    :param wanted: the hostDisk: type and capacity.
    :raises OSError: it doesn't exist, or can't be created.
    :raises ValueError: it is no file, or too large for its file system.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        if wanted["type"] != "DiskOrCreate":
            raise
        file = _create(folder, name, quantity.to_int(wanted.get("capacity") or 0), flags)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a regular file")
        if status.st_uid != QEMU_UID:
            os.fchown(file, QEMU_UID, QEMU_UID)
    finally:
        os.close(file)


def _create(folder: int, name: str, capacity: int, flags: int) -> int:
    size = capacity // _MIB * _MIB
    if not size:
        raise ValueError("does not exist and can't be created: it needs a capacity of at least 1Mi")
    system = os.fstatvfs(folder)
    if (free := system.f_bavail * system.f_frsize) < size:
        raise ValueError(f"can't be created: it needs {size // _MIB} MiB, but only {free // _MIB} MiB are free")
    file = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o660, dir_fd=folder)
    try:
        os.ftruncate(file, size)
    except OSError:
        os.close(file)
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
    return file


def _ask(device: int, request: int) -> int:
    answer = array.array("I", [0])
    fcntl.ioctl(device, request, answer)
    return answer[0]
