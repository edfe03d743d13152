# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether files that changed are known as such, however little about them did."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from turtles.standalone import stamp
from turtles.standalone.apiserver.access.auth import Authenticator
from turtles.standalone.podrunner.image_reference import LocalImage


def settle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be a while after the file changed, whatever keeps its time."""
    now = path.stat().st_ctime + stamp.COARSE_TICK + 1
    monkeypatch.setattr(stamp.time, "time", lambda: now)


def test_a_file_is_unknown_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("a")
    monkeypatch.setattr(stamp.time, "time", lambda: file.stat().st_ctime + stamp.TICK / 2)
    assert stamp.stamp(file) is None
    settle(file, monkeypatch)
    assert stamp.stamp(file) == stamp.stamp(file) is not None
    with pytest.raises(FileNotFoundError):
        stamp.stamp(tmp_path / "other")


def test_a_file_of_the_same_size_inode_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As programs write it that build reproducibly, or copy with times."""
    file = tmp_path / "file"
    file.write_text("a")
    os.utime(file, (0, 0))
    settle(file, monkeypatch)
    first = stamp.stamp(file)
    file.write_text("b")
    os.utime(file, (0, 0))
    settle(file, monkeypatch)
    assert stamp.stamp(file) != first


def test_a_changed_token_counts_at_once(tmp_path: Path) -> None:
    """However often the file changes within a tick of the clock."""
    file = tmp_path / "tokens.csv"
    tokens = Authenticator(file)
    for number in range(200):
        digest = hashlib.sha256(f"{number:03}".encode()).hexdigest()
        file.write_text(f"{digest},somebody,\n")
        os.utime(file, (0, 0))
        assert tokens.token_user(f"{number:03}") is not None, number


def test_a_local_image_that_changed_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "image.tar"
    seen = set()
    for content in ("a", "b"):
        archive.write_text(content)
        os.utime(archive, (0, 0))
        now = time.time() + stamp.COARSE_TICK + 1
        monkeypatch.setattr(stamp.time, "time", lambda now=now: now)
        seen.add(LocalImage("oci-archive", archive, "").fingerprint())
        monkeypatch.undo()
    assert len(seen) == 2
    assert None not in seen
