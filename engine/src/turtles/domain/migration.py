# SPDX-License-Identifier: GPL-3.0-or-later
"""How a guest's memory and disks get to another node, and when that is given up. Pure: times are given, in seconds.

Rules are KubeVirt's (user guide, "Live Migration"): a migration may take so many seconds for each GiB that it copies,
and has to make progress; what happens when it doesn't is the configuration's choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element

from turtles.api import labels, migrations, quantity
from turtles.api.objects import Object
from turtles.domain import paths
from turtles.domain.statistics import PAGE_BYTES
from turtles.domain.xml import parse

_GIB = 1 << 30
#: Less than this is noise: what is left has to become less by more than that to count as progress.
_STEP = 1 << 20
#: QEMU's limit.
_MOST_CONNECTIONS = 255
#: Caches of disks that leave out the node's own.
_PAST_THE_CACHE = ("none", "directsync")


@dataclass(frozen=True)
class Settings:
    """How one migration is done.

    :param bandwidth: bytes per second, 0 is no limit. :param seconds: how long all of it may take.
    :param progress_timeout: seconds without progress. :param disruption: whether the guest may be paused.
    :param unsafe: guests are migrated with disks that both nodes keep in their page caches.
    :param max_downtime: milliseconds that the guest may stand still at the end.
    :param connections: over which memory is sent at a time; 0 is one, and no threads for it.
    """

    bandwidth: int = 0
    seconds: float = 150.0
    progress_timeout: float = 150.0
    auto_converge: bool = False
    post_copy: bool = False
    disruption: bool = False
    unsafe: bool = False
    connections: int = 0
    max_downtime: int = 900


def settings(state: Mapping[str, Any], size: int) -> Settings:
    """Return how a migration is done.

    :param state: the VMI's ``migrationState``.
    :param size: bytes that are copied at least once: of memory and of disks.
    """
    configured = state.get("migrationConfiguration") or {}
    return Settings(
        bandwidth=quantity.to_int(configured.get("bandwidthPerMigration") or 0),
        seconds=float(configured.get("completionTimeoutPerGiB") or 150) * max(1.0, size / _GIB),
        progress_timeout=float(configured.get("progressTimeout") or 150),
        auto_converge=bool(configured.get("allowAutoConverge")),
        post_copy=bool(configured.get("allowPostCopy")),
        disruption=bool(configured.get("allowWorkloadDisruption")),
        unsafe=bool(configured.get("unsafeMigrationOverride")),
        max_downtime=int(configured.get("maxDowntimeMs") or 900),
    )


def connections(vmi: Mapping[str, Any], *, post_copy: bool) -> int:
    """Return over how many connections the memory of a VMI is sent; 0 if it doesn't say.

    :param post_copy: is allowed. QEMU has it over a single connection only.
    :raises ValueError: if its annotation isn't a number of them.
    """
    text = (vmi["metadata"].get("annotations") or {}).get(labels.MULTI_THREADED_MIGRATION)
    if text is None or post_copy:
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_CONNECTIONS:
        raise ValueError(
            f"metadata.annotations.{labels.MULTI_THREADED_MIGRATION}: {text[:20]!r} is not a number of connections, "
            f"from 1 to {_MOST_CONNECTIONS}"
        )
    return int(text)


class Verdict(Enum):
    """What to do about a migration that is under way."""

    GO_ON = auto()
    #: Let the guest run on the target, which fetches from the source what isn't there yet.
    POST_COPY = auto()
    #: Let the guest stand still, so that nothing changes that was copied.
    PAUSE = auto()
    ABORT = auto()


@dataclass(frozen=True)
class Progress:
    """How far a migration is. ``least`` is the least that was left to copy so far, seen at the moment ``since``."""

    least: int
    since: float

    def seen(self, remaining: int, now: float) -> Progress:
        """Return the progress after another look."""
        return Progress(remaining, now) if remaining + _STEP < self.least else self


def judge(how: Settings, progress: Progress, elapsed: float, now: float, mode: str) -> tuple[Verdict, str]:
    """Decide what to do about a migration, and say why.

    :param elapsed: seconds since its start.
    :param now: the moment, of the kind of ``progress.since``.
    :param mode: as in ``migrationState.mode``.
    """
    if mode == migrations.POST_COPY:
        return Verdict.GO_ON, ""  # there is no way back: neither side has all of the memory
    if now - progress.since > how.progress_timeout:
        return Verdict.ABORT, f"Live migration stuck for {now - progress.since:.0f} seconds and has been aborted"
    if elapsed <= how.seconds or mode == migrations.PAUSED:
        return Verdict.GO_ON, ""
    if how.post_copy:
        return Verdict.POST_COPY, ""
    if how.disruption:
        return Verdict.PAUSE, ""
    return Verdict.ABORT, f"Live migration is not completed after {elapsed:.0f} seconds and has been aborted"


def transferred(job: Mapping[str, Any]) -> Object:
    """Return what users are told of libvirt's statistics of a job: bytes in all, done and left, and how fast."""

    def number(name: str) -> int:
        return int(job.get(name) or 0)

    rate = number("memory_bps") + number("disk_bps")
    return {
        "dataTotalBytes": number("data_total"),
        "dataProcessedBytes": number("data_processed"),
        "dataRemainingBytes": number("data_remaining"),
        "transferRateBytesPerSecond": rate,
        "dirtyRateBytesPerSecond": number("memory_dirty_rate") * (number("memory_page_size") or PAGE_BYTES),
    }


