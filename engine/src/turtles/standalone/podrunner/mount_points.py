# SPDX-License-Identifier: GPL-3.0-or-later
"""The mounts of this machine at and below paths of the podrunner's."""

import contextlib
from pathlib import Path

from turtles.standalone.podrunner import syscalls as sc


def is_mount(path: Path) -> bool:
    """Say whether something is mounted exactly at path."""
    return str(path) in mount_points()


def mount_points() -> list[str]:
    """Return every mount point of this mount namespace, in mount order."""
    return [_unescape(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def unmount_below(directory: Path) -> bool:
    """Unmount everything mounted at or below a directory; say whether there was anything."""
    prefix = f"{directory}/"
    below = [point for point in mount_points() if point == str(directory) or point.startswith(prefix)]
    for point in reversed(below):
        with contextlib.suppress(OSError):
            sc.umount(point, sc.MNT_DETACH)
    return bool(below)


def _unescape(text: str) -> str:
    return text.encode().decode("unicode_escape") if "\\" in text else text
