# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches one file or folder for changes; see inotify(7)."""

import contextlib
import ctypes
import os
from pathlib import Path

#: A file was written to; something was moved into a folder.
MODIFY, MOVED_TO = 0x2, 0x80
_LIBC = ctypes.CDLL(None, use_errno=True)


def watch(path: Path, events: int) -> int | None:
    """Return a descriptor that becomes readable with these events at *path*.

    None if that isn't possible: the user's instances may be used up (``fs.inotify.max_user_instances``; all launchers
    of a node run as the same user). The caller then has to poll.
    """
    descriptor: int = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None
    if _LIBC.inotify_add_watch(descriptor, os.fsencode(path), ctypes.c_uint32(events)) < 0:
        os.close(descriptor)
        return None
    return descriptor


def drain(descriptor: int) -> None:
    """Forget the events so far."""
    with contextlib.suppress(BlockingIOError):
        os.read(descriptor, 65536)
