# SPDX-License-Identifier: GPL-3.0-or-later
"""The process of a Pod that holds a claim."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path, PurePosixPath

import pytest

from turtles import termination
from turtles.launcher import attachment, disks, main
from turtles.launcher.errors import LaunchError

ARGUMENTS = ["attachment", "--volume", "data", "--claim", "claim"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(attachment.paths, "ATTACHMENT_SOCKET", PurePosixPath(tmp_path / "hotplug.sock"))
    monkeypatch.setattr(termination, "TERMINATION_LOG", tmp_path / "termination-log")
    (tmp_path / "termination-log").touch()
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield tmp_path
    signal.set_wakeup_fd(-1)
    for number, handler in before:
        signal.signal(number, handler)


def end_once_it_listens(path: Path) -> None:
    """Connect more often than anybody accepts by accident, then end the process."""
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(100):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("more", "prepared"),
    [
        (["--size", "4096"], [("data", "claim", False, 4096)]),
        (["--read-only"], [("data", "claim", True, None)]),
        (["--folder", "--size", "4096"], []),
    ],
)
def test_it_holds_on_until_it_is_ended(place, monkeypatch, more, prepared):
    seen = []

    def prepare(volume, size):
        claim = volume["persistentVolumeClaim"]
        seen.append((volume["name"], claim["claimName"], claim["readOnly"], size))
        assert not (place / "hotplug.sock").exists()

    monkeypatch.setattr(disks, "prepare_claim", prepare)
    (place / "hotplug.sock").touch()  # left by a process before it
    (place / "hotplug.sock").unlink()
    thread = threading.Thread(target=end_once_it_listens, args=(place / "hotplug.sock",))
    thread.start()
    assert main.main([*ARGUMENTS, *more]) == 0
    thread.join()
    assert seen == prepared


def test_a_disk_that_cannot_be_used(place, monkeypatch):
    def prepare(volume, size):
        raise LaunchError("claim 'claim' is full")

    monkeypatch.setattr(disks, "prepare_claim", prepare)
    assert main.main(ARGUMENTS) == 1
    assert (place / "termination-log").read_text() == "claim 'claim' is full"
    assert not (place / "hotplug.sock").exists()
