# SPDX-License-Identifier: GPL-3.0-or-later
"""From an HTTP server to the disk on a claim.

What is raw goes straight there, unpacked if need be. Every other format is read here and there, not from its beginning
to its end: it is stored in the scratch space, inspected, and converted.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

from turtles import images
from turtles.importer import archive, checkpoint
from turtles.importer.checkpoint import Checkpoint
from turtles.importer.compression import compression, decompressed
from turtles.importer.conversion import import_image, too_large
from turtles.importer.errors import ImportFailed, ImportRefused, ScratchNeeded, SourceChanged
from turtles.importer.folder import Folder
from turtles.importer.progress import Progress
from turtles.importer.request import Request
from turtles.importer.target import Target
from turtles.importer.transfer import Transfer, Version

log = logging.getLogger(__name__)

#: What an image's own tables may add to the disk's size, and what compression may: a share, and bytes.
_MARGIN_SHARE, _MARGIN = 0.05, 16 << 20
#: Seconds between two points from which another process can continue.
_CHECKPOINT_SECONDS = 5.0
_READ = 1 << 20


class _Sink(Protocol):
    """Where bytes go while they come."""

    def write(self, data: bytes, position: int) -> None: ...
    def read(self, count: int, position: int) -> bytes: ...
    def keep(self, position: int) -> None: ...


class Incoming(Protocol):
    """The bytes of a file. `position` is how many there were so far; `version` what they are of, once that is known."""

    position: int
    version: Version | None

    def __iter__(self) -> Iterator[bytes]:
        """Give them, in pieces."""


@dataclass(frozen=True)
class Job:
    """What to import.

    :param checksum: ``algorithm:digits``, or empty.
    :param scratch: a folder for scratch data, or None.
    :param folder: where the files of an archive go, if the content is one and not a disk.
    """

    request: Request
    target: Target
    checksum: str = ""
    scratch: Path | None = None
    folder: Folder | None = None


def run(job: Job, progress: Progress, transfer: Callable[..., Incoming] = Transfer) -> None:
    """Import it.

    :param transfer: makes what brings the bytes.
    :raises ImportFailed: there is no disk, and nothing that could be taken for one.
    """
    folder = _folder(job)
    try:
        _Import(job, progress, transfer, folder).run()
    except (ImportRefused, SourceChanged, images.ImageError) as error:
        _clean(job, folder)
        if isinstance(error, images.ImageError):
            raise ImportRefused(f"{job.request.url} {error}") from error
        raise
    except OSError as error:
        # Nobody is served by what fills a disk
        _clean(job, folder)
        what = "disk" if job.folder is None else "claim"
        raise ImportFailed(f"the {what} can't be written: {error.strerror or error}") from error
    except ImportFailed:
        if job.folder is not None:
            # Files of an archive are never continued
            job.folder.clear()
        raise
    finally:
        job.target.close()


def _folder(job: Job) -> Path | None:
    """Return where it is noted how far the import is; None if there is no such place."""
    if job.folder is not None:
        return None
    if job.scratch is not None:
        return job.scratch
    return None if job.target.is_device else job.target.draft.parent


def _clean(job: Job, folder: Path | None) -> None:
    if job.folder is not None:
        job.folder.clear()
        return
    job.target.discard()
    if folder is not None:
        checkpoint.forget(folder)
    if job.scratch is not None:
        _spool_path(job.scratch).unlink(missing_ok=True)


def _spool_path(scratch: Path) -> Path:
    return scratch / "image"


class _Import:
    def __init__(self, job: Job, progress: Progress, transfer: Callable[..., Incoming], folder: Path | None) -> None:
        self._job, self._progress, self._make = job, progress, transfer
        #: None: there is nowhere to note how far it is, or no use in it.
        self._folder = folder
        self._limit = int(job.target.size * (1 + _MARGIN_SHARE)) + _MARGIN
        self._hash = hashlib.new(job.checksum.partition(":")[0], usedforsecurity=False) if job.checksum else None

    def run(self) -> None:
        """Import."""
        url = self._job.request.url
        begun = checkpoint.load(self._folder, url) if self._folder else None
        if begun is not None and self._continue(begun):
            return
        transfer = self._make(self._job.request, self._limit)
        pieces = self._counted(transfer)
        head, pieces = _peek(pieces, compression_magic := images.HEADER)
        if packed := compression(head):
            # What comes out can't be continued in the middle
            self._folder = None
            head, pieces = _peek(decompressed(pieces, packed), compression_magic)
            if again := compression(head):
                raise ImportRefused(f"{url} is compressed twice, with {packed} and {again}; compress it once")
        if not head:
            raise ImportRefused(f"{url} is empty")
        if self._job.folder is not None:
            self._unpack(self._job.folder, pieces)
            return
        format_ = images.format_of(head)
        log.info("importing", extra={"url": url, "format": format_, "compression": packed or "none"})
        if format_ == "raw":
            if not packed and (transfer.version and (transfer.version.total or 0) > self._job.target.size):
                raise too_large(self._job.target, transfer.version.total)
            self._job.target.prepare()
            self._to_target(transfer, pieces, 0)
        else:
            if self._job.scratch is None:
                raise ScratchNeeded(f"images in format {format_} have to be stored before conversion")
            self._progress.expect_conversion()
            with _Spool(_spool_path(self._job.scratch), self._limit) as spool:
                self._store(transfer, pieces, spool, 0)
            self._convert()

    def _unpack(self, folder: Folder, pieces: Iterator[bytes]) -> None:
        folder.clear()
        # Headers, and what fills blocks up, count as well
        with archive.opened(pieces, 2 * self._limit) as reader:
            count = folder.take(reader)
        for _ in pieces:
            # All of it has a checksum
            pass
        if not count:
            raise ImportRefused(f"{self._job.request.url} is an empty archive")
        self._verify()

    def _continue(self, begun: Checkpoint) -> bool:
        """Continue what another process began; return False if what it wrote isn't there."""
        target = self._job.target
        if self._job.scratch is not None:
            path = _spool_path(self._job.scratch)
            if not path.is_file() or path.stat().st_size < begun.position:
                return False
            self._progress.expect_conversion()
            with _Spool(path, self._limit, keep=begun.position) as spool:
                self._rehash(spool, begun.position)
                transfer = self._make(self._job.request, self._limit, begun.position, begun.version)
                self._store(transfer, self._counted(transfer), spool, begun.position)
            self._convert()
            return True
        if not target.draft.is_file() or target.draft.stat().st_size < begun.position:
            return False
        target.prepare(keep=begun.position)
        self._rehash(target, begun.position)
        transfer = self._make(self._job.request, self._limit, begun.position, begun.version)
        self._to_target(transfer, self._counted(transfer), begun.position)
        return True

    def _rehash(self, sink: _Sink, end: int) -> None:
        position = 0
        while self._hash is not None and position < end:
            data = sink.read(min(_READ, end - position), position)
            if not data:
                raise SourceChanged("data of an earlier attempt is gone; starting over")
            self._hash.update(data)
            position += len(data)

    def _counted(self, transfer: Incoming) -> Iterator[bytes]:
        """Give a transfer's bytes; note their hash, and how many there are."""
        for piece in transfer:
            if self._hash is not None:
                self._hash.update(piece)
            yield piece
            self._progress.transferred(transfer.position, transfer.version.total if transfer.version else None)

    def _to_target(self, transfer: Incoming, pieces: Iterable[bytes], start: int) -> None:
        end = self._store(transfer, pieces, self._job.target, start, self._job.target.size)
        if not end:
            raise ImportRefused(f"{self._job.request.url} is empty")
        self._job.target.publish()
        self._forget()

    def _store(
        self, transfer: Incoming, pieces: Iterable[bytes], sink: _Sink, position: int, limit: int | None = None
    ) -> int:
        """Write pieces one after the other, and verify their hash; return where they end.

        :param limit: bytes that there may be.
        """
        noted = time.monotonic()
        for piece in pieces:
            if limit is not None and position + len(piece) > limit:
                raise too_large(self._job.target, None)
            sink.write(piece, position)
            position += len(piece)
            if self._folder is not None and time.monotonic() - noted > _CHECKPOINT_SECONDS and transfer.version:
                sink.keep(position)
                checkpoint.save(self._folder, Checkpoint(self._job.request.url, transfer.version, position))
                noted = time.monotonic()
        self._verify()
        return position

    def _verify(self) -> None:
        if self._hash is None:
            return
        algorithm, _, wanted = self._job.checksum.partition(":")
        if self._hash.hexdigest() != wanted.lower():
            raise ImportRefused(
                f"{self._job.request.url} has the {algorithm} checksum {self._hash.hexdigest()}, not {wanted}: it is "
                "another file, or was altered in transit"
            )

    def _convert(self) -> None:
        assert self._job.scratch is not None
        path = _spool_path(self._job.scratch)
        try:
            import_image(path, self._job.target, self._progress.converted)
        except ImportFailed:
            # What a conversion has written can't be continued, and may be what fills the claim
            self._job.target.discard()
            raise
        path.unlink()
        self._forget()

    def _forget(self) -> None:
        for folder in {self._folder, self._job.scratch} - {None}:
            checkpoint.forget(folder)  # type: ignore[arg-type]


class _Spool:
    """A file with an image that is converted later.

    :param limit: bytes it may have.
    :param keep: bytes that are there already.
    """

    def __init__(self, path: Path, limit: int, keep: int = 0) -> None:
        self._limit = limit
        self._file = path.open("r+b" if keep else "w+b", buffering=0)
        self._file.truncate(keep)

    def __enter__(self) -> "_Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes, position: int) -> None:
        """Write some bytes."""
        if position + len(data) > self._limit:
            raise ImportRefused(f"the image is longer than {self._limit} bytes; a larger PVC is required")
        self._file.seek(position)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]

    def read(self, count: int, position: int) -> bytes:
        """Read what was written."""
        self._file.seek(position)
        return self._file.read(count) or b""

    def keep(self, position: int) -> None:
        """Make sure that what was written is there, also after a crash."""
        os.fdatasync(self._file.fileno())


def _peek(pieces: Iterable[bytes], count: int) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes, and all pieces as they were."""
    iterator = iter(pieces)
    taken: list[bytes] = []
    while sum(map(len, taken)) < count:
        piece = next(iterator, None)
        if piece is None:
            break
        taken.append(piece)
    return b"".join(taken)[:count], chain(taken, iterator)
