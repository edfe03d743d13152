# SPDX-License-Identifier: GPL-3.0-or-later
"""What unpacking an untrusted image may use: bytes, files, headers of archives.

Two sizes are limited: what comes out of the layers, decompressed, which is what is written, and the work; and the sum
of the files' sizes with their holes, which sparse members make larger than that without taking any room.
"""

import tarfile

#: Of a PAX header or a long name, which tarfile takes into memory. A sparse file's map may be in it.
_MAX_EXTENSION = 4 << 20
#: Of headers in front of one member: long name, long link name, PAX, and as much again to be generous.
_MAX_EXTENSIONS = 8
#: Of a PAX header for all members that follow, and of those in one layer: each member is gone through with all of them.
_MAX_GLOBAL, _MAX_GLOBALS = 64 << 10, 16
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


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
        return f"{self._limit >> 20} MiB" + (", all that fits on the disk" if self._limit < self.max_bytes else "")

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
