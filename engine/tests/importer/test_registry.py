# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of container images."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from turtles.importer import registry
from turtles.importer.errors import ImportRefused
from turtles.importer.progress import Progress
from turtles.importer.target import Target

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
MIB = 1 << 20


def run(folder: Path, size: int = 8 * MIB) -> bytes:
    claim = folder / "claim"
    claim.mkdir(exist_ok=True)
    try:
        registry.run(folder / "image", "web:1", Target(claim, size), Progress("uid"))
    finally:
        assert [path.name for path in claim.iterdir()] in ([], ["disk.img"])
    return (claim / "disk.img").read_bytes()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "image/disk"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_the_disk_of_an_image(tmp_path: Path, image: Path, format_: str) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"x" * 5 * MIB)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", format_, raw, image / "a"], check=True)
    assert run(tmp_path) == b"x" * 5 * MIB + bytes(3 * MIB)


def test_an_image_without_a_disk(tmp_path: Path, image: Path) -> None:
    with pytest.raises(ImportRefused, match="image web:1 is not a containerDisk"):
        run(tmp_path)


def test_a_disk_that_is_too_large(tmp_path: Path, image: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image / "a", "1T"], check=True)
    with pytest.raises(ImportRefused, match="larger than the reported available storage"):
        run(tmp_path)


def test_a_disk_that_refers_to_another_file(tmp_path: Path, image: Path) -> None:
    base = tmp_path / "base"
    base.write_bytes(bytes(MIB))
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", image / "a"]
    subprocess.run(command, check=True)
    with pytest.raises(ImportRefused, match=r"disk 'a' of image web:1 has a backing file"):
        run(tmp_path)
