# SPDX-License-Identifier: GPL-3.0-or-later
"""Has virtual processors scheduled in real time, which the Pod itself may not."""

import os
import re
from collections.abc import Collection
from pathlib import Path

#: As QEMU calls the threads of virtual processors.
_THREAD = re.compile(r"CPU (\d+)/")
_PRIORITY = 1


def schedule(namespace: str, vcpus: Collection[int], proc: Path = Path("/proc")) -> None:
    """Give threads of a Pod's QEMU the policy SCHED_FIFO.

    :param namespace: of the Pod's processes, as the link ns/pid says it.
    :param vcpus: numbers of the virtual processors.
    :raises OSError: if the kernel refuses it.
    :raises ProcessLookupError: if one of them isn't there.
    """
    left = set(vcpus)
    for process in proc.glob("[0-9]*"):
        try:
            if not left or str((process / "ns/pid").readlink()) != namespace:
                continue
            threads = {int(each.name): (each / "comm").read_text() for each in (process / "task").iterdir()}
        except OSError:  # it has ended
            continue
        for thread, name in threads.items():
            match = _THREAD.match(name)
            if match and int(match[1]) in left:
                os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(_PRIORITY))
                left.discard(int(match[1]))
    if left:
        raise ProcessLookupError(f"QEMU has no threads for the virtual processors {sorted(left)}")
