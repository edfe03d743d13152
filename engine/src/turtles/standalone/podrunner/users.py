# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom an image's user names: looked up in the files of the image, which is untrusted input.

Rules: OCI image specification, "User": user, uid, user:group, uid:gid, uid:group or user:gid.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from turtles.standalone.podrunner import syscalls as sc

#: Bytes of /etc/passwd and /etc/group that are read.
_MAX_FILE = 1 << 20
_MAX_ID = (1 << 31) - 1


class UserError(Exception):
    """There is no such user or group; the message names it."""


@dataclass(frozen=True)
class User:
    """Identity of a process; ``groups`` are the further ones of the user in /etc/group."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def lookup(content: Path, wanted: str) -> User:
    """Return the user that an image's USER means.

    :param content: directory with the image's files.
    :raises UserError: there is no such user or group.
    """
    name, _, group = wanted.partition(":")
    entries = list(_entries(content, "etc/passwd", 7))
    by_id = _number(name or "0")
    entry = next((one for one in entries if (one[0] == name if by_id is None else one[2] == str(by_id))), None)
    if entry is None and by_id is None:
        raise UserError(f"no user {name!r} in the image's /etc/passwd")
    uid = by_id if by_id is not None else _id(entry[2] if entry else "")
    own = entry[0] if entry is not None else ""
    groups = list(_entries(content, "etc/group", 4))
    gid = _group(groups, group) if group else _id(entry[3]) if entry is not None else 0
    further = [_id(one[2]) for one in groups if own and own in one[3].split(",")]
    return User(uid, gid, tuple(sorted({*further} - {gid})), (entry[5] if entry is not None else "") or "/")


def is_number(wanted: str) -> bool:
    """Say whether an image's USER names its user by number."""
    return _number(wanted.partition(":")[0] or "0") is not None


def _group(groups: list[list[str]], name: str) -> int:
    number = _number(name)
    if number is not None:
        return number
    for entry in groups:
        if entry[0] == name:
            return _id(entry[2])
    raise UserError(f"no group {name!r} in the image's /etc/group")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= _MAX_ID else None


def _id(text: str) -> int:
    number = _number(text)
    if number is None:
        raise UserError(f"the image's /etc/passwd or /etc/group has {text[:40]!r} as a number")
    return number


def _entries(content: Path, path: str, fields: int) -> Iterator[list[str]]:
    """Yield the lines of a file of an image, split into fields; nothing if there is no such file."""
    for line in _read(content, path).splitlines():
        parts = line.split(":")
        if len(parts) >= fields:
            yield parts


def _read(content: Path, path: str) -> str:
    root = os.open(content, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            # Within the image, whatever links there say; neither FIFOs nor devices, which could block.
            fd = sc.openat2(root, path, os.O_RDONLY | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    return file.read(_MAX_FILE).decode(errors="replace")
        return ""
    finally:
        os.close(root)
