# SPDX-License-Identifier: GPL-3.0-or-later
"""Checksums of container disks (``status.volumeStatus[].containerDiskVolume``): CRC-32, as KubeVirt's."""

import logging
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from turtles.api.objects import Object
from turtles.handler.guest import Guest
from turtles.handler.launcher import Launcher

log = logging.getLogger(__name__)

#: How large a disk may be. One that is sparse is read as if it weren't.
_LIMIT = 2**37
_CHUNK = 2**20


class Checksums:
    """Computes them on a thread of its own: a disk has to be read as a whole."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checksums")

    def compute(self, vmi: Object, guest: Guest, launcher: Launcher, on_answer: Callable[[], None]) -> None:
        """Compute those that the machine's status doesn't have, as ``guest.checksums``. What can't be read has none.

        :param on_answer: called from another thread when there is a new one.
        """
        entries = {entry["name"]: entry for entry in vmi["status"].get("volumeStatus") or ()}
        for volume in vmi["spec"].get("volumes") or ():
            name = volume["name"]
            known = (entries.get(name) or {}).get("containerDiskVolume")
            if "containerDisk" not in volume or known or name in guest.summed:
                continue
            guest.summed.add(name)
            try:
                disk = launcher.disks.open_container_disk(volume)
            except OSError as error:
                log.info("can't read a container disk: %s", error, extra={"vmi": str(guest), "volume": name})
                continue
            self._pool.submit(_answer, guest, name, disk, on_answer)


def _answer(guest: Guest, name: str, disk: int, on_answer: Callable[[], None]) -> None:
    try:
        # A guest that is forgotten has no launcher any more.
        value = _checksum(disk, lambda: guest.launcher is not None)
    except OSError as error:
        log.info("can't read a container disk: %s", error, extra={"vmi": str(guest), "volume": name})
        return
    finally:
        os.close(disk)
    if value is not None:
        guest.checksums = {**guest.checksums, name: value}
        on_answer()


def _checksum(disk: int, wanted: Callable[[], bool]) -> int | None:
    """Return the CRC-32 of a disk; None if it is too large, or as soon as nobody wants it any more."""
    if os.fstat(disk).st_size > _LIMIT:
        return None
    value = 0
    while chunk := os.read(disk, _CHUNK):
        if not wanted():
            return None
        value = zlib.crc32(chunk, value)
    return value
