# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an archive on a claim with a file system.

An archive is a stranger's: no member leaves the claim, and none is anything but a file, a folder, or a link that stays
within. Every part of a path is opened without following links.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turtles.importer.archive import Reader
from turtles.importer.errors import ImportRefused

#: Members, folders in one another, and bytes of a name.
_MOST, _DEEPEST, _LONGEST = 1_000_000, 128, 4096
#: What the file system puts there itself.
_OWN = "lost+found"
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    tarfile.LNKTYPE: "a hard link; make the archive with tar --hard-dereference",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


class Folder:
    """Where the files go.

    :param path: where the claim is mounted. :param limit: bytes that they may have together.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self._left = path, limit

    def clear(self) -> None:
        """Remove what an earlier attempt left."""
        for entry in self._path.iterdir():
            if entry.name == _OWN:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def take(self, reader: Reader) -> int:
        """Write the files of an archive, durably; return how many members it has.

        :raises ImportRefused: it isn't acceptable. :raises OSError: it can't be written.
        """
        count = 0
        root = os.open(self._path, _OPEN)
        try:
            for member in reader:
                count += 1
                if count > _MOST:
                    raise ImportRefused(f"the archive has more than {_MOST} members")
                parts = _parts(member)
                if parts:
                    self._write(root, parts, member, reader)
            _sync(root)
        finally:
            os.close(root)
        return count

    def _write(self, root: int, parts: list[str], member: tarfile.TarInfo, reader: Reader) -> None:
        with _parent(root, parts[:-1], member.name) as parent:
            name = parts[-1]
            try:
                if member.isdir():
                    _folder(parent, name, member.mode)
                elif member.issym():
                    os.symlink(_link(member, len(parts) - 1), name, dir_fd=parent)
                else:
                    self._file(parent, name, member, reader)
            except FileExistsError as error:
                raise ImportRefused(f"the archive contains {member.name!r} twice") from error

    def _file(self, parent: int, name: str, member: tarfile.TarInfo, reader: Reader) -> None:
        # Of a sparse file: as it reads, which is what it may grow to
        if member.size < 0:
            raise ImportRefused(f"the archive says that {member.name!r} has {member.size} bytes")
        self._left -= member.size
        if self._left < 0:
            raise ImportRefused("the archive's files are larger than the claim; a larger claim is required")
        descriptor = os.open(name, _NEW, 0o600, dir_fd=parent)
        try:
            for piece in reader.content(member):
                _pour(descriptor, piece)
            os.ftruncate(descriptor, member.size)
            os.fchmod(descriptor, member.mode & 0o777 | stat.S_IRUSR | stat.S_IWUSR)
            with contextlib.suppress(OverflowError):
                os.utime(descriptor, (member.mtime, member.mtime))
        finally:
            os.close(descriptor)


def _parts(member: tarfile.TarInfo) -> list[str]:
    """Return the parts of a member's path; none for the archive's own folder.

    :raises ImportRefused: it leads out of there, or isn't acceptable otherwise.
    """
    name = member.name
    if not (member.isreg() or member.isdir() or member.issym()):
        raise ImportRefused(f"{name!r} of the archive is {_KINDS.get(member.type, 'of an unknown type')}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise ImportRefused(f"{name!r} of the archive points outside it")
    if len(os.fsencode(name)) > _LONGEST or len(parts) > _DEEPEST:
        raise ImportRefused(f"{name[:100]!r}… of the archive is too long, or too deep")
    return parts


def _link(member: tarfile.TarInfo, depth: int) -> str:
    """Return where a symbolic link leads.

    ``..`` is accepted at the beginning only: behind another link it would lead somewhere else than the text says.
    """
    parts = [part for part in member.linkname.split("/") if part not in ("", ".")]
    up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    if member.linkname.startswith("/") or up > depth or ".." in parts[up:]:
        raise ImportRefused(f"{member.name!r} of the archive is a link that points outside it")
    return member.linkname


@contextmanager
def _parent(root: int, parts: list[str], name: str) -> Iterator[int]:
    """Open the folder of a member, which is created if need be."""
    descriptor = os.dup(root)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=descriptor)
            try:
                below = os.open(part, _OPEN, dir_fd=descriptor)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise ImportRefused(f"{name!r} of the archive is in {part!r}, which isn't a directory") from error
                raise
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _folder(parent: int, name: str, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        raise FileExistsError
    os.chmod(name, mode & 0o777 | stat.S_IRWXU, dir_fd=parent)


def _pour(descriptor: int, data: bytes) -> None:
    """Write a piece; one of zeros becomes a hole."""
    if data == bytes(len(data)):
        os.lseek(descriptor, len(data), os.SEEK_CUR)
        return
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(descriptor: int) -> None:
    """Make sure that all of a file system is there, also after a crash: one call for however many files."""
    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
