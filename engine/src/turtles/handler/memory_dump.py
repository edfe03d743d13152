# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps guests' memory to claims that have been brought to their launchers (KubeVirt user guide, "Memory Dump")."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from turtles.api import times
from turtles.api.kinds.vmi import hotplug
from turtles.api.objects import Object
from turtles.domain import paths
from turtles.domain.volume_status import Dump, Plugged, dump_file
from turtles.handler.domain import Domain
from turtles.handler.errors import LauncherBusy, LibvirtError
from turtles.handler.guest import Guest
from turtles.handler.hotplug import entries_of

log = logging.getLogger(__name__)

#: How many guests are dumped at once: each dump writes as fast as its storage takes it.
_THREADS = 4


class MemoryDumps:
    """Dumps memory on a few threads of its own: it takes as long as it takes to write it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="memory-dump")

    def start(
        self, vmi: Object, guest: Guest, domain: Domain, volumes: Mapping[str, Plugged], on_done: Callable[[], None]
    ) -> bool:
        """Begin the dumps that are wanted; what becomes of them is in ``guest.dumps``. Return whether any began.

        One that an agent began that was killed is begun again.

        :param on_done: called from another thread when one has ended.
        """
        wanted = {volume["name"] for volume in vmi["spec"].get("volumes") or () if "memoryDump" in volume}
        for name in guest.dumps.keys() - wanted:
            del guest.dumps[name]
        begun = False
        for name, entry in entries_of(vmi).items():
            ended = entry.get("phase") in (hotplug.DUMPED, hotplug.DUMP_FAILED)
            if name not in wanted or not volumes[name].mounted or ended or name in guest.dumps:
                continue
            now, before = times.now(), entry.get("memoryDumpVolume") or {}
            file = before.get("targetFileName") or dump_file(vmi["metadata"]["name"], name, now)
            guest.dumps[name] = Dump(file, before.get("startTimestamp") or now)
            self._pool.submit(_dump, guest, name, domain, str(paths.claim_dir(name) / file), on_done)
            begun = True
        return begun


def _dump(guest: Guest, name: str, domain: Domain, path: str, on_done: Callable[[], None]) -> None:
    failure = ""
    try:
        domain.dump_memory(path)
        log.info("memory dumped", extra={"vmi": str(guest), "uid": guest.uid, "file": path})
    except (LibvirtError, LauncherBusy) as error:
        failure = str(error)
        log.warning("memory can't be dumped: %s", error, extra={"vmi": str(guest), "uid": guest.uid})
    if name in guest.dumps:
        guest.dumps[name] = replace(guest.dumps[name], ended=times.now(), failure=failure)
    on_done()
