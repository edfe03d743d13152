# SPDX-License-Identifier: GPL-3.0-or-later
import os
import subprocess
import threading
from pathlib import Path

import pytest

from turtles.handler.watcher import Watcher


def test_a_file_appears(tmp_path: Path) -> None:
    watcher, seen = Watcher(), threading.Event()
    watcher.folder(tmp_path, seen.set)
    watcher.folder(tmp_path, seen.set)
    (tmp_path / "socket").touch()
    assert seen.wait(60)
    seen.clear()
    (tmp_path / "draft").touch()
    (tmp_path / "draft").rename(tmp_path / "final")
    assert seen.wait(60)


def test_a_forgotten_folder_is_silent(tmp_path: Path) -> None:
    watcher, forgotten, seen = Watcher(), threading.Event(), threading.Event()
    callback = forgotten.set
    watcher.folder(tmp_path, callback)
    watcher.folder(tmp_path, seen.set)
    watcher.forget_folder(callback)
    (tmp_path / "socket").touch()
    assert seen.wait(60)
    assert not forgotten.is_set()


def test_a_folder_that_is_filled_without_end_calls_once(tmp_path: Path) -> None:
    (tmp_path / "pod").mkdir()
    (tmp_path / "other").mkdir()
    watcher, calls, other = Watcher(), threading.Semaphore(0), threading.Event()
    for _ in range(2):
        watcher.folder(tmp_path / "pod", calls.release, once=True)
        for _ in range(100):
            (tmp_path / "pod/x").touch()
            (tmp_path / "pod/x").unlink()
        watcher.folder(tmp_path / "other", other.set)
        (tmp_path / "other/x").touch()
        assert other.wait(60)
        assert calls.acquire(timeout=60)
        assert not calls.acquire(blocking=False)
        (tmp_path / "other/x").unlink()
        other.clear()


def test_lost_events_are_everybody_s(tmp_path: Path) -> None:
    watcher, seen = Watcher(), threading.Event()
    watcher.folder(tmp_path, seen.set)
    assert watcher._called_for({-1}) == [seen.set]
    watcher.folder(tmp_path / ".", seen.clear, once=True)
    assert set(watcher._called_for({-1})) == {seen.set, seen.clear}
    assert watcher._called_for({-1}) == []


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Watcher().folder(tmp_path / "nothing", lambda: None)


def test_a_process_ends() -> None:
    watcher, ended = Watcher(), threading.Event()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        descriptor = watcher.process(process.pid, ended.set)
        assert not ended.wait(0.05)
        process.terminate()
        assert ended.wait(60)
    watcher.forget_process(descriptor)
    watcher.forget_process(descriptor)
    with pytest.raises(ProcessLookupError):
        watcher.process(process.pid, ended.set)


def test_nothing_is_left_after_its_end(tmp_path: Path) -> None:
    watcher = Watcher()
    descriptors = watcher._inotify, watcher._epoll.fileno()
    watcher.folder(tmp_path, lambda: None)
    thread = next(each for each in threading.enumerate() if getattr(each, "_target", None) == watcher._run)
    watcher.close()
    thread.join(60)
    assert not thread.is_alive()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        watcher.folder(tmp_path, lambda: None)
