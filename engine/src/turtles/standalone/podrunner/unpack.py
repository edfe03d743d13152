# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpack the layers of an untrusted container image into a directory.

Run as a process of its own with limits on memory and file size::

    python -m turtles.standalone.podrunner.unpack IMAGE_DIR TARGET MAX_BYTES MAX_ENTRIES

IMAGE_DIR is what skopeo's ``dir:`` transport wrote. Every path is opened with openat2(2), RESOLVE_IN_ROOT: no ``..``,
no absolute or symbolic link in an archive leads out of TARGET. Devices, sockets and FIFOs are left out, set-id bits
are taken off, blocks of zeros become holes. Layers and whiteouts: OCI image specification, "Image Layer Filesystem
Changeset".
"""

import contextlib
import gzip
import io
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from turtles.standalone.podrunner import syscalls as sc

_CHUNK = 1 << 20
_HOLE = 1 << 16
_ZEROS = bytes(_HOLE)
_MEMORY = 1 << 30
_RESERVE = 256 << 20


class UnpackError(Exception):
    """The image is not acceptable; the text says why."""


class Budget:
    """What an image may still unpack."""

    def __init__(self, max_bytes: int, max_entries: int) -> None:
        self.max_bytes, self.max_entries = max_bytes, max_entries
        self._bytes, self._entries = 0, 0

    def entry(self) -> None:
        """Count one archive member."""
        self._entries += 1
        if self._entries > self.max_entries:
            raise UnpackError(f"the image has more than {self.max_entries} files")

    def data(self, count: int) -> None:
        """Count bytes that come out of an archive."""
        self._bytes += count
        if self._bytes > self.max_bytes:
            raise UnpackError(f"the image unpacks to more than {self.max_bytes >> 20} MiB")


class _Counted(io.RawIOBase):
    """A layer's archive, counted, and closed as the format wants: umoci leaves out the last block's padding and the end
    marker, and the container engines' reader doesn't mind. That nothing else is missing, the layer's digest says.
    """

    def __init__(self, source: IO[bytes], budget: Budget) -> None:
        self._source, self._budget = source, budget
        self._count = 0
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
            end = bytes(-self._count % 512 + 1024) if self._end is None else self._end
            data, self._end = end[: len(buffer)], end[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def layer_files(image_dir: Path) -> list[Path]:
    """Return the layers of an image in a ``dir:`` directory, lowest first.

    :raises UnpackError: the manifest is not one of a single image, or a layer is missing.
    """
    try:
        manifest = json.loads((image_dir / "manifest.json").read_text())
        digests = [layer["digest"] for layer in manifest["layers"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnpackError(f"the image's manifest is not usable: {error}") from error
    files = []
    for digest in digests:
        name = str(digest).partition(":")[2]
        if not name.isalnum() or not (image_dir / name).is_file():
            raise UnpackError(f"the image's layer {digest} is missing")
        files.append(image_dir / name)
    return files


@contextlib.contextmanager
def _tar_stream(path: Path) -> Iterator[IO[bytes]]:
    with open(path, "rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with gzip.open(file) as stream:
                yield stream  # type: ignore[misc]
        elif magic == b"\x28\xb5\x2f\xfd":
            program = shutil.which("zstd")
            if program is None:
                raise UnpackError("the image's layers are compressed with zstd: install the program zstd")
            with subprocess.Popen([program, "-dcq"], stdin=file, stdout=subprocess.PIPE) as process:
                try:
                    if process.stdout is not None:
                        yield process.stdout
                finally:
                    process.kill()
        else:
            yield file


def unpack(image_dir: Path, target: Path, max_bytes: int, max_entries: int) -> None:
    """Unpack an image's layers in order into target, an empty directory, durably.

    :raises UnpackError: the image is not acceptable.
    """
    budget = Budget(max_bytes, max_entries)
    root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for layer in layer_files(image_dir):
            try:
                with _tar_stream(layer) as stream:
                    _unpack_layer(root, io.BufferedReader(_Counted(stream, budget), _CHUNK), budget)
            except (tarfile.TarError, EOFError, gzip.BadGzipFile, MemoryError) as error:
                raise UnpackError(f"the image's layer {layer.name[:12]} is damaged: {error}") from error
            except OSError as error:
                raise UnpackError(f"the image's layer {layer.name[:12]} can't be unpacked: {error}") from error
    finally:
        os.close(root)
    # One by one would take minutes for an image of many files
    folder = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sc.syncfs(folder)
    finally:
        os.close(folder)


def _unpack_layer(root: int, stream: IO[bytes], budget: Budget) -> None:
    directories: list[tuple[str, tarfile.TarInfo]] = []
    own: set[str] = set()
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            budget.entry()
            name = os.path.normpath("/" + member.name).lstrip("/")
            parent, base = os.path.split(name)
            if not base:
                continue
            if base.startswith(".wh."):
                _whiteout(root, parent, base, own)
                continue
            folder = _directory(root, parent)
            try:
                _member(root, folder, base, member, archive)
            finally:
                os.close(folder)
            above = name
            while above and above not in own:
                own.add(above)
                above = os.path.split(above)[0]
            if member.isdir():
                directories.append((name, member))
    # Last, because a directory's own mode may forbid writing into it.
    for name, member in reversed(directories):
        with contextlib.suppress(OSError):
            fd = sc.openat2(root, name, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fchown(fd, member.uid, member.gid)
                os.fchmod(fd, member.mode & 0o777)
            finally:
                os.close(fd)


def _directory(root: int, path: str) -> int:
    """Open a directory below root, making what is missing."""
    try:
        return sc.openat2(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        parent, base = os.path.split(path)
        folder = _directory(root, parent)
        try:
            os.mkdir(base, 0o755, dir_fd=folder)
        finally:
            os.close(folder)
        return sc.openat2(root, path, os.O_RDONLY | os.O_DIRECTORY)


def _member(root: int, folder: int, base: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    if member.isdir():
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(base, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(base, dir_fd=folder)
        with contextlib.suppress(FileExistsError):
            os.mkdir(base, 0o700, dir_fd=folder)
    elif member.issym():
        _remove(folder, base)
        os.symlink(member.linkname, base, dir_fd=folder)
        os.chown(base, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
    elif member.islnk():
        target_parent, target = os.path.split(os.path.normpath("/" + member.linkname).lstrip("/"))
        source = sc.openat2(root, target_parent, os.O_PATH | os.O_DIRECTORY)
        try:
            if not stat.S_ISREG(os.stat(target, dir_fd=source, follow_symlinks=False).st_mode):
                raise UnpackError(f"the image's hard link {member.name} is not one of a file")
            temporary = f".link.{os.urandom(6).hex()}"
            os.link(target, temporary, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
            _remove(folder, base)
            os.rename(temporary, base, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.close(source)
    elif member.isfile():
        _remove(folder, base)
        fd = os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            content = archive.extractfile(member)
            if content is not None:
                _copy(content, fd)
            os.ftruncate(fd, member.size)
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o777)
        finally:
            os.close(fd)


def _copy(source: IO[bytes], fd: int) -> None:
    while data := source.read(_CHUNK):
        for start in range(0, len(data), _HOLE):
            piece = data[start : start + _HOLE]
            if piece == _ZEROS[: len(piece)]:
                os.lseek(fd, len(piece), os.SEEK_CUR)
            else:
                while piece:
                    # On a disk that gets full a write may take a part only.
                    piece = piece[os.write(fd, piece) :]


def _whiteout(root: int, parent: str, base: str, own: set[str]) -> None:
    """Remove what a lower layer had; a layer's whiteouts do not touch its own files.

    :param own: what the layer itself brought so far, with all directories above.
    """
    try:
        folder = sc.openat2(root, parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        names = os.listdir(folder) if base == ".wh..wh..opq" else [base.removeprefix(".wh.")]  # noqa: PTH208
        for name in names:
            path = f"{parent}/{name}".lstrip("/")
            if name in ("", ".", "..") or path in own:
                continue
            _remove(folder, name)
    finally:
        os.close(folder)


def _remove(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=folder)


def main(argv: list[str] | None = None) -> int:
    """Unpack as the arguments say; an error is one line on standard error and exit code 1."""
    image_dir, target, max_bytes, max_entries = sys.argv[1:] if argv is None else argv
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    free = shutil.disk_usage(target).free - _RESERVE
    try:
        limit = min(int(max_bytes), free)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(max_bytes), int(max_bytes)))
        if limit <= 0:
            raise UnpackError("the disk with the images is full")
        os.umask(0)
        unpack(Path(image_dir), Path(target), limit, int(max_entries))
    except UnpackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
