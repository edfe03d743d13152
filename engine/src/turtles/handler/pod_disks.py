# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a guest in its launcher's Pod: images, claims and files of the node, as QEMU will open them."""

import errno
import itertools
import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from turtles.domain import end, paths
from turtles.handler import disk_files
from turtles.handler.errors import GuestEnded
from turtles.handler.peer import closing
from turtles.handler.pod_files import PodFiles


class PodDisks:
    """The disks of one Pod."""

    def __init__(self, files: PodFiles) -> None:
        self._files = files

    def bypasses_page_cache(self, path: PurePosixPath) -> bool:
        """Say whether the file at *path* in the Pod can be opened for direct I/O."""
        try:
            os.close(self._files.open_file(path, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            return False
        return True

    def block_sizes(self, path: PurePosixPath) -> tuple[int, int] | None:
        """Return the logical and the physical size of the blocks of a file or device in the Pod; None if unknown."""
        try:
            with closing(self._files.open_disk(path)) as disk:
                return disk_files.block_sizes(disk)
        except OSError:
            return None

    def room(self, path: PurePosixPath) -> int:
        """Return how many bytes a disk in the Pod can have: a device's size, or what its file system has for it.

        :raises OSError: if it isn't there, or no disk.
        """
        with closing(self._files.open_disk(path)) as disk:
            return disk_files.room(disk)

    def open_container_disk(self, volume: Mapping[str, Any]) -> int:
        """Open the disk file of a containerDisk, to read from.

        :param volume: an entry of ``spec.volumes`` with a containerDisk.
        :raises OSError: if it isn't there.
        """
        image, path = paths.container_disk_image_dir(volume["name"]), volume["containerDisk"].get("path")
        if not path:
            with (
                closing(self._files.open(image / "disk", os.O_RDONLY | os.O_DIRECTORY)) as folder,
                os.scandir(folder) as entries,
            ):
                names = [entry.name for entry in itertools.islice(entries, 2)]
            if len(names) != 1:
                raise FileNotFoundError(errno.ENOENT, "not exactly one file", str(image / "disk"))
            path = f"disk/{names[0]}"
        return self._files.open_file(image / path.lstrip("/"), os.O_RDONLY)

    def own_host_disk(self, volume: Mapping[str, Any]) -> None:
        """Make the disk file of a hostDisk QEMU's, and create it if that is asked for and it isn't there.

        :param volume: an entry of ``spec.volumes`` with a hostDisk.
        :raises GuestEnded: if there is no such file, or it can't be one.
        """
        path = paths.host_disk(volume)
        try:
            with closing(self._files.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)) as folder:
                disk_files.own_host_disk(folder, path.name, volume["hostDisk"])
        except (OSError, ValueError) as error:
            where = volume["hostDisk"]["path"]
            words = error.strerror if isinstance(error, OSError) else error
            raise GuestEnded(end.disk_not_usable(f"volume {volume['name']!r}: hostDisk {where}: {words}")) from error
