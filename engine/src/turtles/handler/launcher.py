# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's side of one launcher: the folders of its Pod, its libvirtd, its network namespace, its process.

libvirtd runs in the Pod without root, as a session daemon; its socket is in one of the Pod's emptyDir volumes. The
kernel's word about who listens there leads to the Pod's namespaces. That word is a number, which is another process's
once the first has ended, so the process must also have the Pod's very folder where the Pod has it.
"""

import contextlib
import errno
import logging
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import libvirt

from turtles.domain import paths
from turtles.handler import mounts
from turtles.handler.watcher import Watcher

log = logging.getLogger(__name__)

#: Seconds between two signs of life on a connection, and how many may be missed.
_KEEPALIVE = (5, 4)
#: How much of a cgroup's statistics is read; they are a few lines.
_STATISTICS_BYTES = 65536
#: How a running domain may be undefined: with everything libvirt keeps about it.
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class LauncherNotReady(Exception):
    """libvirtd can't be reached (yet). The message says why."""


class LauncherBusy(LauncherNotReady):
    """libvirtd's socket is there but nobody answers on it at this moment."""


class LauncherGone(LauncherNotReady):
    """The Pod's folder or its first process doesn't exist any more."""


def start_event_loop() -> None:
    """Run libvirt's event loop on a thread of its own. To be called once, before the first connection."""
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt-events", daemon=True).start()
    # Errors come as exceptions; the library would print them as well.
    libvirt.registerErrorHandler(lambda *_: None, None)


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
    ) -> None:
        """Make one.

        :param container_disks: volumes whose images the launcher may want to have mounted.
        """
        self.pod_uid = pod_uid
        self._container_disks = container_disks
        self._pods_dir = pods_dir
        self._watcher = watcher
        self._on_change = on_change
        self._on_stop = on_stop
        self._connection: libvirt.virConnect | None = None
        self._netns: int | None = None
        #: /proc/<number> of the launcher: of no other process, even if that gets the number.
        self._first: int | None = None
        self._process: int | None = None
        self._ended = False

    def connection(self) -> libvirt.virConnect:
        """Return a living connection to the Pod's libvirtd, made if need be.

        :raises LauncherGone: if there is nobody any more who could answer.
        :raises LauncherNotReady: if libvirtd isn't there yet, or just now.
        """
        if self._connection is not None:
            if self._connection.isAlive():
                return self._connection
            self._disconnect()
        if self._ended:
            raise LauncherGone("virt-launcher ended")
        folder = Path(self._host_path(paths.SOCKETS_DIR))
        try:
            self._watcher.folder(folder, self._on_change)
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
        """Whether there is a connection that lives."""
        return self._connection is not None and bool(self._connection.isAlive())

    def domain(self, name: str) -> "libvirt.virDomain | None":
        """Return the domain of that name, None if it isn't defined."""
        try:
            return self.connection().lookupByName(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    @property
    def netns(self) -> int:
        """Descriptor of the Pod's network namespace; there once it was connected to."""
        if self._netns is None:
            raise LauncherNotReady("not connected to the Pod's libvirtd")
        return self._netns

    def has_kvm(self) -> bool:
        """Whether the Pod was given /dev/kvm."""
        try:
            os.close(self._open(PurePosixPath("/dev/kvm"), os.O_PATH))
        except OSError:
            return False
        return True

    def own_devices(self, disks: Iterable[str] = ()) -> None:
        """Give the devices in the Pod to QEMU's user: a kubelet brings them with the owner and mode of the node's.

        What is changed is a file in the Pod's own /dev.

        :param disks: volumes that are block devices.
        """
        for path, is_kind in (
            *((PurePosixPath("/dev", name), stat.S_ISCHR) for name in ("kvm", "net/tun", "vhost-net")),
            *((paths.claim_device(name), stat.S_ISBLK) for name in disks),
        ):
            try:
                with (
                    _closing(self._open(path.parent, os.O_PATH | os.O_DIRECTORY)) as folder,
                    _closing(self._open(path, os.O_PATH | os.O_NOFOLLOW)) as device,
                ):
                    found = os.fstat(device)
                    # A runtime may show the node's very file instead of one of its own; that one isn't touched.
                    own = found.st_dev == os.fstat(folder).st_dev
                    if own and is_kind(found.st_mode) and found.st_uid != paths.QEMU_UID:
                        os.chown(f"/proc/self/fd/{device}", paths.QEMU_UID, paths.QEMU_UID)
            except (FileNotFoundError, ProcessLookupError):
                continue

    def reached_memory_limit(self) -> bool:
        """Whether the kernel has ended a process of the launcher's container because of its memory limit."""
        # cgroup v2, then v1 as container runtimes show it.
        for name in ("memory.events", "memory/memory.oom_control"):
            try:
                path = PurePosixPath("/sys/fs/cgroup", name)
                with open(self._open(path, os.O_RDONLY | os.O_NONBLOCK), errors="replace") as file:
                    lines = file.read(_STATISTICS_BYTES).splitlines()
            except OSError:
                continue
            return any(line.startswith("oom_kill ") and int(line.split()[1]) > 0 for line in lines)
        return False

    def bring_capability_cache(self, cache: Path) -> None:
        """Give libvirtd what is known about this node's QEMU, if it knows nothing yet; that saves it a second.

        :param cache: made by a probe of this node. libvirt takes no notice of it if it is about another QEMU.
        """
        source = cache / ("kvm" if self.has_kvm() else "emulation") / paths.CAPABILITY_CACHE
        if not source.is_dir():
            return
        files = [(path.name, path.read_bytes()) for path in source.iterdir()]
        path = paths.PRIVATE_DIR / "libvirt/cache" / paths.CAPABILITY_CACHE
        directory = os.open(self._host_path(paths.PRIVATE_DIR), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for part in path.relative_to(paths.PRIVATE_DIR).parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=directory)
                    os.chown(part, paths.QEMU_UID, paths.QEMU_UID, dir_fd=directory, follow_symlinks=False)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                deeper = os.open(part, flags, dir_fd=directory)
                os.close(directory)
                directory = deeper
            if os.listdir(directory):  # noqa: PTH208 - by descriptor
                return
            for name, content in files:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                with open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
                    os.fchown(file.fileno(), paths.QEMU_UID, paths.QEMU_UID)
                    file.write(content)
        finally:
            os.close(directory)

    def bypasses_page_cache(self, path: PurePosixPath) -> bool:
        """Whether the file at *path* in the Pod can be opened for direct I/O."""
        try:
            # Without waiting: in place of the file there may be a pipe that nobody writes to
            os.close(self._open(path, os.O_RDONLY | os.O_DIRECT | os.O_NOFOLLOW | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    def make_private_dir(self, uid: str) -> None:
        """Make the folder of the consoles' sockets, owned by QEMU, unless it is there."""
        directory = os.open(self._host_path(paths.PRIVATE_DIR), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(uid, 0o750, dir_fd=directory)
            os.chown(uid, paths.QEMU_UID, paths.QEMU_UID, dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Let go of everything; the Pod isn't touched."""
        self._disconnect()
        self._watcher.forget_folder(self._on_change)
        if self._process is not None:
            self._watcher.forget_process(self._process)
            self._process = None
        if self._netns is not None:
            os.close(self._netns)
            self._netns = None
        if self._first is not None:
            os.close(self._first)
            self._first = None

    def _open(self, path: PurePosixPath, flags: int) -> int:
        """Open a file as the launcher sees it. What is in a Pod is the Pod's doing: no link leads out of it.

        :raises OSError: if it isn't there, or the launcher isn't, any more or yet.
        """
        if self._first is None:
            raise FileNotFoundError(errno.ENOENT, "not connected to the Pod's libvirtd", str(path))
        with _closing(os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._first)) as root:
            return mounts.open_in_root(root, path, flags)

    def _host_path(self, path: PurePosixPath) -> str:
        return str(paths.host_path(self._pods_dir, self.pod_uid, path))

    def _connect(self, directory: int) -> None:
        try:
            with _Peer(directory, paths.LIBVIRT_SOCKET.name) as peer:
                if peer.uid == 0:
                    raise LauncherNotReady(f"{paths.LIBVIRT_SOCKET} belongs to root, not to the launcher")
                self._enter(peer, directory)
        except FileNotFoundError:
            self._mount_disks(directory)
            raise LauncherNotReady("libvirtd has not made its socket yet") from None
        except OSError as error:
            raise LauncherBusy(f"libvirtd does not answer: {error.strerror}") from error
        address = _address(directory, paths.LIBVIRT_SOCKET.name)
        try:
            connection = libvirt.open(f"qemu+unix:///session?socket={address}")
        except libvirt.libvirtError as error:
            raise LauncherBusy(f"libvirtd refused the connection: {error}") from error
        connection.setKeepAlive(*_KEEPALIVE)
        connection.registerCloseCallback(lambda *_: self._on_change(), None)
        any_domain: Any = None
        events = {
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: self._lifecycle,
            libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE: lambda *_: self._on_change(),
            libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON: lambda *_: self._on_change(),
        }
        for event, callback in events.items():
            connection.domainEventRegisterAny(any_domain, event, callback, None)
        self._connection = connection

    def _mount_disks(self, directory: int) -> None:
        """Mount the container disks of a launcher that waits for them.

        :raises LauncherNotReady: if a container of an image isn't there yet.
        """
        with contextlib.ExitStack() as stack:
            try:
                launcher = stack.enter_context(_Peer(directory, paths.CONTAINER_DISKS_SOCKET.name))
                is_own = _sees(launcher.process, directory)
            except ConnectionRefusedError as error:
                raise LauncherBusy(f"{paths.CONTAINER_DISKS_SOCKET} is about to listen") from error
            except OSError:
                return  # nobody waits: the disks are image volumes, or mounted
            if not is_own:
                raise LauncherNotReady(f"{paths.CONTAINER_DISKS_SOCKET} belongs to a process outside of the Pod")
            try:
                sources = {
                    volume: stack.enter_context(_Peer(directory, paths.container_disk_socket(volume).name))
                    for volume in self._container_disks
                }
            except OSError as error:
                kind = LauncherBusy if isinstance(error, ConnectionRefusedError) else LauncherNotReady
                raise kind(f"a container of a containerDisk's image does not run yet: {error}") from error
            answer = paths.CONTAINER_DISKS_MOUNTED
            try:
                for volume, source in sources.items():
                    if (
                        source.uid != paths.QEMU_UID
                        or source.namespace("net") != launcher.namespace("net")
                        or not _sees(source.process, directory)
                    ):
                        raise mounts.MountError("somebody else listens in the place of its image's container")
                    mounts.show(
                        stack.enter_context(_closing(source.open_namespace("mnt"))),
                        stack.enter_context(_closing(launcher.open_namespace("mnt"))),
                        paths.container_disk_image_dir(volume),
                    )
            except (mounts.MountError, OSError) as error:
                answer = f"volume {volume!r}: the files of its image can't be mounted: {error}\n".encode()
            with contextlib.suppress(OSError):  # the launcher may have ended
                launcher.socket.sendall(answer)

    def _enter(self, peer: "_Peer", directory: int) -> None:
        """Learn the Pod's namespaces and its first process from the process that listens."""
        try:
            first = _first_process(peer.pid)
            with contextlib.ExitStack() as opened:
                # The launcher outlives its libvirtd; through it the Pod's root stays within reach.
                process = os.open(f"/proc/{first}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.callback(os.close, process)
                netns = peer.open_namespace("net")
                opened.callback(os.close, netns)
                if not _sees(peer.process, directory) or not _sees(process, directory):
                    raise LauncherNotReady(f"{paths.LIBVIRT_SOCKET} belongs to a process outside of the Pod")
                if self._process is None:
                    self._process = self._watcher.process(first, self._launcher_ended)
                opened.pop_all()
        except OSError as error:
            message = f"the owner of libvirtd's socket (process {peer.pid}) ended: {error.strerror}"
            raise LauncherBusy(message) from error
        for old in (self._first, self._netns):
            if old is not None:
                os.close(old)
        self._first, self._netns = process, netns

    def _lifecycle(self, _connection: Any, _domain: Any, event: int, detail: int, _opaque: Any) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            self._on_stop(detail)
        self._on_change()

    def _launcher_ended(self) -> None:
        self._ended = True
        self._on_change()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()


class _Peer:
    """A connection to whoever listens on a socket in a Pod's folder, and the kernel's word about who that is.

    :raises FileNotFoundError: if there is no such socket.
    :raises OSError: if nobody listens.
    """

    def __init__(self, directory: int, name: str) -> None:
        # The folder is the Pod's own; a link in it must not lead to somebody else's socket.
        if not stat.S_ISSOCK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), name)
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(_address(directory, name))
            credentials = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            self.pid, self.uid, _ = struct.unpack("iII", credentials)
        except OSError:
            self.socket.close()
            raise
        try:
            self.process = os.open(f"/proc/{self.pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            self.socket.close()
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"process {self.pid}") from error

    def __enter__(self) -> "_Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        os.close(self.process)

    def namespace(self, kind: str) -> tuple[int, int]:
        """Return what tells its namespace of a kind such as "net" from others."""
        status = os.stat(f"ns/{kind}", dir_fd=self.process)
        return status.st_dev, status.st_ino

    def open_namespace(self, kind: str) -> int:
        """Return a descriptor of that namespace."""
        return os.open(f"ns/{kind}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.process)


def _address(directory: int, name: str) -> str:
    """Return the address of a socket in an open folder; the kubelet's path alone is longer than one may be."""
    return f"/proc/self/fd/{directory}/{name}"


def _sees(process: int, directory: int) -> bool:
    """Whether a process has a Pod's folder of sockets where the Pod has it: it is one of the Pod's.

    :param process: its folder in /proc.
    :param directory: the Pod's folder, as the node has it.
    :raises ProcessLookupError: if the process has ended.
    """
    try:
        root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)
    except OSError as error:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
    with _closing(root):
        try:
            folder = mounts.open_in_root(root, paths.SOCKETS_DIR, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return False
        with _closing(folder):
            return os.path.samestat(os.fstat(folder), os.fstat(directory))


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _first_process(pid: int) -> int:
    """Return the process that is number 1 of its container: *pid* itself or an ancestor. It takes all others along."""
    while True:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        parent = int(status["PPid"])
        if status["NSpid"].split()[-1] == "1" or parent == 0:
            return pid
        pid = parent


def start(connection: "libvirt.virConnect", xml: str, *, paused: bool) -> "libvirt.virDomain":
    """Define and start a domain. Defined, so that how it ended can be asked for afterwards."""
    domain = connection.defineXML(xml)
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)
    return domain


def destroy(domain: "libvirt.virDomain") -> None:
    """End a domain at once; one that has just ended by itself is as good."""
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise


def remove(domain: "libvirt.virDomain") -> None:
    """End a domain if it runs, and undefine it."""
    if domain.isActive():
        destroy(domain)
    domain.undefineFlags(_UNDEFINE)
