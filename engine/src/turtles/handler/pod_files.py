# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a launcher's Pod: its volumes as the node has them, and everything else as the launcher sees it."""

import contextlib
import errno
import os
import stat
from pathlib import PurePosixPath

from turtles.api.guests import QEMU_UID
from turtles.api.texts import from_json
from turtles.domain import paths
from turtles.handler import mounts
from turtles.handler.launcher_process import LauncherProcess
from turtles.handler.peer import closing

#: How much of a cgroup's statistics is read; they are a few lines.
_STATISTICS_BYTES = 65536
#: How much of what the Pod was told about its networks is read.
_NETWORK_INFO_BYTES = 65536
#: How many files of a Secret are read, and how much of each; Kubernetes allows a MiB in all.
_SECRET_FILES, _SECRET_BYTES = 256, 1 << 20


class PodFiles:
    """Opens files of one Pod. What is in there is the Pod's doing: no link leads out of it."""

    def __init__(self, pods_dir: str, pod_uid: str, process: LauncherProcess) -> None:
        """Create it.

        :param pods_dir: the kubelet's folder of Pods.
        :param process: through which the Pod's root is reached.
        """
        self._pods_dir, self._pod_uid, self._process = pods_dir, pod_uid, process

    def host_path(self, path: PurePosixPath) -> str:
        """Return where the node has a path of one of the Pod's emptyDir volumes."""
        return str(paths.host_path(self._pods_dir, self._pod_uid, path))

    def open_volume(self, path: PurePosixPath) -> int:
        """Open the folder of one of the Pod's emptyDir volumes.

        :raises OSError: if it isn't there.
        """
        return open_own_folder(self.host_path(path))

    def make_private_dir(self, uid: str) -> None:
        """Create the folder of the consoles' sockets, owned by QEMU, unless it is there."""
        with closing(self.open_volume(paths.PRIVATE_DIR)) as private:
            os.close(own_folder(private, uid, 0o750))

    def make_migration_folder(self) -> None:
        """Create the folder in which QEMU listens for a guest that comes from another node, unless it is there."""
        os.close(self.open_migration_folder())

    def open_migration_folder(self) -> int:
        """Open the folder in which QEMU listens for a guest that comes from another node, made if need be.

        :raises OSError: if that isn't possible.
        """
        with closing(self.open_volume(paths.PRIVATE_DIR)) as private:
            return own_folder(private, paths.MIGRATION_DIR.name, 0o750)

    def open(self, path: PurePosixPath, flags: int) -> int:
        """Open a file as the launcher sees it.

        :raises OSError: if it isn't there, or the launcher isn't, any more or yet.
        """
        with closing(self._process.open_root()) as root:
            return mounts.open_in_root(root, path, flags)

    def open_file(self, path: PurePosixPath, flags: int) -> int:
        """Open a regular file as the launcher sees it. Opening something else would have effects, or wait.

        :raises OSError: if it isn't there or something else is.
        """
        with closing(self.open(path, os.O_PATH)) as file:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(path))
            # Without waiting: its owner may hold a lease on it.
            return os.open(f"/proc/self/fd/{file}", flags | os.O_NONBLOCK | os.O_CLOEXEC)

    def open_disk(self, path: PurePosixPath) -> int:
        """Open a file or a block device, to read from. Opening something else would have effects, or wait.

        :raises OSError: if it isn't there or something else is.
        """
        with closing(self.open(path, os.O_PATH)) as file:
            kind = os.fstat(file).st_mode
            if not stat.S_ISREG(kind) and not stat.S_ISBLK(kind):
                raise OSError(errno.EINVAL, "not a disk", str(path))
            return os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def has_file(self, path: PurePosixPath) -> bool:
        """Say whether there is a regular file at *path* in the Pod."""
        try:
            os.close(self.open_file(path, os.O_RDONLY))
        except OSError:
            return False
        return True

    def network_info(self) -> dict[str, str]:
        """Return the PCI addresses of the devices of SR-IOV networks that the Pod was told, by network."""
        try:
            with open(self.open_file(paths.NETWORK_INFO, os.O_RDONLY), "rb") as file:
                entries = from_json(file.read(_NETWORK_INFO_BYTES))["interfaces"]
            return {each["network"]: each["deviceInfo"]["pci"]["pci-address"] for each in entries}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def read_files(self, folder: PurePosixPath) -> dict[str, bytes]:
        """Return the files of a mounted Secret by name; empty if there is none."""
        try:
            # Kubernetes keeps its own files in a mounted Secret under names that begin with two dots.
            with (
                closing(self.open(folder, os.O_RDONLY | os.O_DIRECTORY)) as directory,
                os.scandir(directory) as entries,
            ):
                names = [entry.name for entry in entries if not entry.name.startswith("..")][:_SECRET_FILES]
        except OSError:
            return {}
        contents = {}
        for name in names:
            with contextlib.suppress(OSError), open(self.open_file(folder / name, os.O_RDONLY), "rb") as file:
                contents[name] = file.read(_SECRET_BYTES)
        return contents

    def reached_memory_limit(self) -> bool:
        """Say whether the kernel has ended a process of the launcher's container because of its memory limit."""
        # cgroup v2, then v1 as container runtimes show it.
        for name in ("memory.events", "memory/memory.oom_control"):
            try:
                path = PurePosixPath("/sys/fs/cgroup", name)
                with open(self.open_file(path, os.O_RDONLY), "rb") as file:
                    lines = file.read(_STATISTICS_BYTES).splitlines()
            except OSError:
                continue
            # In its own mount namespace a Pod may put anything in that place
            counts = [line.split()[-1] for line in lines if line.startswith(b"oom_kill ")]
            return any(count.isdigit() and count.strip(b"0") for count in counts)
        return False


def open_own_folder(path: str) -> int:
    """Open a folder that is a volume of a Pod: what is above it is the kubelet's."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def own_folder(directory: int, name: str, mode: int) -> int:
    """Return a descriptor of a folder in a Pod's folder, made if need be. It belongs to QEMU's user.

    :raises OSError: if there is something else of that name.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=directory)
    # The Pod may have put another one in its place, which is its own affair as long as it is a folder of the Pod's.
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if os.fstat(folder).st_dev != os.fstat(directory).st_dev:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
        os.fchown(folder, QEMU_UID, QEMU_UID)
    except OSError:
        os.close(folder)
        raise
    return folder
