# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's side of one launcher: the folders of its Pod, its libvirtd, its network namespace, its process.

libvirtd runs in the Pod without root, as a session daemon; its socket is in one of the Pod's emptyDir volumes. The
socket's peer credentials lead to the Pod's namespaces. They are a process number, which belongs to another process once
the first has ended, so the process must also have the Pod's own folder where the Pod has it.
"""

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from turtles.api.guests import QEMU_UID
from turtles.domain import paths
from turtles.handler import container_disks
from turtles.handler import relay as relays
from turtles.handler.claims import Claims
from turtles.handler.domain import Connection, Domain
from turtles.handler.errors import LauncherBusy, LauncherGone, LauncherNotReady
from turtles.handler.launcher_process import LauncherProcess
from turtles.handler.peer import Peer, StrangerError, closing, connect, first_process, is_alive
from turtles.handler.pod_devices import PodDevices
from turtles.handler.pod_disks import PodDisks
from turtles.handler.pod_files import PodFiles
from turtles.handler.watcher import Watcher

log = logging.getLogger(__name__)


class Launcher:
    """One launcher Pod, seen from its node.

    ``on_change`` is called from other threads whenever there may be something new: the socket appeared, the domain
    changed, libvirtd or the launcher ended. ``on_stop`` gets the detail of the domain's STOPPED event.
    """

    def __init__(
        self,
        pods_dir: str,
        pod_uid: str,
        watcher: Watcher,
        on_change: Callable[[], None],
        on_stop: Callable[[int], None],
        container_disks: Sequence[str] = (),
        relay: relays.Relay | None = None,
    ) -> None:
        """Create it.

        :param container_disks: volumes whose images the launcher may want to have mounted.
        :param relay: carries what is said to libvirtd; the process's if not given.
        """
        self._relay = relay or relays.shared()
        self.pod_uid = pod_uid
        self._container_disks = container_disks
        self.process = LauncherProcess()
        self.files = PodFiles(pods_dir, pod_uid, self.process)
        self.disks = PodDisks(self.files)
        self.devices = PodDevices(self.files, self.process)
        self.claims = Claims(pods_dir, self.files, self.process, watcher)
        self._watcher = watcher
        self._on_change = on_change
        self._on_stop = on_stop
        self._connection: Connection | None = None
        self._netns: int | None = None
        self._watched: int | None = None
        self._ended = False

    def connection(self) -> Connection:
        """Return a living connection to the Pod's libvirtd, made if need be.

        :raises LauncherGone: if there is nothing left that could answer.
        :raises LauncherNotReady: if libvirtd isn't there yet, or just now.
        """
        if self._connection is not None:
            if self._connection.is_alive():
                return self._connection
            self._disconnect()
        if self._ended:
            raise LauncherGone("virt-launcher ended")
        folder = Path(self.files.host_path(paths.SOCKETS_DIR))
        try:
            # Once: a Pod could make files there without end.
            self._watcher.folder(folder, self._on_change, once=True)
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise LauncherGone(f"the Pod's folder {folder} does not exist") from None
        except OSError as error:
            raise LauncherNotReady(f"{folder}: {error.strerror}") from error
        try:
            self._connect(directory)
        finally:
            os.close(directory)
        assert self._connection is not None
        return self._connection

    def connected(self) -> bool:
        """Say whether there is a connection that lives."""
        return self._connection is not None and self._connection.is_alive()

    def domain(self, name: str) -> Domain | None:
        """Return the domain of that name, None if it isn't defined."""
        return self.connection().domain(name)

    def live_connection(self) -> Connection:
        """Return the connection there is; from any thread.

        :raises LauncherNotReady: if there is none.
        """
        connection = self._connection
        if connection is None or not connection.is_alive():
            raise LauncherBusy("its libvirtd does not answer at the moment")
        return connection

    def live_domain(self, name: str) -> Domain:
        """Return the domain over the connection there is; unlike :meth:`domain`, from any thread.

        :raises LauncherNotReady: if there is no connection, or no such domain.
        """
        domain = self.live_connection().domain(name)
        if domain is None:
            raise LauncherNotReady("its libvirtd does not know the guest")
        return domain

    def connect(self, path: PurePosixPath) -> socket.socket:
        """Connect to a socket in a folder of its own in the Pod's private folder: one of the guest's devices.

        :raises OSError: if there is none, or nothing that belongs to the launcher's user listens.
        """
        with contextlib.ExitStack() as opened:
            directory = os.open(self.files.host_path(paths.PRIVATE_DIR), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            opened.callback(os.close, directory)
            for part in path.parent.relative_to(paths.PRIVATE_DIR).parts:
                directory = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                opened.callback(os.close, directory)
            # libvirtd may have made the socket and ended since: there need not be such a process any more
            connection, (_, uid) = connect(directory, path.name)
        if uid != QEMU_UID:
            connection.close()
            raise PermissionError(errno.EPERM, f"the listener belongs to user {uid}, not to the launcher's", str(path))
        return connection

    def connect_to_libvirtd(self) -> socket.socket:
        """Connect to the Pod's libvirtd, for somebody else. The connection doesn't block.

        :raises OSError: if it doesn't answer.
        :raises StrangerError: if what listens isn't the launcher's.
        """
        with (
            closing(self.files.open_volume(paths.SOCKETS_DIR)) as directory,
            Peer(directory, paths.LIBVIRT_SOCKET.name) as peer,
        ):
            peer.check()
            return peer.socket.dup()

    def extra_connection(self) -> Connection:
        """Return another connection to the Pod's libvirtd, for a call that takes long. It is the caller's to close.

        :raises LauncherBusy: if it doesn't answer.
        """
        try:
            return Connection(self._relay, self.connect_to_libvirtd(), lambda: None, lambda detail: None)
        except (OSError, StrangerError) as error:
            raise LauncherBusy(f"libvirtd does not answer: {error}") from error

    def listen(self, paths_: Iterable[PurePosixPath]) -> list[socket.socket]:
        """Listen for the launcher on sockets in its folder of migrations, in place of what is there.

        :raises OSError: if that isn't possible.
        """
        found: list[socket.socket] = []
        with contextlib.ExitStack() as failed, closing(self.files.open_migration_folder()) as folder:
            for path in paths_:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path.name, dir_fd=folder)
                listener = failed.enter_context(socket.socket(socket.AF_UNIX))
                # By way of the descriptor: the path would be too long for a socket's address
                listener.bind(f"/proc/self/fd/{folder}/{path.name}")
                os.chown(path.name, QEMU_UID, QEMU_UID, dir_fd=folder, follow_symlinks=False)
                listener.listen()
                found.append(listener)
            failed.pop_all()
        return found

    def ask(
        self, path: PurePosixPath, request: bytes, *, seconds: float, limit: int, descriptors: Sequence[int] = ()
    ) -> bytes:
        """Ask the launcher something at a socket in the Pod's folder of sockets.

        :param descriptors: handed over with it.
        :raises OSError: if nothing answers in time, or with too much.
        :raises StrangerError: if what listens isn't the launcher's.
        """
        with (
            closing(self.files.open_volume(paths.SOCKETS_DIR)) as directory,
            Peer(directory, path.name) as peer,
        ):
            peer.check()
            return peer.ask(request, seconds=seconds, limit=limit, descriptors=descriptors)

    def statistics(self, name: str) -> dict[str, Any] | None:
        """Return libvirt's statistics of the domain; None where there is no connection, which isn't made for this."""
        connection = self._connection
        if connection is None or not connection.is_alive():
            return None
        domain = connection.domain(name)
        return None if domain is None else domain.statistics()

    @property
    def netns(self) -> int:
        """Descriptor of the Pod's network namespace; there once it was connected to."""
        if self._netns is None:
            raise LauncherNotReady("not connected to the Pod's libvirtd")
        return self._netns

    def close(self) -> None:
        """Release everything; the Pod isn't touched."""
        self._disconnect()
        self._watcher.forget_folder(self._on_change)
        if self._watched is not None:
            self._watcher.forget_process(self._watched)
            self._watched = None
        if self._netns is not None:
            os.close(self._netns)
            self._netns = None
        self.process.close()

    def _connect(self, directory: int) -> None:
        try:
            peer = Peer(directory, paths.LIBVIRT_SOCKET.name)
        except FileNotFoundError:
            container_disks.mount(directory, self._container_disks)
            raise LauncherNotReady("libvirtd has not created its socket yet") from None
        except OSError as error:
            raise LauncherBusy(f"libvirtd does not answer: {error.strerror}") from error
        with peer:
            try:
                self._enter(peer)
            except StrangerError as error:
                raise LauncherNotReady(f"{paths.LIBVIRT_SOCKET} {error}") from error
            self._connection = Connection(self._relay, peer.socket.dup(), self._on_change, self._on_stop)

    def _enter(self, peer: Peer) -> None:
        """Learn the Pod's namespaces and its first process from the process that listens.

        :raises StrangerError: if it isn't the Pod's.
        """
        try:
            with contextlib.ExitStack() as opened:
                # The launcher outlives its libvirtd; through it the Pod's root stays within reach.
                process, first = first_process(peer.process, peer.pid)
                opened.callback(os.close, process)
                netns = peer.open_namespace("net")
                opened.callback(os.close, netns)
                peer.check()
                if not peer.shares_folder(process):
                    raise StrangerError("belongs to a process outside of the Pod")
                if self._watched is None:
                    watched = self._watcher.process(first, self._launcher_ended)
                    if not is_alive(process):  # its number may be another one's already
                        self._watcher.forget_process(watched)
                        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
                    self._watched = watched
                opened.pop_all()
        except OSError as error:
            message = f"the owner of libvirtd's socket (process {peer.pid}) ended: {error.strerror}"
            raise LauncherBusy(message) from error
        self.process.hold(process)
        if self._netns is not None:
            os.close(self._netns)
        self._netns = netns

    def _launcher_ended(self) -> None:
        self._ended = True
        self._on_change()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
