# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's side of one launcher: the folders of its Pod, its libvirtd, its network namespace, its process.

libvirtd runs in the Pod without root, as a session daemon; its socket is in one of the Pod's emptyDir volumes. The
socket's peer credentials lead to the Pod's namespaces. They are a process number, which belongs to another process once
the first has ended, so the process must also have the Pod's own folder where the Pod has it.
"""

import contextlib
import errno
import itertools
import json
import logging
import os
import socket
import stat
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from turtles.api.guests import QEMU_UID
from turtles.domain import end, paths
from turtles.domain.definition import host_devices
from turtles.handler import disk_files, locked_memory, mounts, processors, realtime
from turtles.handler import relay as relays
from turtles.handler.domain import Connection, Domain
from turtles.handler.errors import GuestEnded, LauncherBusy, LauncherGone, LauncherNotReady
from turtles.handler.peer import Peer, StrangerError, closing, connect, first_process, is_alive, open_namespace
from turtles.handler.watcher import Watcher

log = logging.getLogger(__name__)

#: How much of a cgroup's statistics is read; they are a few lines.
_STATISTICS_BYTES = 65536
#: More than /proc/<number>/status ever is.
_STATUS_SIZE = 65536
#: The devices a launcher may have been given, and their numbers (the kernel's devices.txt).
_DEVICES = {
    "kvm": os.makedev(10, 232),
    "net/tun": os.makedev(10, 200),
    "vhost-net": os.makedev(10, 238),
    "vhost-vsock": os.makedev(10, 241),
}
#: How many files of a Secret are read, and how much of each; Kubernetes allows a MiB in all.
_SECRET_FILES, _SECRET_BYTES = 256, 1 << 20
#: How many files of devices in a Pod are looked at.
_DEVICE_FILES = 64
#: How much of the launcher's environment is read.
_ENVIRONMENT_BYTES = 65536


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
        self._pods_dir = pods_dir
        self._watcher = watcher
        self._on_change = on_change
        self._on_stop = on_stop
        self._connection: Connection | None = None
        self._netns: int | None = None
        #: /proc/<number> of the launcher: of no other process, even if that gets the number.
        self._first: int | None = None
        self._process: int | None = None
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
        folder = Path(self._host_path(paths.SOCKETS_DIR))
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

    def live_domain(self, name: str) -> Domain:
        """Return the domain over the connection there is; unlike :meth:`domain`, from any thread.

        :raises LauncherNotReady: if there is no connection, or no such domain.
        """
        connection = self._connection
        if connection is None or not connection.is_alive():
            raise LauncherBusy("its libvirtd does not answer at the moment")
        domain = connection.domain(name)
        if domain is None:
            raise LauncherNotReady("its libvirtd does not know the guest")
        return domain

    def connect(self, path: PurePosixPath) -> socket.socket:
        """Connect to a socket in a folder of its own in the Pod's private folder: one of the guest's devices.

        :raises OSError: if there is none, or nothing that belongs to the launcher's user listens.
        """
        with contextlib.ExitStack() as opened:
            directory = os.open(self._host_path(paths.PRIVATE_DIR), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
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
            closing(_open_own_folder(self._host_path(paths.SOCKETS_DIR))) as directory,
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
        with contextlib.ExitStack() as failed, closing(self._migration_folder()) as folder:
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

    def make_migration_folder(self) -> None:
        """Create the folder in which QEMU listens for a guest that comes from another node, unless it is there."""
        os.close(self._migration_folder())

    def _migration_folder(self) -> int:
        with closing(_open_own_folder(self._host_path(paths.PRIVATE_DIR))) as private:
            return _own_folder(private, paths.MIGRATION_DIR.name, 0o750)

    def ask(
        self, path: PurePosixPath, request: bytes, *, seconds: float, limit: int, descriptors: Sequence[int] = ()
    ) -> bytes:
        """Ask the launcher something at a socket in the Pod's folder of sockets.

        :param descriptors: handed over with it.
        :raises OSError: if nothing answers in time, or with too much.
        :raises StrangerError: if what listens isn't the launcher's.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        with (
            closing(os.open(self._host_path(paths.SOCKETS_DIR), flags)) as directory,
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

    def assigned_devices(self) -> dict[str, str]:
        """Return what device plugins said in the launcher's environment about the devices that it was given."""
        if self._first is None:
            return {}
        try:
            with open(os.open("environ", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._first), "rb") as file:
                text = file.read(_ENVIRONMENT_BYTES).decode(errors="replace")
        except OSError:
            return {}
        entries = dict(entry.partition("=")[::2] for entry in text.split("\0"))
        return {name: value for name, value in entries.items() if name.startswith(host_devices.ALL_PREFIXES)}

    def network_info(self) -> dict[str, str]:
        """Return the PCI addresses of the devices of SR-IOV networks that the Pod was told, by network."""
        try:
            with open(self._open_file(paths.NETWORK_INFO, os.O_RDONLY), "rb") as file:
                entries = json.loads(file.read(_ENVIRONMENT_BYTES))["interfaces"]
            return {each["network"]: each["deviceInfo"]["pci"]["pci-address"] for each in entries}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _assigned_files(self) -> list[PurePosixPath]:
        """Return the files of devices of the node that the Pod was given: all of VFIO's, and those of USB."""
        devices = self.assigned_devices()
        if not devices:
            return []
        found = []
        with contextlib.suppress(OSError):
            folder = PurePosixPath("/dev/vfio")
            with closing(self._open(folder, os.O_RDONLY | os.O_DIRECTORY)) as directory, os.scandir(directory) as files:
                found += [folder / entry.name for entry in itertools.islice(files, _DEVICE_FILES)]
        for name, text in devices.items():
            if name.startswith(host_devices.USB_PREFIX):
                found += [PurePosixPath("/dev/bus/usb", *address.split(":")) for address in text.split(",") if address]
        return found

    def read_files(self, folder: PurePosixPath) -> dict[str, bytes]:
        """Return the files of a mounted Secret by name; empty if there is none."""
        try:
            # Kubernetes keeps its own files in a mounted Secret under names that begin with two dots.
            with (
                closing(self._open(folder, os.O_RDONLY | os.O_DIRECTORY)) as directory,
                os.scandir(directory) as entries,
            ):
                names = [entry.name for entry in entries if not entry.name.startswith("..")][:_SECRET_FILES]
        except OSError:
            return {}
        found = {}
        for name in names:
            with contextlib.suppress(OSError), open(self._open_file(folder / name, os.O_RDONLY), "rb") as file:
                found[name] = file.read(_SECRET_BYTES)
        return found

    def has_kvm(self) -> bool:
        """Say whether the Pod was given /dev/kvm."""
        try:
            os.close(self._open(PurePosixPath("/dev/kvm"), os.O_PATH))
        except OSError:
            return False
        return True

    def processors(self) -> tuple[int, ...]:
        """Return the node's processors that the Pod may run on."""
        assert self._first is not None
        with closing(os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._first)) as file:
            status = os.read(file, _STATUS_SIZE).decode(errors="replace")
        lines = [line.partition(":")[2] for line in status.splitlines() if line.startswith("Cpus_allowed_list:")]
        return processors.parse_list(lines[0]) if lines else ()

    def schedule_in_real_time(self, vcpus: Collection[int]) -> None:
        """Have virtual processors scheduled in real time.

        :raises OSError: if the kernel refuses it.
        """
        assert self._first is not None
        realtime.schedule(os.readlink("ns/pid", dir_fd=self._first), vcpus)

    def allow_locked_memory(self, amount: int) -> None:
        """Let the Pod's processes lock that many bytes of memory.

        :raises OSError: if the kernel refuses it.
        """
        assert self._first is not None
        locked_memory.allow(os.readlink("ns/pid", dir_fd=self._first), amount)

    def own_devices(self, disks: Iterable[str] = ()) -> None:
        """Change the owner of the devices in the Pod to QEMU's user: a kubelet keeps the node's owner and mode.

        What is changed is a file in the Pod's own /dev.

        :param disks: volumes that are block devices.
        """
        assigned = self._assigned_files()
        for path in (
            *(PurePosixPath("/dev", name) for name in _DEVICES),
            *map(paths.claim_device, disks),
            *assigned,
        ):
            number = _DEVICES.get(str(path.relative_to("/dev")))
            try:
                with (
                    closing(self._open(path.parent, os.O_PATH | os.O_DIRECTORY)) as folder,
                    closing(os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)) as device,
                ):
                    status = os.fstat(device)
                    # A runtime may show the node's very file instead of one of its own; that one isn't touched.
                    own = status.st_dev == os.fstat(folder).st_dev
                    if path in assigned:
                        fits = stat.S_ISCHR(status.st_mode)
                    elif number is None:
                        fits = stat.S_ISBLK(status.st_mode)
                    else:
                        fits = stat.S_ISCHR(status.st_mode) and status.st_rdev == number
                    if own and fits and status.st_uid != QEMU_UID:
                        os.chown(f"/proc/self/fd/{device}", QEMU_UID, QEMU_UID)
            except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
                continue

    def reached_memory_limit(self) -> bool:
        """Say whether the kernel has ended a process of the launcher's container because of its memory limit."""
        # cgroup v2, then v1 as container runtimes show it.
        for name in ("memory.events", "memory/memory.oom_control"):
            try:
                path = PurePosixPath("/sys/fs/cgroup", name)
                with open(self._open_file(path, os.O_RDONLY), "rb") as file:
                    lines = file.read(_STATISTICS_BYTES).splitlines()
            except OSError:
                continue
            # In its own mount namespace a Pod may put anything in that place
            counts = [line.split()[-1] for line in lines if line.startswith(b"oom_kill ")]
            return any(count.isdigit() and count.strip(b"0") for count in counts)
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
                deeper = _own_folder(directory, part, 0o700)
                os.close(directory)
                directory = deeper
            with os.scandir(directory) as entries:
                if next(entries, None) is not None:
                    return
            for name, content in files:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                with open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
                    os.fchown(file.fileno(), QEMU_UID, QEMU_UID)
                    file.write(content)
        finally:
            os.close(directory)

    def has_file(self, path: PurePosixPath) -> bool:
        """Say whether there is a regular file at *path* in the Pod."""
        try:
            os.close(self._open_file(path, os.O_RDONLY))
        except OSError:
            return False
        return True

    def bypasses_page_cache(self, path: PurePosixPath) -> bool:
        """Say whether the file at *path* in the Pod can be opened for direct I/O."""
        try:
            os.close(self._open_file(path, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            return False
        return True

    def block_sizes(self, path: PurePosixPath) -> tuple[int, int] | None:
        """Return the logical and the physical size of the blocks of a file or device in the Pod; None if unknown."""
        try:
            with closing(self._open_disk(path)) as disk:
                return disk_files.block_sizes(disk)
        except OSError:
            return None

    def open_container_disk(self, volume: Mapping[str, Any]) -> int:
        """Open the disk file of a containerDisk, to read from.

        :param volume: an entry of ``spec.volumes`` with a containerDisk.
        :raises OSError: if it isn't there.
        """
        image, path = paths.container_disk_image_dir(volume["name"]), volume["containerDisk"].get("path")
        if not path:
            with (
                closing(self._open(image / "disk", os.O_RDONLY | os.O_DIRECTORY)) as folder,
                os.scandir(folder) as entries,
            ):
                names = [entry.name for entry in itertools.islice(entries, 2)]
            if len(names) != 1:
                raise FileNotFoundError(errno.ENOENT, "not exactly one file", str(image / "disk"))
            path = f"disk/{names[0]}"
        return self._open_file(image / path.lstrip("/"), os.O_RDONLY)

    def room_for_disk(self, path: PurePosixPath) -> int:
        """Return how many bytes a disk in the Pod can have: a device's size, or what its file system has for it.

        :raises OSError: if it isn't there, or no disk.
        """
        with closing(self._open_disk(path)) as disk:
            return disk_files.room(disk)

    def has_claim(self, volume: str) -> bool:
        """Say whether the launcher sees the claim of a volume that came later."""
        try:
            with closing(self._open(paths.claim_dir(volume), os.O_PATH | os.O_DIRECTORY)) as folder:
                return mounts.is_mount_point(folder)
        except OSError:
            return False

    def bring_claim(self, volume: str, pod_uid: str) -> None:
        """Show the launcher the claim of a volume, out of the Pod that holds it.

        :raises FileNotFoundError: if that Pod isn't ready.
        :raises StrangerError: if something else is in its place.
        :raises OSError, turtles.handler.mounts.MountError: if it isn't possible.
        """
        assert self._first is not None
        path = paths.claim_dir(volume)
        with contextlib.ExitStack() as opened:

            def keep(descriptor: int) -> int:
                return opened.enter_context(closing(descriptor))

            sockets = keep(_open_own_folder(str(paths.attachment_dir(self._pods_dir, pod_uid))))
            holder = opened.enter_context(Peer(sockets, paths.ATTACHMENT_SOCKET.name))
            holder.check()
            root = keep(os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=holder.process))
            claim = keep(mounts.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY))
            if not mounts.is_mount_point(claim):
                raise StrangerError("belongs to a container without the claim")
            # Made by way of the node, mounted upon as the launcher sees it.
            private = keep(_open_own_folder(self._host_path(paths.PRIVATE_DIR)))
            disks = keep(_own_folder(private, path.parent.name, 0o750))
            keep(_own_folder(disks, path.name, 0o750))
            target = keep(self._open(path, os.O_PATH | os.O_DIRECTORY))
            if mounts.is_mount_point(target):
                return
            source = keep(holder.open_namespace("mnt"))
            mounts.share(source, claim, keep(open_namespace(self._first, "mnt")), target)

    def take_claim(self, volume: str) -> None:
        """Take the claim of a volume away from the launcher again. What QEMU has open stays open.

        :raises OSError, turtles.handler.mounts.MountError: if that isn't possible.
        """
        assert self._first is not None
        path = paths.claim_dir(volume)
        with (
            closing(self._open(path.parent, os.O_PATH | os.O_DIRECTORY)) as parent,
            closing(open_namespace(self._first, "mnt")) as namespace,
        ):
            mounts.remove(namespace, parent, path.name)

    def watch_attachment(self, pod_uid: str, on_change: Callable[[], None]) -> None:
        """Call back, once, when something appears in the folder of a Pod that holds a claim.

        :raises OSError: if there is no such folder.
        """
        self._watcher.folder(Path(paths.attachment_dir(self._pods_dir, pod_uid)), on_change, once=True)

    def own_host_disk(self, volume: Mapping[str, Any]) -> None:
        """Make the disk file of a hostDisk QEMU's, and create it if that is asked for and it isn't there.

        :param volume: an entry of ``spec.volumes`` with a hostDisk.
        :raises GuestEnded: if there is no such file, or it can't be one.
        """
        path = paths.host_disk(volume)
        try:
            with closing(self._open(path.parent, os.O_RDONLY | os.O_DIRECTORY)) as folder:
                disk_files.own_host_disk(folder, path.name, volume["hostDisk"])
        except (OSError, ValueError) as error:
            where = volume["hostDisk"]["path"]
            words = error.strerror if isinstance(error, OSError) else error
            raise GuestEnded(end.disk_not_usable(f"volume {volume['name']!r}: hostDisk {where}: {words}")) from error

    def make_private_dir(self, uid: str) -> None:
        """Create the folder of the consoles' sockets, owned by QEMU, unless it is there."""
        directory = os.open(self._host_path(paths.PRIVATE_DIR), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.close(_own_folder(directory, uid, 0o750))
        finally:
            os.close(directory)

    def close(self) -> None:
        """Release everything; the Pod isn't touched."""
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
        with closing(os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._first)) as root:
            return mounts.open_in_root(root, path, flags)

    def _open_file(self, path: PurePosixPath, flags: int) -> int:
        """Open a regular file as the launcher sees it. Opening something else would have effects, or wait.

        :raises OSError: if it isn't there or something else is.
        """
        with closing(self._open(path, os.O_PATH)) as file:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(path))
            # Without waiting: its owner may hold a lease on it.
            return os.open(f"/proc/self/fd/{file}", flags | os.O_NONBLOCK | os.O_CLOEXEC)

    def _open_disk(self, path: PurePosixPath) -> int:
        """Open a file or a block device, to read from. Opening something else would have effects, or wait.

        :raises OSError: if it isn't there or something else is.
        """
        with closing(self._open(path, os.O_PATH)) as file:
            kind = os.fstat(file).st_mode
            if not stat.S_ISREG(kind) and not stat.S_ISBLK(kind):
                raise OSError(errno.EINVAL, "not a disk", str(path))
            return os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def _host_path(self, path: PurePosixPath) -> str:
        return str(paths.host_path(self._pods_dir, self.pod_uid, path))

    def _connect(self, directory: int) -> None:
        try:
            peer = Peer(directory, paths.LIBVIRT_SOCKET.name)
        except FileNotFoundError:
            self._mount_disks(directory)
            raise LauncherNotReady("libvirtd has not created its socket yet") from None
        except OSError as error:
            raise LauncherBusy(f"libvirtd does not answer: {error.strerror}") from error
        with peer:
            try:
                self._enter(peer)
            except StrangerError as error:
                raise LauncherNotReady(f"{paths.LIBVIRT_SOCKET} {error}") from error
            self._connection = Connection(self._relay, peer.socket.dup(), self._on_change, self._on_stop)

    def _mount_disks(self, directory: int) -> None:
        """Mount the container disks of a launcher that waits for them.

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
                    for volume in self._container_disks
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
                if self._process is None:
                    watched = self._watcher.process(first, self._launcher_ended)
                    if not is_alive(process):  # its number may be another one's already
                        self._watcher.forget_process(watched)
                        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
                    self._process = watched
                opened.pop_all()
        except OSError as error:
            message = f"the owner of libvirtd's socket (process {peer.pid}) ended: {error.strerror}"
            raise LauncherBusy(message) from error
        for old in (self._first, self._netns):
            if old is not None:
                os.close(old)
        self._first, self._netns = process, netns

    def _launcher_ended(self) -> None:
        self._ended = True
        self._on_change()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _open_own_folder(path: str) -> int:
    """Open a folder that is a volume of a Pod: what is above it is the kubelet's."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _own_folder(directory: int, name: str, mode: int) -> int:
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
