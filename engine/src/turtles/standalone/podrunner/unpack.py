# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpack the layers of an untrusted container image into a directory.

Run as a process of its own with limits on memory and file size::

    python -m turtles.standalone.podrunner.unpack IMAGE_DIR TARGET MAX_BYTES MAX_APPARENT_BYTES MAX_ENTRIES

IMAGE_DIR is what skopeo's ``dir:`` transport wrote. Every path is opened with openat2(2), RESOLVE_IN_ROOT: no ``..``,
no absolute or symbolic link in an archive leads out of TARGET. Devices, sockets and FIFOs are left out, set-id bits
are taken off, though not the sticky bit of folders like /tmp, extended attributes are not set, blocks of zeros become
holes. Layers and whiteouts: OCI image specification, "Image Layer Filesystem Changeset".

Two sizes are limited. MAX_BYTES is what comes out of the layers, decompressed: what is written, and the work. Sparse
members (GNU's formats, old and in PAX headers) make files larger than that without taking any room: their holes are
seeked over, and the sum of the files' sizes is held to MAX_APPARENT_BYTES before any of a file is written.
"""

import contextlib
import gzip
import io
import os
import resource
import shutil
import stat
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.image_manifest import Index, ManifestError, parse

_CHUNK = 1 << 20
_HOLE = 1 << 16
_ZEROS = bytes(_HOLE)
_MEMORY = 1 << 30
#: What stays free on the disk with the images.
RESERVE = 256 << 20
#: Of a PAX header or a long name, which tarfile takes into memory. A sparse file's map may be in it.
_MAX_EXTENSION = 4 << 20
#: Of headers in front of one member: long name, long link name, PAX, and as much again to be generous.
_MAX_EXTENSIONS = 8
#: Of a PAX header for all members that follow, and of those in one layer: each member is gone through with all of them.
_MAX_GLOBAL, _MAX_GLOBALS = 64 << 10, 16
_MAX_PATH = 4096
#: Folders in one another. More than programs that go through a tree can be asked to follow.
_MAX_DEPTH = 128
#: How often an archive may be read beyond its end; tarfile does a few times.
_MAX_EMPTY_READS = 64
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
#: What tarfile and the decompressors raise for archives that are none.
_DAMAGED = (
    tarfile.TarError,
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    MemoryError,
    RecursionError,
    ValueError,
    OverflowError,
    LookupError,
    TypeError,
)


class UnpackError(Exception):
    """The image is not acceptable; the message says why."""


class Budget:
    """What unpacking an image may still use.

    :param max_bytes: what may come out of the layers.
    :param max_apparent: what the files' sizes may add up to.
    :param room: bytes that are free, if these are fewer than ``max_bytes``.
    """

    def __init__(self, max_bytes: int, max_entries: int, max_apparent: int = 1 << 62, room: int | None = None) -> None:
        self.max_bytes, self.max_entries, self.max_apparent = max_bytes, max_entries, max_apparent
        self._limit = max_bytes if room is None else min(max_bytes, room)
        self._bytes, self._entries, self._apparent = 0, 0, 0
        self._extensions, self._globals = 0, 0
        #: How deep the directory is that all goes into.
        self.base = 0

    def layer(self) -> None:
        """Start another layer."""
        self._extensions, self._globals = 0, 0

    def header(self, info: tarfile.TarInfo) -> None:
        """Count an archive's header before anything that it announces is read."""
        if info.type == tarfile.XGLTYPE:
            self._globals += 1
            if self._globals > _MAX_GLOBALS or not 0 <= info.size <= _MAX_GLOBAL:
                raise UnpackError(
                    f"a layer has PAX headers for all files that are too many or too large ({info.size} bytes); at "
                    f"most {_MAX_GLOBALS} of {_MAX_GLOBAL} bytes are accepted"
                )
        elif info.type in _EXTENSIONS:
            self._extensions += 1
            if self._extensions > _MAX_EXTENSIONS or not 0 <= info.size <= _MAX_EXTENSION:
                raise UnpackError(
                    f"a file's PAX headers or names are too many or too large ({info.size} bytes); at most "
                    f"{_MAX_EXTENSIONS} of {_MAX_EXTENSION >> 20} MiB are accepted"
                )
        else:
            self._extensions = 0
            self.entry()

    def entry(self) -> None:
        """Count a file or directory, before it is created."""
        self._entries += 1
        if self._entries > self.max_entries:
            raise UnpackError(f"the image has more than {self.max_entries} files")

    def data(self, count: int) -> None:
        """Count bytes that come out of an archive."""
        self._bytes += count
        if self._bytes > self._limit:
            raise UnpackError(f"the image unpacks to more than {self._limit_text}")

    @property
    def _limit_text(self) -> str:
        return f"{self._limit >> 20} MiB" + (", all the disk has room for" if self._limit < self.max_bytes else "")

    def file(self, name: str, size: int, sparse: bool) -> None:
        """Count a file's size, holes included, before it is created."""
        if size < 0:
            raise UnpackError(f"the image's file {name[:200]} has a negative size")
        if not sparse and size > self._limit:
            raise UnpackError(
                f"the image unpacks to more than {self._limit_text}: its file {name[:200]} has {size >> 20} MiB"
            )
        self._apparent += size
        if self._apparent > self.max_apparent:
            raise UnpackError(
                f"with the image's file {name[:200]} ({size >> 20} MiB, holes included) its files are "
                f"{self._apparent >> 20} MiB large; at most {self.max_apparent >> 20} MiB are accepted"
            )


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


def layer_files(image_dir: Path) -> list[Path]:
    """Return the layers of an image in a ``dir:`` directory, lowest first.

    :raises UnpackError: the manifest is not one of a single image, or a layer is missing.
    """
    try:
        with open(image_dir / "manifest.json", "rb") as file:
            manifest = parse(file.read(_CHUNK * 8))
    except (OSError, ManifestError) as error:
        raise UnpackError(str(error)) from error
    if isinstance(manifest, Index):
        raise UnpackError("the image's manifest is an index of several images")
    files = [image_dir / layer.digest.partition(":")[2] for layer in manifest.layers]
    for path in files:
        if not path.is_file():
            raise UnpackError(f"the image's layer {path.name} is missing")
    return files


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


def unpack(image_dir: Path, target: Path, budget: Budget) -> None:
    """Unpack an image's layers in order into target, an empty directory, durably.

    :raises UnpackError: the image is not acceptable.
    """
    root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    budget.base = _depth(root)
    try:
        for layer in layer_files(image_dir):
            budget.layer()
            try:
                with _tar_stream(layer) as (stream, finish):
                    _unpack_layer(root, io.BufferedReader(_Counted(stream, budget, finish), _CHUNK), budget)
            except _DAMAGED as error:
                text = str(error) or type(error).__name__
                raise UnpackError(f"the image's layer {layer.name[:12]} is damaged: {text[:500]}") from error
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


def _header_class(budget: Budget) -> type[tarfile.TarInfo]:
    """Return a class of headers that checks them before tarfile acts on them."""

    class Header(tarfile.TarInfo):
        # "The entry point is _proc_member() which can be overridden in a subclass" (tarfile.py)
        def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
            budget.header(self)
            return super()._proc_member(archive)  # type: ignore[misc, no-any-return]

    return Header


def _unpack_layer(root: int, stream: IO[bytes], budget: Budget) -> None:
    directories: list[tuple[str, int, int, int]] = []
    own: set[str] = set()
    opaque: set[tuple[int, int]] = set()
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_header_class(budget)) as archive:
        while (member := archive.next()) is not None:
            # tarfile keeps all that it has read
            archive.members.clear()  # type: ignore[attr-defined]
            name = os.path.normpath("/" + member.name).lstrip("/")
            if len(os.fsencode(member.name)) > _MAX_PATH or name.count("/") >= _MAX_DEPTH:
                raise UnpackError(
                    f"the image's file {name[:100]}… has a path that is too long or too deep; at most {_MAX_PATH} "
                    f"bytes and {_MAX_DEPTH} folders are accepted"
                )
            parent, base = os.path.split(name)
            if not base:
                continue
            if base.startswith(".wh."):
                _whiteout(root, parent, base, own, opaque)
                continue
            folder = _directory(root, parent, budget)
            try:
                _member(root, folder, base, member, archive, budget)
            finally:
                os.close(folder)
            above = name
            while above and above not in own:
                own.add(above)
                above = os.path.split(above)[0]
            if member.isdir():
                directories.append((name, member.uid, member.gid, member.mode))
    # Last, because a directory's own mode may forbid writing into it.
    for name, uid, gid, mode in reversed(directories):
        with contextlib.suppress(OSError):
            fd = sc.openat2(root, name, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fchown(fd, uid, gid)
                os.fchmod(fd, mode & 0o1777)
            finally:
                os.close(fd)


def _directory(root: int, path: str, budget: Budget) -> int:
    """Open a directory below root, making what is missing."""
    try:
        folder = sc.openat2(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        parent, base = os.path.split(path)
        above = _directory(root, parent, budget)
        try:
            budget.entry()
            os.mkdir(base, 0o755, dir_fd=above)
        finally:
            os.close(above)
        return sc.openat2(root, path, os.O_RDONLY | os.O_DIRECTORY)
    # By way of symbolic links a path is deeper than it looks.
    if _depth(folder) - budget.base > _MAX_DEPTH:
        os.close(folder)
        raise UnpackError(f"the image's folder {path[:100]} is too deep; at most {_MAX_DEPTH} folders are accepted")
    return folder


def _depth(fd: int) -> int:
    return os.readlink(f"/proc/self/fd/{fd}").count("/")  # noqa: PTH115


def _member(
    root: int, folder: int, base: str, member: tarfile.TarInfo, archive: tarfile.TarFile, budget: Budget
) -> None:
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
        budget.file(member.name, member.size, member.sparse is not None)
        _remove(folder, base)
        fd = os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            # The archive is read as a stream, which is where the member's data begins: that of all extents in a row.
            content: Any = archive.fileobj
            content.seek(member.offset_data)
            for offset, size in _extents(member):
                os.lseek(fd, offset, os.SEEK_SET)
                _copy(content, fd, size)
            os.ftruncate(fd, member.size)
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o777)
        finally:
            os.close(fd)


def _extents(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Return where a file has data, as (offset, size), in order."""
    extents: Any = member.sparse
    if extents is None:
        return [(0, member.size)]
    end = 0
    for offset, size in extents:
        if offset < end or size < 0 or offset + size > member.size:
            raise UnpackError(f"the image's sparse file {member.name[:200]} has a map that doesn't fit its size")
        end = offset + size
    return list(extents)


def _copy(source: IO[bytes], fd: int, size: int) -> None:
    while size:
        data = source.read(min(size, _CHUNK))
        if not data:
            raise tarfile.ReadError("unexpected end of data")
        size -= len(data)
        for start in range(0, len(data), _HOLE):
            piece = data[start : start + _HOLE]
            if piece == _ZEROS[: len(piece)]:
                os.lseek(fd, len(piece), os.SEEK_CUR)
            else:
                while piece:
                    # On a disk that gets full a write may take a part only.
                    piece = piece[os.write(fd, piece) :]


def _whiteout(root: int, parent: str, base: str, own: set[str], opaque: set[tuple[int, int]]) -> None:
    """Remove what a lower layer had; a layer's whiteouts do not touch its own files.

    :param own: what the layer itself brought so far, with all directories above.
    :param opaque: directories (device, inode) that the layer has emptied already.
    """
    try:
        folder = sc.openat2(root, parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        names = [base.removeprefix(".wh.")]
        if base == ".wh..wh..opq":
            status = os.fstat(folder)
            if (status.st_dev, status.st_ino) in opaque:
                return
            opaque.add((status.st_dev, status.st_ino))
            names = os.listdir(folder)  # noqa: PTH208
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
    image_dir, target, max_bytes, max_apparent, max_entries = sys.argv[1:] if argv is None else argv
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    room = shutil.disk_usage(target).free - RESERVE
    try:
        if room <= 0:
            raise UnpackError("the disk with the images is full")
        os.umask(0)
        unpack(Path(image_dir), Path(target), Budget(int(max_bytes), int(max_entries), int(max_apparent), room))
    except UnpackError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
