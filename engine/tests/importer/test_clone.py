# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of disks on other claims."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from turtles.importer import clone
from turtles.importer.errors import ImportRefused
from turtles.importer.progress import Progress
from turtles.importer.target import Target

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
MIB = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def run(source: Path, size: int = 8 * MIB) -> Path:
    claim = source.parent / "claim"
    claim.mkdir(exist_ok=True)
    clone.run(source, Target(claim, size), Progress("uid"))
    assert [path.name for path in claim.iterdir()] == ["disk.img"]
    return claim / "disk.img"


def test_a_copy_has_the_holes_of_the_disk(source: Path) -> None:
    with (source / "disk.img").open("wb") as file:
        file.write(b"x" * MIB)
        file.truncate(6 * MIB)
    copy = run(source)
    assert copy.read_bytes() == b"x" * MIB + bytes(7 * MIB)
    assert copy.stat().st_blocks * 512 < 2 * MIB


def test_what_a_guest_wrote_is_raw(source: Path) -> None:
    """A guest may write a header that names a file of the node's."""
    (source / "disk.img").write_bytes(b"QFI\xfb" + bytes(MIB - 4))
    assert run(source).read_bytes()[:4] == b"QFI\xfb"


def test_a_disk_that_is_too_large(source: Path) -> None:
    (source / "disk.img").write_bytes(bytes(2 * MIB))
    with pytest.raises(ImportRefused, match="larger than the reported available storage"):
        run(source, MIB)


def test_a_claim_without_a_disk(source: Path) -> None:
    with pytest.raises(ImportRefused, match=r"has no disk\.img"):
        run(source)


def test_a_link_isnt_followed(source: Path) -> None:
    (source.parent / "secret").write_bytes(bytes(MIB))
    (source / "disk.img").symlink_to(source.parent / "secret")
    with pytest.raises(Exception, match="symbolic links"):
        run(source)
