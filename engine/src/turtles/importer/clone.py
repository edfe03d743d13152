# SPDX-License-Identifier: GPL-3.0-or-later
"""From another claim to the disk on a claim: as a reflink where the file system has them, else as a copy with holes."""

import os
import stat
from pathlib import Path

from turtles.images import Image
from turtles.importer.conversion import convert, too_large
from turtles.importer.errors import ImportRefused
from turtles.importer.progress import Progress
from turtles.importer.target import Target

#: Where the other claim is, by its volumeMode.
DIRECTORY, DEVICE = Path("/source"), Path("/dev/cdi-source-volume")


def run(source: Path, target: Target, progress: Progress) -> None:
    """Copy a disk.

    :param source: a folder with a disk.img, or a device.
    :raises ImportFailed: there is no disk, and nothing that could be taken for one.
    """
    path = source if source.is_block_device() else source / "disk.img"
    with target.written("the disk can't be copied"):
        _copy(path, target, progress)


def _copy(path: Path, target: Target, progress: Progress) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise ImportRefused(f"the claim to copy has no {path.name}") from error
    try:
        is_device = stat.S_ISBLK(os.fstat(descriptor).st_mode)
        if not is_device and not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ImportRefused(f"the claim to copy has a {path.name} that is not a regular file")
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if size > target.size:
            raise too_large(target, size)
        target.prepare()
        if is_device or not target.reflink(descriptor):
            target.close()
            # What is on a claim is raw, whatever it looks like: a guest may have written it
            image = Image("raw", size)
            convert(
                path,
                image,
                target.draft,
                progress.converted,
                device=target.is_device,
                preallocate=target.preallocate,
            )
        target.publish()
    finally:
        os.close(descriptor)
