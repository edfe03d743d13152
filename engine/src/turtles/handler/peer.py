# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on a socket in a Pod's folder: a connection to it, and what the kernel says about the other end.

The folder is the Pod's: it may put links in there, other sockets, and exchange them at any moment. So the socket's
inode is held first, the connection is made to that inode, and what is checked is the connection that is used.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from turtles.api.guests import QEMU_UID
from turtles.domain import paths
from turtles.handler import mounts

#: ``NS_GET_USERNS`` (ioctl_ns(2)): the user namespace that owns a namespace.
_NS_GET_USERNS = 0xB701
_PART = 64 * 1024


class StrangerError(Exception):
    """The listener is not one of the Pod's containers. The message completes "<socket> …"."""


class Peer:
    """A connection to the listener of a socket in a Pod's folder. It doesn't block.

    :raises FileNotFoundError: if there is no such socket.
    :raises OSError: if nothing listens, or too many are waiting for an answer.
    """

    def __init__(self, directory: int, name: str) -> None:
        self.socket, (self.pid, self.uid) = connect(directory, name)
        try:
            self.process = open_process(self.pid)
        except BaseException:
            self.socket.close()
            raise
        self._directory = directory

    def __enter__(self) -> "Peer":  # noqa: D105
        return self

    def __exit__(self, *_: object) -> None:  # noqa: D105
        self.socket.close()
        os.close(self.process)

    def check(self) -> None:
        """Make sure that it is a container of the Pod.

        Its process number may be another process's by now, so the process must also have the Pod's very folder where
        the Pod has it. In a user namespace of its own it could have made up its root and its network.

        :raises StrangerError: if it isn't.
        :raises ProcessLookupError: if the process has ended.
        """
        if self.uid != QEMU_UID:
            raise StrangerError(f"belongs to user {self.uid}, not to the launcher's ({QEMU_UID})")
        if not sees(self.process, self._directory):
            raise StrangerError("belongs to a process outside of the Pod")
        if self.namespace("user") != _own_user_namespace():
            raise StrangerError("belongs to a process in a user namespace of its own")

    def shares_folder(self, process: int) -> bool:
        """Say whether another process, whose folder in /proc this is, has the Pod's folder of sockets as well."""
        return sees(process, self._directory)

    def namespace(self, kind: str) -> tuple[int, int]:
        """Return what tells its namespace of a kind such as "net" from others."""
        status = os.stat(f"ns/{kind}", dir_fd=self.process)
        return status.st_dev, status.st_ino

    def open_namespace(self, kind: str) -> int:
        """Return a descriptor of that namespace.

        :raises StrangerError: if the namespace was made by a user, not by the Pod's runtime.
        """
        return open_namespace(self.process, kind)

    def send(self, data: bytes) -> None:
        """Send a few bytes; a peer that doesn't take them doesn't get them."""
        with contextlib.suppress(OSError):
            self.socket.send(data)

    def ask(self, data: bytes, *, seconds: float, limit: int, descriptors: Sequence[int] = ()) -> bytes:
        """Send a request and return the answer, which ends with the connection.

        :param limit: bytes of an answer that are accepted.
        :param descriptors: sent along with the request's beginning.
        :raises TimeoutError: if that takes longer.
        :raises OSError: if the answer is longer, or the peer is gone.
        """
        deadline = time.monotonic() + seconds

        def wait() -> None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(errno.ETIMEDOUT, "it did not answer in time")
            self.socket.settimeout(left)

        view = memoryview(data)
        if descriptors:
            wait()
            view = view[socket.send_fds(self.socket, [view], list(descriptors)) :]
        while view:
            wait()
            view = view[self.socket.send(view) :]
        self.socket.shutdown(socket.SHUT_WR)
        answer = bytearray()
        while True:
            wait()
            if not (part := self.socket.recv(_PART)):
                return bytes(answer)
            answer += part
            if len(answer) > limit:
                raise OSError(errno.EMSGSIZE, f"its answer has more than {limit} bytes")


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Close a descriptor afterwards."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def connect(directory: int, name: str) -> tuple[socket.socket, tuple[int, int]]:
    """Connect to a socket in a folder. The connection doesn't block.

    :return: it, and process and user that began to listen on the socket.
    :raises FileNotFoundError: if there is no such socket.
    :raises OSError: if nothing listens, or too many are waiting for an answer.
    """
    with contextlib.ExitStack() as opened:
        inode = opened.enter_context(closing(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)))
        if not stat.S_ISSOCK(os.fstat(inode).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), name)
        with contextlib.ExitStack() as made:
            connection = made.enter_context(socket.socket(socket.AF_UNIX))
            # Where the queue of a listener that never accepts is full, connecting fails instead of waiting.
            connection.setblocking(False)
            connection.connect(f"/proc/self/fd/{inode}")
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
            pid, uid, _ = struct.unpack("iII", credentials)
            made.pop_all()
    return connection, (pid, uid)


