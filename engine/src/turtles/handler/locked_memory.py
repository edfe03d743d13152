# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets a Pod's processes lock memory, which devices of the node need that read and write the guest's (VFIO, vDPA).

Container runtimes allow a few MiB at most, and libvirt in the Pod can't raise that limit (setrlimit(2),
RLIMIT_MEMLOCK). QEMU inherits it from libvirtd.
"""

import contextlib
import resource
from pathlib import Path


def allow(namespace: str, amount: int, proc: Path = Path("/proc")) -> None:
    """Raise the limit of all processes of a Pod; nothing happens to a limit that is higher.

    :param namespace: of the Pod's processes, as the link ns/pid says it.
    :param amount: bytes.
    :raises OSError: if the kernel refuses it, or the Pod's processes can't be told from others.
    """
    if namespace == _namespace(proc / "self"):
        raise PermissionError("the Pod's processes are in the node's own PID namespace")
    for process in proc.glob("[0-9]*"):
        if _namespace(process) == namespace:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                _raise_limit(int(process.name), amount)


def _namespace(process: Path) -> str:
    try:
        return str((process / "ns/pid").readlink())
    except OSError:  # it has ended, or is none of this process' business
        return ""


def _raise_limit(process: int, amount: int) -> None:
    limits = resource.prlimit(process, resource.RLIMIT_MEMLOCK)
    soft, hard = (limit if limit == resource.RLIM_INFINITY else max(limit, amount) for limit in limits)
    if (soft, hard) != limits:
        resource.prlimit(process, resource.RLIMIT_MEMLOCK, (soft, hard))
