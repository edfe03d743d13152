# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of volumes' directories, which are whole or not there."""

import contextlib
import fcntl
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import IO

from turtles.standalone.files import remove_tree, sync_folder

#: Name of a copy until it is whole.
_PARTIAL = ".partial-"
#: ``FICLONE`` of ``linux/fs.h``: have a file share the blocks of another.
_FICLONE = 0x40049409
#: Seconds to wait for a copy before looking at something else: one by reflink is ready by then.
_PATIENCE = 0.2
#: Seconds within which two writes may leave a file with the same time (a tick of the kernel's clock).
_TICK = 0.02


class CopyError(Exception):
    """A directory can't be copied; the message says why and what to do."""


@dataclass
class _Copy:
    process: subprocess.Popen[bytes]
    partial: Path
    before: frozenset[tuple[str, int, int, int]]
    errors: IO[bytes]


class Copies:
    """Copies directories with coreutils' ``cp``: by reflink where the file system can, else without holes.

    A reflinked file is as it was at one moment. What is copied otherwise is refused if it was written to meanwhile.

    :param root: where copies are prepared; on the file system of the volumes.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._running: dict[Path, _Copy] = {}
        self._lock = threading.Lock()
        self._shares_blocks = False

    def prepare(self) -> None:
        """Remove what an earlier process left unfinished, and find out what the file system can do."""
        for path in self._root.glob(f"{_PARTIAL}*"):
            remove_tree(path)
        self._shares_blocks = _shares_blocks(self._root)

    def make(self, source: Path, target: Path) -> bool:
        """Copy a directory; return whether the copy is there. If it isn't yet, ask again.

        :raises CopyError: it failed; the next call tries again.
        """
        with self._lock:
            if target.exists():
                return True
            copy = self._running.get(target) or self._start(source, target)
            try:
                code = copy.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                return False
            del self._running[target]
            try:
                self._finish(copy, code, source, target)
            except OSError as error:
                raise CopyError(f"can't copy {source}: {error}") from error
            finally:
                copy.errors.close()
                if copy.partial.exists():
                    remove_tree(copy.partial)
            return True

    def cancel(self, suffix: str) -> None:
        """End copying to targets whose names end so: nobody wants them any more."""
        with self._lock:
            for target in [target for target in self._running if target.name.endswith(suffix)]:
                copy = self._running.pop(target)
                copy.process.kill()
                copy.process.wait()
                copy.errors.close()
                remove_tree(copy.partial)

    def _start(self, source: Path, target: Path) -> _Copy:
        if not source.is_dir():
            raise CopyError(f"can't copy {source}: it isn't there")
        partial = self._root / f"{_PARTIAL}{target.name}"
        if partial.exists():
            remove_tree(partial)
        before: frozenset[tuple[str, int, int, int]] = frozenset()
        if not self._shares_blocks:
            before = frozenset(_state(source))
            self._check_room(source)
        errors = tempfile.TemporaryFile()  # noqa: SIM115  (it is read when the copy has ended)
        # It ends with this process, whose successor begins again
        command = ["setpriv", "--pdeathsig", "KILL", "cp", "--archive", "--reflink=auto", "--sparse=always"]
        process = subprocess.Popen(
            [*command, "--no-target-directory", "--", str(source), str(partial)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        copy = self._running[target] = _Copy(process, partial, before, errors)
        return copy

    def _check_room(self, source: Path) -> None:
        needed = sum(path.lstat().st_blocks for path in source.rglob("*")) * 512
        free = shutil.disk_usage(self._root).free
        if needed > free:
            raise CopyError(f"a copy takes {needed >> 20} MiB and {free >> 20} MiB are free in {self._root}: free some")

    def _finish(self, copy: _Copy, code: int, source: Path, target: Path) -> None:
        """Put a copy in its place, or say why it is none."""
        if code:
            copy.errors.seek(0)
            output = copy.errors.read(2000).decode(errors="replace").strip().splitlines()
            raise CopyError(f"can't copy {source}: {output[-1] if output else f'cp ended with {code}'}")
        if not self._shares_blocks and frozenset(_state(source)) != copy.before:
            raise CopyError(
                "the volume was written to while it was copied: stop or freeze what writes to it, or keep volumes on a "
                "file system with reflinks (XFS, Btrfs), which copies a file at one moment"
            )
        # Its name must not be there before its contents are
        subprocess.run(["sync", "--file-system", str(copy.partial)], check=True)
        copy.partial.rename(target)
        sync_folder(target.parent)


def _state(directory: Path) -> Iterator[tuple[str, int, int, int]]:
    """Return what tells whether somebody wrote to the files of a directory."""
    # A write that follows in the same tick would not be seen
    time.sleep(_TICK)
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.lstat()
            if not S_ISDIR(stat.st_mode):
                yield str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns


def _shares_blocks(folder: Path) -> bool:
    """Say whether the file system of a folder has reflinks."""
    with tempfile.TemporaryFile(dir=folder) as one, tempfile.TemporaryFile(dir=folder) as other:
        one.write(b"\0" * 4096)
        one.flush()
        try:
            fcntl.ioctl(other.fileno(), _FICLONE, one.fileno())
        except OSError:
            return False
        return True
