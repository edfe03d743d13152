# SPDX-License-Identifier: GPL-3.0-or-later
"""Raises limits of a Pod's processes that libvirt in the Pod can't raise (setrlimit(2)).

Of locked memory, which devices of the node need that read and write the guest's (VFIO, vDPA): container runtimes allow
a few MiB at most. Of open files, of which passt has one for each port. QEMU and passt inherit them from libvirtd.
"""

import contextlib
import resource
from pathlib import Path

LOCKED_MEMORY, OPEN_FILES = resource.RLIMIT_MEMLOCK, resource.RLIMIT_NOFILE


def allow(namespace: str, limit: int, amount: int, proc: Path = Path("/proc")) -> None:
    """Raise a limit of all processes of a Pod; nothing happens to one that is higher.

    :param namespace: of the Pod's processes, as the link ns/pid says it.
    :param limit: which one. :param amount: bytes, or files.
    :raises OSError: if the kernel refuses it, or the Pod's processes can't be told from others.
    """
    if namespace == _namespace(proc / "self"):
        raise PermissionError("the Pod's processes are in the node's own PID namespace")
    for process in proc.glob("[0-9]*"):
        if _namespace(process) == namespace:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                _raise_limit(int(process.name), limit, amount)


def _namespace(process: Path) -> str:
    try:
        return str((process / "ns/pid").readlink())
    except OSError:  # it has ended, or is none of this process' business
        return ""


def _raise_limit(process: int, limit: int, amount: int) -> None:
    before = resource.prlimit(process, limit)
    soft, hard = (value if value == resource.RLIM_INFINITY else max(value, amount) for value in before)
    if (soft, hard) != before:
        resource.prlimit(process, limit, (soft, hard))
