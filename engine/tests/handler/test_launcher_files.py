# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node agent reads and writes in the files of a launcher's Pod."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from turtles.domain import paths
from turtles.handler import capability_cache
from turtles.handler.launcher import Launcher
from turtles.handler.watcher import Watcher

pytestmark = pytest.mark.root


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    uid = str(uuid.uuid4())
    (tmp_path / uid / "volumes/kubernetes.io~empty-dir/private").mkdir(parents=True)
    found = Launcher(str(tmp_path), uid, Watcher(), lambda: None, lambda detail: None)
    (tmp_path / "root/dev").mkdir(parents=True)
    # In place of a process's folder in /proc, which has its root under this name.
    found.process.hold(os.open(tmp_path, os.O_RDONLY))
    yield found
    found.close()


@pytest.fixture
def private(launcher: Launcher, tmp_path: Path) -> Path:
    return tmp_path / launcher.pod_uid / "volumes/kubernetes.io~empty-dir/private"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache/emulation" / paths.CAPABILITY_CACHE
    folder.mkdir(parents=True)
    (folder / "a.xml").write_text("known")
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("file", "text", "reached"),
    [
        ("memory.events", "low 0\noom 1\noom_kill 1\n", True),
        ("memory.events", "low 0\noom 0\noom_kill 0\n", False),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", True),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", False),
        (None, "", False),
    ],
)
def test_memory_limit(launcher: Launcher, tmp_path: Path, file: str | None, text: str, reached: bool) -> None:
    if file:
        path = tmp_path / "root/sys/fs/cgroup" / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert launcher.files.reached_memory_limit() is reached


def test_what_is_known_about_qemu_is_brought_once(launcher: Launcher, private: Path, cache: Path) -> None:
    capability_cache.bring(cache, launcher.files, kvm=launcher.devices.has_kvm())
    brought = private / "libvirt/cache" / paths.CAPABILITY_CACHE / "a.xml"
    assert brought.read_text() == "known"
    assert (brought.stat().st_uid, brought.parent.stat().st_uid) == (107, 107)
    brought.write_text("libvirt's own")
    capability_cache.bring(cache, launcher.files, kvm=launcher.devices.has_kvm())
    assert brought.read_text() == "libvirt's own"


def test_a_link_in_the_pod_is_not_followed(launcher: Launcher, private: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (private / "libvirt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Not a directory"):
        capability_cache.bring(cache, launcher.files, kvm=launcher.devices.has_kvm())
    assert not list((tmp_path / "elsewhere").iterdir())


def test_another_kind_of_node_brings_nothing(launcher: Launcher, private: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "root/dev/kvm").touch()
    capability_cache.bring(cache, launcher.files, kvm=launcher.devices.has_kvm())
    assert not list(private.iterdir())


def test_devices_of_the_pod_become_qemu_s(launcher: Launcher, tmp_path: Path) -> None:
    (tmp_path / "root/dev/net").mkdir()
    for name, kind, number in (
        ("kvm", 0o020600, (10, 232)),
        ("net/tun", 0o020600, (10, 200)),
        ("vhost-net", 0o020600, (1, 1)),  # the machine's memory under another name
        ("data", 0o060600, (7, 0)),
        ("other", 0o060600, (7, 0)),
    ):
        os.mknod(tmp_path / "root/dev" / name, kind, os.makedev(*number))
    launcher.devices.own(["data", "missing"])
    owners = {path.name: path.stat().st_uid for path in (tmp_path / "root/dev").rglob("*") if not path.is_dir()}
    assert owners == {"kvm": 107, "tun": 107, "data": 107, "vhost-net": 0, "other": 0}


def test_links_in_the_pod_lead_nowhere_else(launcher: Launcher, tmp_path: Path) -> None:
    node, root = tmp_path / "node", tmp_path / "root"
    (node / "fs/cgroup").mkdir(parents=True)
    (node / "fs/cgroup/memory.events").write_text("oom_kill 1\n")
    (node / "disk.img").write_bytes(bytes(4096))
    os.mknod(node / "kvm", 0o020600, os.makedev(10, 232))
    (root / "dev").rmdir()
    for name in ("dev", "sys", "disks"):
        (root / name).symlink_to(node)
    launcher.devices.own(["kvm"])
    assert (node / "kvm").stat().st_uid == 0
    assert not launcher.devices.has_kvm()
    assert not launcher.files.reached_memory_limit()
    assert not launcher.disks.bypasses_page_cache(PurePosixPath("/disks/disk.img"))


def test_links_that_stay_in_the_pod_are_followed(launcher: Launcher, tmp_path: Path) -> None:
    (tmp_path / "root/dev").rename(tmp_path / "root/devices")
    (tmp_path / "root/dev").symlink_to("/devices")
    (tmp_path / "root/devices/kvm").touch()
    assert launcher.devices.has_kvm()


def test_a_pipe_in_place_of_a_disk_is_not_waited_for(launcher: Launcher, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "root/disk.img")
    assert not launcher.disks.bypasses_page_cache(PurePosixPath("/disk.img"))


def test_a_launcher_that_was_never_met(tmp_path: Path) -> None:
    stranger = Launcher(str(tmp_path), str(uuid.uuid4()), Watcher(), lambda: None, lambda detail: None)
    stranger.devices.own()
    assert not stranger.devices.has_kvm()
    assert not stranger.files.reached_memory_limit()
