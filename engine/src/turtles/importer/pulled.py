# SPDX-License-Identifier: GPL-3.0-or-later
"""From a container image, which the importer pulls itself, to the disk on a claim."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from turtles.importer import archive, http
from turtles.importer.compression import compression, decompressed
from turtles.importer.errors import ImportFailed, ImportRefused
from turtles.importer.progress import Progress
from turtles.importer.registry_client import Image, connected
from turtles.importer.request import Request
from turtles.importer.target import Target
from turtles.importer.transfer import Version

_FOLDER = "disk"
#: Prefix of a layer's files that remove those of layers below, and the one that removes all of a folder (OCI image
#: specification, "Whiteouts").
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
#: Part of an import that is the download.
_DOWNLOAD = 0.5
#: Bytes that all layers together may unpack to, beside the disk: what else is in an image isn't kept.
_OTHERS = 64 << 30
_READ = 256 << 10


def run(image: Image, target: Target, scratch: Path, progress: Progress) -> None:
    """Import the image's one disk.

    :param scratch: a folder for the image.
    :raises ImportFailed: there is no disk, and nothing that could be taken for one.
    """
    layers = scratch / "layers"
    shutil.rmtree(layers, ignore_errors=True)
    try:
        with connected(image, scratch) as client:
            digest, manifest = client.manifest()
            _check_size(image, manifest.size, scratch)
            progress.begin(0.0, _DOWNLOAD)
            client.download(digest, manifest, layers, lambda count: progress.transferred(count, manifest.size))
        progress.begin(_DOWNLOAD, 1.0)
        files = [layers / layer.digest.partition(":")[2] for layer in manifest.layers]
        layer, name = _find(image, files, target.size)
        job = http.Job(Request(f"disk {name!r} of image {image.reference}"), target, scratch=scratch)
        http.run(job, progress, lambda request, limit: _Member(layer, name, limit))
    except OSError as error:
        target.discard()
        raise ImportFailed(f"the image can't be stored: {error.strerror or error}") from error
    finally:
        shutil.rmtree(layers, ignore_errors=True)


def _check_size(image: Image, size: int, scratch: Path) -> None:
    free = shutil.disk_usage(scratch).free
    if size > free:
        raise ImportFailed(f"image {image.reference} has {size} bytes to download, but only {free} are free")


def _find(image: Image, layers: list[Path], size: int) -> tuple[Path, str]:
    """Return the layer that has the image's one disk, and the disk's name.

    :raises ImportRefused: there is none, or more than one.
    """
    files: dict[str, Path] = {}
    hidden: set[str] = set()
    left = size + _OTHERS
    for layer in reversed(layers):
        here, gone = {}, set()
        with archive.opened(_unpacked(layer), left) as reader:
            for member in reader:
                folder, _, name = member.name.strip("./").rpartition("/")
                if not folder and name == f"{_WHITEOUT}{_FOLDER}":
                    gone.add(_OPAQUE)
                if folder != _FOLDER:
                    continue
                if name.startswith(_WHITEOUT):
                    gone.add(name)
                elif name in hidden or name in files or _OPAQUE in hidden:
                    continue
                elif not member.isreg():
                    raise ImportRefused(f"image {image.reference} has a /disk/{name} that is not a regular file")
                else:
                    here[name] = layer
            left = reader.left
        files |= here
        hidden |= {name if name == _OPAQUE else name.removeprefix(_WHITEOUT) for name in gone}
    if len(files) == 1:
        return next((layer, name) for name, layer in files.items())
    if files:
        names = ", ".join(sorted(files)[:5])
        raise ImportRefused(f"image {image.reference} has {len(files)} files in /disk ({names}), where one is expected")
    raise ImportRefused(f"image {image.reference} is not a containerDisk: it has no file in /disk")


def _unpacked(layer: Path) -> Iterator[bytes]:
    with layer.open("rb") as file:
        head = file.read(_READ)
        pieces = iter(lambda: file.read(_READ), b"")

        def all_pieces() -> Iterator[bytes]:
            if head:
                yield head
            yield from pieces

        packed = compression(head)
        yield from decompressed(all_pieces(), packed) if packed else all_pieces()


class _Member:
    """The bytes of a file in a layer.

    :param limit: bytes that it may have.
    """

    def __init__(self, layer: Path, name: str, limit: int) -> None:
        self._layer, self._name, self._limit = layer, name, limit
        self.position = 0
        self.version: Version | None = None

    def __iter__(self) -> Iterator[bytes]:
        with archive.opened(_unpacked(self._layer), self._limit + _OTHERS) as reader:
            for member in reader:
                if member.name.strip("./") != f"{_FOLDER}/{self._name}":
                    continue
                self.version = Version(total=member.size)
                if member.size > self._limit:
                    raise ImportRefused(
                        f"the disk has {member.size} bytes, more than the {self._limit} that a disk of this size can "
                        "come from; a larger claim is required"
                    )
                for piece in reader.content(member):
                    self.position += len(piece)
                    yield piece
                return
