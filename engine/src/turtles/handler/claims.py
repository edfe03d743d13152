# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims of volumes that come to a running guest and leave it: shown to its launcher out of the Pods that hold them."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from turtles.domain import paths
from turtles.handler import mounts
from turtles.handler.launcher_process import LauncherProcess
from turtles.handler.peer import Peer, StrangerError, closing
from turtles.handler.pod_files import PodFiles, open_own_folder, own_folder
from turtles.handler.watcher import Watcher


class Claims:
    """The claims that one launcher sees."""

    def __init__(self, pods_dir: str, files: PodFiles, process: LauncherProcess, watcher: Watcher) -> None:
        self._pods_dir, self._files, self._process, self._watcher = pods_dir, files, process, watcher

    def has(self, volume: str) -> bool:
        """Say whether the launcher sees the claim of a volume that came later."""
        try:
            with closing(self._files.open(paths.claim_dir(volume), os.O_PATH | os.O_DIRECTORY)) as folder:
                return mounts.is_mount_point(folder)
        except OSError:
            return False

    def bring(self, volume: str, pod_uid: str) -> None:
        """Show the launcher the claim of a volume, out of the Pod that holds it.

        :raises FileNotFoundError: if that Pod isn't ready.
        :raises StrangerError: if something else is in its place.
        :raises OSError, turtles.handler.mounts.MountError: if it isn't possible.
        """
        path = paths.claim_dir(volume)
        with contextlib.ExitStack() as opened:

            def keep(descriptor: int) -> int:
                return opened.enter_context(closing(descriptor))

            sockets = keep(open_own_folder(str(paths.attachment_dir(self._pods_dir, pod_uid))))
            holder = opened.enter_context(Peer(sockets, paths.ATTACHMENT_SOCKET.name))
            holder.check()
            root = keep(os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=holder.process))
            claim = keep(mounts.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY))
            if not mounts.is_mount_point(claim):
                raise StrangerError("belongs to a container without the claim")
            # Made by way of the node, mounted upon as the launcher sees it.
            private = keep(self._files.open_volume(paths.PRIVATE_DIR))
            disks = keep(own_folder(private, path.parent.name, 0o750))
            keep(own_folder(disks, path.name, 0o750))
            target = keep(self._files.open(path, os.O_PATH | os.O_DIRECTORY))
            if mounts.is_mount_point(target):
                return
            source = keep(holder.open_namespace("mnt"))
            mounts.share(source, claim, keep(self._process.open_namespace("mnt")), target)

    def take(self, volume: str) -> None:
        """Take the claim of a volume away from the launcher again. What QEMU has open stays open.

        :raises OSError, turtles.handler.mounts.MountError: if that isn't possible.
        """
        path = paths.claim_dir(volume)
        with (
            closing(self._files.open(path.parent, os.O_PATH | os.O_DIRECTORY)) as parent,
            closing(self._process.open_namespace("mnt")) as namespace,
        ):
            mounts.remove(namespace, parent, path.name)

    def watch_attachment(self, pod_uid: str, on_change: Callable[[], None]) -> None:
        """Call back, once, when something appears in the folder of a Pod that holds a claim.

        :raises OSError: if there is no such folder.
        """
        self._watcher.folder(Path(paths.attachment_dir(self._pods_dir, pod_uid)), on_change, once=True)
