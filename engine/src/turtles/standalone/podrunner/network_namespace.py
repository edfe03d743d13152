# SPDX-License-Identifier: GPL-3.0-or-later
"""Network namespaces of Pods, kept by a bind mount each."""

import contextlib
import fcntl
import socket
import struct
import threading
from pathlib import Path

from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.mount_points import is_mount


def create(path: Path) -> None:
    """Create a network namespace, with ``lo`` up, and keep it at path by a bind mount, unless it exists."""
    if is_mount(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o444)
    failure: list[BaseException] = []

    def make() -> None:
        # A thread of its own leaves the process's other threads in the host's namespace.
        try:
            sc.unshare(sc.CLONE_NEWNET)
            _set_loopback_up()
            sc.mount("/proc/thread-self/ns/net", str(path), flags=sc.MS_BIND)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failure:
        path.unlink(missing_ok=True)
        raise failure[0]


def _set_loopback_up() -> None:
    """Set ``lo`` of the calling thread's network namespace up (SIOCGIFFLAGS, SIOCSIFFLAGS, netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(sock, 0x8913, request))[1]
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", flags | 1))


def delete(path: Path) -> None:
    """Release a network namespace, if it exists."""
    for _ in range(8):
        if not is_mount(path):
            break
        # Another one may be at it; whether it is gone shows the next look.
        with contextlib.suppress(OSError):
            sc.umount(str(path), sc.MNT_DETACH)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
