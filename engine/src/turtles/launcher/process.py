# SPDX-License-Identifier: GPL-3.0-or-later
"""What a first process of a Pod has to do about privileges and children; see capabilities(7), prctl(2), wait(2)."""

import ctypes
import os
import signal
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522


def check(result: int, what: str) -> None:
    """Raise the OSError of a system call of libc that failed; *what* is what it was to do."""
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def drop_capabilities() -> None:
    """Drop every capability of this process for good; programs it starts get none either.

    :raises OSError: if the kernel refuses.
    """
    check(_LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clearing ambient capabilities")
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    nothing = ctypes.create_string_buffer(24)
    check(_LIBC.capset(header, nothing), "dropping capabilities")


def become_reaper() -> None:
    """Make orphans among the descendants (QEMU is one) children of this process, as they are where it is process 1.

    :raises OSError: if the kernel refuses.
    """
    check(_LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "becoming the reaper of orphans")


def reap_automatically() -> None:
    """Let the kernel reap ended children from now on; their exit status is lost.

    libvirt waits for an ended QEMU to disappear, and may be doing so on behalf of the very thread that would reap it.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        # Those that ended before aren't covered.
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
