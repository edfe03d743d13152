# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from turtles.importer.errors import ImportFailed, ImportRefused
from turtles.importer.restored import run
from turtles.importer.target import Target

MIB = 1 << 20


def test_a_restored_disk_grows(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"kept")
    run(Target(tmp_path, 2 * MIB))
    assert disk.stat().st_size == 2 * MIB
    assert disk.read_bytes()[:5] == b"kept\0"
    run(Target(tmp_path, 2 * MIB))
    with pytest.raises(ImportRefused, match="A larger PVC is required"):
        run(Target(tmp_path, MIB))
    assert disk.stat().st_size == 2 * MIB


def test_what_is_no_disk(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="the restored volume has no disk"):
        run(Target(tmp_path, MIB))
    (tmp_path / "disk.img").mkdir()
    with pytest.raises(ImportFailed, match="be written"):
        run(Target(tmp_path, MIB))
    (tmp_path / "disk.img").rmdir()
    (tmp_path / "disk.img").symlink_to("/etc/hostname")
    with pytest.raises(ImportFailed, match="be written"):
        run(Target(tmp_path, MIB))
