# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading logs where the kernel has no more inotify instances for the user."""

import ctypes
import errno
import threading
import types
from pathlib import Path

import pytest

from turtles.standalone.podrunner import logs


def _none_left(flags: int) -> int:
    ctypes.set_errno(errno.EMFILE)
    return -1


def test_a_log_is_followed_without_inotify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_LIBC", types.SimpleNamespace(inotify_init1=_none_left))
    monkeypatch.setattr(logs, "_POLL", 0.01)
    path = logs.log_path(tmp_path, previous=False)
    path.write_bytes(b"2026-01-01T00:00:00.000000001Z stdout F first\n")
    reader = iter(logs.Reader(tmp_path, logs.Options(follow=True)))
    assert next(reader) == b"first\n"

    def goes_on() -> None:
        with open(path, "ab") as file:
            file.write(b"2026-01-01T00:00:00.000000002Z stdout F last\n")
        (tmp_path / "exit.json").write_text("{}")

    threading.Timer(0.05, goes_on).start()
    assert b"".join(reader) == b"last\n"
