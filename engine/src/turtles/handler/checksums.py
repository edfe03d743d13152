# SPDX-License-Identifier: GPL-3.0-or-later
"""Checksums of container disks (``status.volumeStatus[].containerDiskVolume``): CRC-32, as KubeVirt's."""

import logging
import os
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from turtles.api.objects import Object
from turtles.handler.launcher import Launcher

log = logging.getLogger(__name__)

#: How large a disk may be. One that is sparse is read as if it weren't.
_LIMIT = 2**37
_CHUNK = 2**20


class Checksums:
    """Computes them on a thread of its own: a disk has to be read as a whole."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checksums")
        self._lock = threading.Lock()
        #: By the machine's UID and the volume's name; None until they are known.
        self._found: dict[tuple[str, str], int | None] = {}

    def of(self, vmi: Object) -> dict[str, int]:
        """Return what is known of a machine's disks, by the volumes' names."""
        uid = vmi["metadata"]["uid"]
        with self._lock:
            return {name: value for (owner, name), value in self._found.items() if owner == uid and value is not None}

    def compute(self, vmi: Object, launcher: Launcher, on_answer: Callable[[], None]) -> None:
        """Compute those that the machine's status doesn't have. What can't be read has none.

        :param on_answer: called from another thread when there is a new one.
        """
        uid = vmi["metadata"]["uid"]
        entries = {entry["name"]: entry for entry in vmi["status"].get("volumeStatus") or ()}
        for volume in vmi["spec"].get("volumes") or ():
            key = uid, volume["name"]
            known = (entries.get(volume["name"]) or {}).get("containerDiskVolume")
            if "containerDisk" not in volume or known or key in self._found:
                continue
            with self._lock:
                self._found[key] = None
            try:
                disk = launcher.open_container_disk(volume)
            except OSError as error:
                log.info("a container disk can't be read: %s", error, extra={"uid": uid, "volume": volume["name"]})
                continue
            self._pool.submit(self._answer, key, disk, on_answer)

    def forget(self, uid: str) -> None:
        """Forget a machine."""
        with self._lock:
            self._found = {key: value for key, value in self._found.items() if key[0] != uid}

    def _answer(self, key: tuple[str, str], disk: int, on_answer: Callable[[], None]) -> None:
        try:
            value = _checksum(disk, lambda: key in self._found)
        except OSError as error:
            log.info("a container disk can't be read: %s", error, extra={"uid": key[0], "volume": key[1]})
            return
        finally:
            os.close(disk)
        with self._lock:
            if value is None or key not in self._found:
                return
            self._found[key] = value
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