def open_process(pid: int) -> int:
    """Return a descriptor of /proc/<number>: of this process, and of no other one that gets its number.

    :raises ProcessLookupError: if there is none.
    """
    try:
        return os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"process {pid}") from error


def open_namespace(process: int, kind: str) -> int:
    """Return a descriptor of a process's namespace of a kind such as "mnt".

    :param process: its folder in /proc.
    :raises StrangerError: if the namespace was made by a user, not by the Pod's runtime.
    """
    namespace = os.open(f"ns/{kind}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    try:
        with closing(_owner_of(namespace)) as owner:
            status = os.fstat(owner)
        if (status.st_dev, status.st_ino) != _own_user_namespace():
            raise StrangerError(f"belongs to a process in a namespace ({kind}) created by a user")
    except BaseException:
        os.close(namespace)
        raise
    return namespace


def sees(process: int, directory: int) -> bool:
    """Say whether a process has a Pod's folder of sockets where the Pod has it: it is one of the Pod's.

    :param process: its folder in /proc.
    :param directory: the Pod's folder, as the node has it.
    :raises ProcessLookupError: if the process has ended.
    """
    try:
        root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)
    except OSError as error:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
    with closing(root):
        try:
            folder = mounts.open_in_root(root, paths.SOCKETS_DIR, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return False
        with closing(folder):
            return os.path.samestat(os.fstat(folder), os.fstat(directory))


def first_process(process: int, pid: int) -> tuple[int, int]:
    """Return the process that is number 1 of a process's container, the process itself or an ancestor.

    When that one ends, it takes all others along.

    :param process: the process's folder in /proc; it stays open.
    :param pid: its number.
    :return: descriptor of /proc/<number> of the one found, which is the caller's to close, and its number.
    :raises ProcessLookupError: if one of them has ended.
    """
    process = os.dup(process)
    try:
        while True:
            parent, number_inside = _ancestry(process)
            if parent == 0 or number_inside == 1:
                return process, pid
            above = open_process(parent)
            # Still its parent: then the number was that one's when it was opened.
            if _ancestry(process)[0] != parent:
                os.close(above)
                continue
            os.close(process)
            process, pid = above, parent
    except BaseException:
        os.close(process)
        raise


def is_alive(process: int) -> bool:
    """Say whether a process whose folder in /proc is open has not been reaped."""
    try:
        os.stat("ns", dir_fd=process)
    except OSError:
        return False
    return True


def _ancestry(process: int) -> tuple[int, int]:
    """Return the number of a process's parent, and its own inside of its own process namespace."""
    try:
        with open(os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process), errors="replace") as file:
            status = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
        return int(status["PPid"]), int(status["NSpid"].split()[-1])
    except (OSError, KeyError, ValueError) as error:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error


def _owner_of(namespace: int) -> int:
    """Return a descriptor of the user namespace that owns a namespace."""
    return fcntl.ioctl(namespace, _NS_GET_USERNS)


def _own_user_namespace() -> tuple[int, int]:
    status = Path("/proc/self/ns/user").stat()
    return status.st_dev, status.st_ino
