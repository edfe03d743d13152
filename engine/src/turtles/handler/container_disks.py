# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts the files of containerDisks' images into a launcher that waits for them, out of the images' containers."""

import contextlib
from collections.abc import Sequence

from turtles.domain import paths
from turtles.handler import mounts
from turtles.handler.errors import LauncherBusy, LauncherNotReady
from turtles.handler.peer import Peer, StrangerError, closing


def mount(directory: int, volumes: Sequence[str]) -> None:
    """Mount the container disks of a launcher that waits for them.

    :param directory: descriptor of the Pod's folder of sockets.
    :param volumes: whose images it may want to have mounted.
    :raises LauncherNotReady: if a container of an image isn't there yet.
    """
    with contextlib.ExitStack() as stack:
        try:
            launcher = stack.enter_context(Peer(directory, paths.CONTAINER_DISKS_SOCKET.name))
            launcher.check()
        except (ConnectionRefusedError, BlockingIOError) as error:
            raise LauncherBusy(f"{paths.CONTAINER_DISKS_SOCKET} is not being listened on yet") from error
        except OSError:
            return  # nothing waits: the disks are image volumes, or mounted
        except StrangerError as error:
            raise LauncherNotReady(f"{paths.CONTAINER_DISKS_SOCKET} {error}") from error
        try:
            sources = {
                volume: stack.enter_context(Peer(directory, paths.container_disk_socket(volume).name))
                for volume in volumes
            }
        except OSError as error:
            kind = LauncherBusy if isinstance(error, ConnectionRefusedError) else LauncherNotReady
            raise kind(f"a container of a containerDisk's image is not running yet: {error}") from error
        answer = paths.CONTAINER_DISKS_MOUNTED
        try:
            for volume, source in sources.items():
                source.check()
                if source.namespace("net") != launcher.namespace("net"):
                    raise StrangerError("belongs to a process in another network")
                mounts.show(
                    stack.enter_context(closing(source.open_namespace("mnt"))),
                    stack.enter_context(closing(launcher.open_namespace("mnt"))),
                    paths.container_disk_image_dir(volume),
                )
        except StrangerError as error:
            answer = (
                f"volume {volume!r}: the files of its image can't be mounted: the listener is not its image's "
                f"container: {paths.container_disk_socket(volume)} {error}\n"
            ).encode()
        except (mounts.MountError, OSError) as error:
            answer = f"volume {volume!r}: the files of its image can't be mounted: {error}\n".encode()
        launcher.send(answer)
