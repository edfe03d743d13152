# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers of an image that skopeo's ``dir:`` transport wrote, as archives that can be read."""

import contextlib
import gzip
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from turtles.image_manifest import Index, ManifestError, parse
from turtles.standalone.podrunner.unpack_budget import Budget, UnpackError

CHUNK = 1 << 20
#: How often an archive may be read beyond its end; tarfile does a few times.
_MAX_EMPTY_READS = 64


def layer_files(image_dir: Path) -> list[Path]:
    """Return the layers of an image in a ``dir:`` directory, lowest first.

    :raises UnpackError: the manifest is not one of a single image, or a layer is missing.
    """
    try:
        with open(image_dir / "manifest.json", "rb") as file:
            manifest = parse(file.read(CHUNK * 8))
    except (OSError, ManifestError) as error:
        raise UnpackError(str(error)) from error
    if isinstance(manifest, Index):
        raise UnpackError("the image's manifest is an index of several images")
    files = [image_dir / layer.digest.partition(":")[2] for layer in manifest.layers]
    for path in files:
        if not path.is_file():
            raise UnpackError(f"the image's layer {path.name} is missing")
    return files


class _Counted(io.RawIOBase):
    """A layer's archive, counted, and closed as the format wants: umoci leaves out the last block's padding and the end
    marker, and the container engines' reader doesn't mind. The layer's digest shows that nothing else is missing.
    """

    def __init__(self, source: IO[bytes], budget: Budget, finish: Callable[[], None]) -> None:
        self._source, self._budget, self._finish = source, budget, finish
        self._count, self._beyond = 0, 0
        self._end: bytes | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        if self._end is None:
            data = self._source.read(len(buffer))
            self._budget.data(len(data))
            self._count += len(data)
        if not data:
            if self._end is None:
                self._finish()
                self._end = bytes(-self._count % 512 + 1024)
            data, self._end = self._end[: len(buffer)], self._end[len(buffer) :]
            # A header's size is a claim: nobody must be sent over 2^60 bytes that aren't there.
            self._beyond += not data
            if self._beyond > _MAX_EMPTY_READS:
                raise tarfile.ReadError("unexpected end of data")
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def _tar_stream(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """Open a layer as an archive, with what is to be called at its end."""
    with open(path, "rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with gzip.open(file) as stream:
                yield stream, lambda: None  # type: ignore[misc]
        elif magic == b"\x28\xb5\x2f\xfd":
            program = shutil.which("zstd")
            if program is None:
                raise UnpackError("the image's layers are compressed with zstd: install the program zstd")
            # What was looked at was read ahead of.
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            with subprocess.Popen(
                [program, "-dcq"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as process:

                def finish() -> None:
                    if process.wait():
                        raise tarfile.ReadError(f"zstd ended with {process.returncode}")

                try:
                    if process.stdout is not None:
                        yield process.stdout, finish
                finally:
                    process.kill()
        else:
            yield file, lambda: None


@contextlib.contextmanager
def opened(path: Path, budget: Budget) -> Iterator[IO[bytes]]:
    """Open a layer as an archive whose bytes are counted.

    :raises UnpackError: it can't be read on this machine, or is beyond the budget.
    """
    with _tar_stream(path) as (stream, finish):
        yield io.BufferedReader(_Counted(stream, budget, finish), CHUNK)
