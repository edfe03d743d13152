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

    def open_container_disk(self, volume: dict[str, Any]) -> int:
        self.opened.append(volume["name"])
        return os.open(self.folder / volume["name"], os.O_RDONLY)


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    (tmp_path / "disk").write_bytes(b"x" * 3_000_000)
    return Launcher(tmp_path)


def test_computed_once(launcher: Any) -> None:
    found, answered = Checksums(), threading.Event()
    assert found.of(VMI) == {}
    found.compute(VMI, launcher, answered.set)
    assert answered.wait(10)
    assert found.of(VMI) == {"disk": zlib.crc32(b"x" * 3_000_000)}
    found.compute(VMI, launcher, answered.set)
    assert launcher.opened == ["disk", "gone"]
    found.forget("a")
    assert found.of(VMI) == {}


def test_too_large(launcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "_LIMIT", 1000)
    found, answered = Checksums(), threading.Event()
    found.compute(VMI, launcher, answered.set)
    assert not answered.wait(0.5)
    assert found.of(VMI) == {}


def test_not_wanted_any_more(launcher: Any) -> None:
    found, answered, go = Checksums(), threading.Event(), threading.Event()
    found._pool.submit(go.wait, 10)
    found.compute(VMI, launcher, answered.set)
    found.forget("a")
    go.set()
    assert not answered.wait(0.5)
