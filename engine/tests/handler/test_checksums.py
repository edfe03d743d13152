# SPDX-License-Identifier: GPL-3.0-or-later
"""Checksums of container disks."""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest

from turtles.handler import checksums
from turtles.handler.checksums import Checksums
from turtles.handler.guest import Guest
from turtles.handler.state import State, Store

VMI: dict[str, Any] = {
    "metadata": {"uid": "a"},
    "spec": {
        "volumes": [
            {"name": "disk", "containerDisk": {"image": "image"}},
            {"name": "known", "containerDisk": {"image": "image"}},
            {"name": "gone", "containerDisk": {"image": "image"}},
            {"name": "other", "emptyDisk": {"capacity": "1Gi"}},
        ]
    },
    "status": {"volumeStatus": [{"name": "known", "containerDiskVolume": {"checksum": 1}}, {"name": "disk"}]},
}


class Launcher:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[str] = []
        self.disks = self

    def open_container_disk(self, volume: dict[str, Any]) -> int:
        self.opened.append(volume["name"])
        return os.open(self.folder / volume["name"], os.O_RDONLY)


@pytest.fixture
def launcher(tmp_path: Path) -> Any:
    (tmp_path / "disk").write_bytes(b"x" * 3_000_000)
    return Launcher(tmp_path)


@pytest.fixture
def guest(tmp_path: Path, launcher: Any) -> Guest:
    return Guest(("default", "testvm"), "a", Store(tmp_path / "state"), State("pod"), launcher)


def test_computed_once(launcher: Any, guest: Guest) -> None:
    found, answered = Checksums(), threading.Event()
    found.compute(VMI, guest, launcher, answered.set)
    assert answered.wait(60)
    assert guest.checksums == {"disk": zlib.crc32(b"x" * 3_000_000)}
    found.compute(VMI, guest, launcher, answered.set)
    assert launcher.opened == ["disk", "gone"]


def test_too_large(launcher: Any, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "_LIMIT", 1000)
    found, answered = Checksums(), threading.Event()
    found.compute(VMI, guest, launcher, answered.set)
    assert not answered.wait(0.5)
    assert guest.checksums == {}


def test_not_wanted_any_more(launcher: Any, guest: Guest) -> None:
    found, answered, go = Checksums(), threading.Event(), threading.Event()
    found._pool.submit(go.wait, 10)
    found.compute(VMI, guest, launcher, answered.set)
    guest.launcher = None
    go.set()
    assert not answered.wait(0.5)
