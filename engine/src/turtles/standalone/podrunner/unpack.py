# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpack the layers of an untrusted container image into a directory.

Run as a process of its own with limits on memory and file size::

    python -m turtles.standalone.podrunner.unpack IMAGE_DIR TARGET MAX_BYTES MAX_APPARENT_BYTES MAX_ENTRIES

IMAGE_DIR is what skopeo's ``dir:`` transport wrote. Every path is opened with openat2(2), RESOLVE_IN_ROOT: no ``..``,
no absolute or symbolic link in an archive leads out of TARGET. Devices, sockets and FIFOs are left out, set-id bits
are taken off, though not the sticky bit of folders like /tmp, extended attributes are not set, blocks of zeros become
holes. Layers and whiteouts: OCI image specification, "Image Layer Filesystem Changeset".

MAX_BYTES is what comes out of the layers, decompressed. Sparse members (GNU's formats, old and in PAX headers) make
files larger than that without taking any room: their holes are seeked over, and the sum of the files' sizes is held to
MAX_APPARENT_BYTES before any of a file is written.
"""

import contextlib
import gzip
import os
import resource
import shutil
import stat
import sys
import tarfile
import zlib
from pathlib import Path
from typing import IO, Any

from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.layers import CHUNK, layer_files, opened
from turtles.standalone.podrunner.unpack_budget import Budget, UnpackError

_HOLE = 1 << 16
_ZEROS = bytes(_HOLE)
_MEMORY = 1 << 30
#: What stays free on the disk with the images.
RESERVE = 256 << 20
_MAX_PATH = 4096
#: Folders in one another. More than programs that go through a tree can be asked to follow.
_MAX_DEPTH = 128
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
                with opened(layer, budget) as stream:
                    _unpack_layer(root, stream, budget)
            except _DAMAGED as error:
                text = str(error) or type(error).__name__
                raise UnpackError(f"the image's layer {layer.name[:12]} is corrupt: {text[:500]}") from error
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
        data = source.read(min(size, CHUNK))
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