def copied_disks(xml: str) -> Sequence[str]:
    """Return the names (vda) of a running domain's disks that have to be copied: files of its Pod, which it writes to.

    :raises AnswerError: if the XML can't be read.
    """
    return [name for name, disk in _written_disks(xml) if _is_copied(disk)]


def cached_disks(xml: str) -> Sequence[str]:
    """Return the names of a running domain's disks that both nodes use, and may keep in their page caches.

    The target may have read from there what the guest changes until it arrives (libvirt, "Guest migration", cache).

    :raises AnswerError: if the XML can't be read.
    """

    def cache(disk: Element) -> str:
        driver = disk.find("driver")
        return (driver.get("cache") or "") if driver is not None else ""

    return [name for name, disk in _written_disks(xml) if not _is_copied(disk) and cache(disk) not in _PAST_THE_CACHE]


def _written_disks(xml: str) -> Iterator[tuple[str, Element]]:
    """Yield the disks that a domain writes to, by their names."""
    for disk in parse(xml, "the domain's XML").iterfind("devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        if source is None or target is None or disk.find("readonly") is not None:
            continue
        yield target.get("dev") or "", disk


def _is_copied(disk: Element) -> bool:
    file = disk.find("source").get("file")  # type: ignore[union-attr]
    return file is not None and PurePosixPath(file).is_relative_to(paths.EPHEMERAL_DISKS_DIR)


# What is written to migrationState


def announced(address: str, port: int) -> Object:
    """Return what the target says when it is ready for the guest."""
    return {"targetNodeAddress": address, "targetDirectMigrationNodePorts": {str(port): 0}}


def begun(now: str) -> Object:
    """Return what the source says when the transfer begins."""
    return {"startTimestamp": now, "mode": migrations.PRE_COPY}


def succeeded(now: str, start: str | None) -> Object:
    """Return what the source says when the guest runs on the target."""
    return {"startTimestamp": start or now, "endTimestamp": now, "completed": True, "transferStatus": None}


def failed(state: Mapping[str, Any], reason: str, now: str, *, aborted: bool) -> Object:
    """Return what is said of a migration that failed: the guest runs on at its source.

    :param aborted: somebody wanted it to be.
    """
    changes: Object = {
        "startTimestamp": state.get("startTimestamp") or now,
        "endTimestamp": now,
        "completed": True,
        "failed": True,
        "failureReason": reason,
        "transferStatus": None,
    }
    if aborted:
        changes["abortStatus"] = migrations.ABORT_SUCCEEDED
    return changes
