# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells whether a file has changed without reading it."""

import time
from pathlib import Path

#: Seconds in which a file may change again without its times showing it: the kernel takes them from a clock that ticks
#: every 1 to 10 ms; some filesystems keep whole seconds only, FAT every second one.
TICK, COARSE_TICK = 0.1, 2.0


def stamp(path: Path) -> tuple[int, ...] | None:
    """Return what is another one whenever the file's content is; None for a file that changed a moment ago.

    Take it before reading the file. A time of change from the last tick says nothing about what comes after it, and an
    inode is used again as soon as it is free (Git's "racily clean" entries): then, None says to read again next time.
    Only the kernel sets the time of change: programs that copy or build reproducibly set that of modification.

    :raises OSError: if there is no such file.
    """
    status = path.stat()
    tick = TICK if status.st_ctime_ns % 1_000_000_000 else COARSE_TICK
    if time.time() - status.st_ctime < tick:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
