# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports onto claims, and into scratch space, that have less room than they should."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from file_server import FileServer

from turtles.importer import clone, http, registry
from turtles.importer.errors import ImportFailed, ImportRefused
from turtles.importer.folder import Folder
from turtles.importer.progress import Progress
from turtles.importer.request import Request
from turtles.importer.target import Target

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root"),
    pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img"),
]
MIB = 1 << 20
DISK = os.urandom(6 * MIB)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def qcow2(tmp_path: Path) -> bytes:
    (tmp_path / "raw").write_bytes(DISK)
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", tmp_path / "raw", tmp_path / "qcow2"]
    subprocess.run(command, check=True)
    return (tmp_path / "qcow2").read_bytes()


def raw(server: FileServer, target: Path, other: Path) -> None:
    server.files["/a"] = DISK
    http.run(http.Job(Request(f"{server.url}/a"), Target(target, 8 * MIB)), Progress("uid"))


def converted(server: FileServer, target: Path, other: Path) -> None:
    http.run(http.Job(Request(f"{server.url}/qcow2"), Target(target, 8 * MIB), scratch=other), Progress("uid"))


def stored(server: FileServer, target: Path, other: Path) -> None:
    http.run(http.Job(Request(f"{server.url}/qcow2"), Target(other, 8 * MIB), scratch=target), Progress("uid"))


def files(server: FileServer, target: Path, other: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        info = tarfile.TarInfo("a")
        info.size = len(DISK)
        archive.addfile(info, io.BytesIO(DISK))
    server.files["/a"] = made.getvalue()
    job = http.Job(Request(f"{server.url}/a"), Target(target, 8 * MIB), folder=Folder(target, 8 * MIB))
    http.run(job, Progress("uid"))


def mounted(server: FileServer, target: Path, other: Path) -> None:
    (other / "disk").mkdir()
    (other / "disk/a").write_bytes(server.files["/qcow2"])
    try:
        registry.run(other, "web:1", Target(target, 8 * MIB), Progress("uid"))
    finally:
        shutil.rmtree(other / "disk")


def copied(server: FileServer, target: Path, other: Path) -> None:
    (other / "disk.img").write_bytes(DISK)
    try:
        clone.run(other, Target(target, 8 * MIB), Progress("uid"))
    finally:
        (other / "disk.img").unlink()


@pytest.mark.parametrize("way", [raw, converted, stored, files, mounted, copied])
def test_there_is_no_disk_where_there_is_no_room(
    server: FileServer, small: Path, tmp_path: Path, qcow2: bytes, way: Callable[..., None]
) -> None:
    server.files["/qcow2"] = qcow2
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ImportFailed, match=r"(?i)no space left") as error:
        way(server, small, other)
    # There may be room later
    assert not isinstance(error.value, ImportRefused)
    assert list(small.iterdir()) == []
    # What has been stored can be converted later
    assert [path.name for path in other.iterdir()] == (["image"] if way is converted else [])
