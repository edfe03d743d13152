# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk files that only root can make ready."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from turtles.api.guests import QEMU_UID
from turtles.domain import paths
from turtles.handler import disk_files
from turtles.handler.errors import GuestEnded
from turtles.handler.launcher import Launcher
from turtles.handler.watcher import Watcher

DISK = {"type": "Disk"}
CREATE = {"type": "DiskOrCreate", "capacity": "3500Ki"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.root
def test_created_once(tmp_path: Path, folder: int) -> None:
    disk_files.own_host_disk(folder, "disk.img", CREATE)
    disk = tmp_path / "disk.img"
    assert disk.stat().st_size == 3 * 2**20
    assert disk.stat().st_uid == QEMU_UID
    disk.write_bytes(b"kept")
    disk_files.own_host_disk(folder, "disk.img", CREATE)
    assert disk.read_bytes() == b"kept"


@pytest.mark.root
def test_given_to_qemu(tmp_path: Path, folder: int) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"x")
    disk_files.own_host_disk(folder, "disk.img", DISK)
    assert (disk.stat().st_uid, disk.stat().st_gid) == (QEMU_UID, QEMU_UID)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (DISK, "No such file"),
        ({"type": "DiskOrCreate"}, "can't be created: it needs a capacity"),
        ({"type": "DiskOrCreate", "capacity": "1Ei"}, "MiB are free"),
    ],
)
def test_not_created(folder: int, tmp_path: Path, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises((OSError, ValueError), match=message):
        disk_files.own_host_disk(folder, "disk.img", wanted)
    assert list(tmp_path.iterdir()) == []


def test_links_and_folders_are_no_disks(tmp_path: Path, folder: int) -> None:
    (tmp_path / "target").write_text("root's")
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")
    before = (tmp_path / "target").stat()
    for name in ("link", "pipe"):
        with pytest.raises((OSError, ValueError)):
            disk_files.own_host_disk(folder, name, CREATE)
    assert (tmp_path / "target").stat() == before


def test_blocks_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    with (tmp_path / "disk.img").open("rb") as file:
        size = os.statvfs(tmp_path).f_bsize
        assert disk_files.block_sizes(file.fileno()) == (size, size)


def test_room(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(2**20))
    system = os.statvfs(tmp_path)
    with (tmp_path / "disk.img").open("rb") as file:
        assert 2**20 <= disk_files.room(file.fileno()) <= system.f_blocks * system.f_frsize


def test_sizes_that_qemu_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    real = os.fstatvfs
    monkeypatch.setattr(os, "fstatvfs", lambda fd: os.statvfs_result((3000, *tuple(real(fd))[1:])))
    with (tmp_path / "disk.img").open("rb") as file:
        assert disk_files.block_sizes(file.fileno()) is None


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    found = Launcher(str(tmp_path), "uid", Watcher(), lambda: None, lambda detail: None)
    (tmp_path / "root").mkdir()
    # In place of a process's folder in /proc, which has its root under this name.
    found.process.hold(os.open(tmp_path, os.O_RDONLY))
    yield found
    found.close()


@pytest.mark.root
def test_in_the_pod(launcher: Launcher, tmp_path: Path) -> None:
    volume = {"name": "host", "hostDisk": {"path": "/srv/a.img", "type": "DiskOrCreate", "capacity": "1Mi"}}
    with pytest.raises(GuestEnded, match=r"volume 'host': hostDisk /srv/a\.img: No such file or directory"):
        launcher.disks.own_host_disk(volume)
    folder = tmp_path / "root" / paths.claim_dir("host").relative_to("/")
    folder.mkdir(parents=True)
    launcher.disks.own_host_disk(volume)
    assert (folder / "a.img").stat().st_uid == QEMU_UID
    assert launcher.disks.room(paths.host_disk(volume)) > 0
    sizes = launcher.disks.block_sizes(paths.host_disk(volume))
    assert sizes is not None
    assert launcher.disks.block_sizes(paths.claim_disk("other")) is None


def test_container_disk(launcher: Launcher, tmp_path: Path) -> None:
    volume: dict[str, Any] = {"name": "disk", "containerDisk": {"image": "image"}}
    folder = tmp_path / "root" / paths.container_disk_image_dir("disk").relative_to("/") / "disk"
    folder.mkdir(parents=True)
    with pytest.raises(OSError, match="not exactly one file"):
        launcher.disks.open_container_disk(volume)
    (folder / "a.qcow2").write_bytes(b"a")
    with open(launcher.disks.open_container_disk(volume), "rb") as file:
        assert file.read() == b"a"
    (folder / "b").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="not exactly one file"):
        launcher.disks.open_container_disk(volume)
    volume["containerDisk"]["path"] = "/disk/b"
    with pytest.raises(OSError, match="disk"):
        launcher.disks.open_container_disk(volume)
    volume["containerDisk"]["path"] = "/disk/a.qcow2"
    os.close(launcher.disks.open_container_disk(volume))
