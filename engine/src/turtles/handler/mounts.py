# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the files of one container to another: what an image volume does, for servers that have none; and what a
volume does that was there when a Pod was made, for those that come later.

The root file system of the container of a containerDisk's image, or a claim's in the Pod that holds it, is cloned,
without whatever is mounted inside it, and attached in the launcher's mount namespace and nowhere else: neither the node
nor the kubelet see the mount, and it goes with that namespace. It holds on to the files, whatever becomes of the other
container.

Needs open_tree(2), move_mount(2) and mount_setattr(2): Linux 5.12.
"""

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable
from pathlib import PurePosixPath

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000
# One number for all architectures, as new system calls have it since 2019.
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE = 0x1
_MOVE_FROM_DESCRIPTOR, _MOVE_TO_DESCRIPTOR = 0x4, 0x40
_HARMLESS = 0x2 | 0x4 | 0x8  # MOUNT_ATTR_NOSUID, NODEV, NOEXEC
_READ_ONLY_AND_HARMLESS = 0x1 | _HARMLESS  # MOUNT_ATTR_RDONLY
_MNT_DETACH, _UMOUNT_NOFOLLOW = 0x2, 0x8
#: More than /proc/self/fdinfo/<number> of a folder ever is.
_INFO_BYTES = 4096
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x2, 0x10


class MountError(Exception):
    """The files could not be shown. The message says why."""


def show(source: int, launcher: int, target: PurePosixPath) -> None:
    """Mount the root file system of one mount namespace in another one, read-only.

    Nothing happens if something is mounted there already.

    :param source: descriptor of the mount namespace of the container whose files are shown.
    :param launcher: descriptor of the mount namespace that is to see them.
    :param target: an existing folder there.
    :raises MountError: if that isn't possible.
    """
    _in_thread(lambda: _show(source, launcher, target))


def share(source: int, folder: int, launcher: int, target: int) -> None:
    """Mount what is mounted at a folder of one mount namespace at a folder of another one.

    :param source: descriptor of the mount namespace that has it. :param folder: of the folder there.
    :param launcher: descriptor of the mount namespace that is to see it. :param target: of the folder there.
    :raises MountError: if that isn't possible.
    """

    def run() -> None:
        _call("unshare", lambda: _LIBC.unshare(_CLONE_FS))
        _call("entering the Pod with the claim", lambda: _LIBC.setns(source, _CLONE_NEWNS))
        flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH
        tree = _call("open_tree", lambda: _LIBC.syscall(_OPEN_TREE, folder, b"", flags))
        try:
            _restrict(tree, _HARMLESS)
            _call("entering the launcher's container", lambda: _LIBC.setns(launcher, _CLONE_NEWNS))
            _attach(tree, target)
        finally:
            os.close(tree)

    _in_thread(run)


def remove(launcher: int, parent: int, name: str) -> None:
    """Unmount what is mounted in a mount namespace; nothing happens if nothing is. Files that are open stay so.

    :param launcher: descriptor of the namespace.
    :param parent: descriptor of the folder there that has the mount point. :param name: that of the mount point in it.
    :raises MountError: if that isn't possible.
    """

    def run() -> None:
        _call("unshare", lambda: _LIBC.unshare(_CLONE_FS))
        _call("entering the launcher's container", lambda: _LIBC.setns(launcher, _CLONE_NEWNS))
        # This thread's working directory is its own by now.
        _call("fchdir", lambda: _LIBC.fchdir(parent))
        try:
            _call(name, lambda: _LIBC.umount2(os.fsencode(name), _MNT_DETACH | _UMOUNT_NOFOLLOW))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise

    _in_thread(run)


def mount_id(descriptor: int) -> int:
    """Return the number of the mount that an open file or folder is on (proc_pid_fdinfo(5))."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
        lines = file.read(_INFO_BYTES).splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(b"mnt_id:"))


def is_mount_point(folder: int) -> bool:
    """Say whether something is mounted at an open folder."""
    parent = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return mount_id(folder) != mount_id(parent)
    finally:
        os.close(parent)


def _in_thread(act: Callable[[], None]) -> None:
    """Act in a thread that may enter mount namespaces.

    :raises MountError: if the system refuses something.
    """
    failures: list[OSError] = []

    def run() -> None:
        try:
            act()
        except OSError as error:
            failures.append(error)

    # A thread can enter a mount namespace once it shares root and working directory with no other. It ends there.
    thread = threading.Thread(target=run, name="mounts", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise MountError(f"{failures[0].filename}: {failures[0].strerror}") from failures[0]


def open_in_root(root: int, path: PurePosixPath, flags: int) -> int:
    """Open a file of an untrusted root file system; links in it can't lead out of it.

    :param root: descriptor of that root.
    :param flags: those of open(2). The descriptor returned is closed on exec.
    :raises OSError: if there is no such file there, or it can't be opened.
    """
    return _openat2(root, path, flags, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)


def _show(source: int, launcher: int, target: PurePosixPath) -> None:
    _call("unshare", lambda: _LIBC.unshare(_CLONE_FS))
    _call("entering the container of the image", lambda: _LIBC.setns(source, _CLONE_NEWNS))
    tree = _call("open_tree", lambda: _LIBC.syscall(_OPEN_TREE, _AT_FDCWD, b"/", _OPEN_TREE_CLONE | os.O_CLOEXEC))
    try:
        _restrict(tree, _READ_ONLY_AND_HARMLESS)
        _call("entering the launcher's container", lambda: _LIBC.setns(launcher, _CLONE_NEWNS))
        folder = _open_folder(target)
        try:
            if os.fstat(folder).st_dev == os.stat("..", dir_fd=folder).st_dev:
                _attach(tree, folder)
        finally:
            os.close(folder)
    finally:
        os.close(tree)


def _restrict(tree: int, attributes: int) -> None:
    """Set attributes of a mount that isn't attached yet."""
    wanted = struct.pack("QQQQ", attributes, 0, 0, 0)
    size = ctypes.c_size_t(len(wanted))
    _call("mount_setattr", lambda: _LIBC.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, wanted, size))


def _attach(tree: int, folder: int) -> None:
    """Attach a mount at a folder of the namespace this thread is in."""
    flags = _MOVE_FROM_DESCRIPTOR | _MOVE_TO_DESCRIPTOR
    _call("move_mount", lambda: _LIBC.syscall(_MOVE_MOUNT, tree, b"", folder, b"", flags))


def _open_folder(path: PurePosixPath) -> int:
    """Open a folder of the namespace this thread is in; no link leads out of that."""
    return _openat2(_AT_FDCWD, path, os.O_PATH | os.O_DIRECTORY, _RESOLVE_NO_MAGICLINKS)


def _openat2(start: int, path: PurePosixPath, flags: int, resolve: int) -> int:
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, resolve)
    return _call(str(path), lambda: _LIBC.syscall(_OPENAT2, start, os.fsencode(path), how, ctypes.c_size_t(len(how))))


def _call(what: str, call: Callable[[], int]) -> int:
    result = call()
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result
