# SPDX-License-Identifier: GPL-3.0-or-later
"""How the forking process is started."""

import contextlib
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from turtles.standalone.podrunner import zygote_client
from turtles.standalone.podrunner.zygote_client import ZygoteClient, ZygoteError


@pytest.fixture
def started(tmp_path: Path, monkeypatch) -> Callable[..., tuple[ZygoteClient, subprocess.Popen]]:
    """Start a forking process in a scope; return its client and itself."""

    def start(*scope: str) -> tuple[ZygoteClient, subprocess.Popen]:
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        monkeypatch.setattr(zygote_client, "_scope", lambda: list(scope))
        client = ZygoteClient(tmp_path / "z.sock", tmp_path / "z.log", "test", ["entry_points:main"])
        assert client.ensure()
        process = client._process
        assert process is not None
        return client, process

    return start


def test_a_shutdown_of_the_machine_does_not_wait_for_what_ignores_sigterm(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(zygote_client, "_SYSTEMD", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    command = zygote_client._scope()
    assert command[:2] == ["/usr/bin/systemd-run", "--scope"]
    assert "--property=KillSignal=SIGKILL" in command


def test_no_scope_without_systemd(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(zygote_client, "_SYSTEMD", tmp_path / "missing")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert zygote_client._scope() == []


@pytest.mark.parametrize("scope", [["/usr/bin/env", "WITH=scope"], ["/bin/false"]])
def test_it_starts_with_and_without_a_scope_of_its_own(started, scope: list[str]) -> None:
    client, process = started(*scope)
    assert not client.ensure()
    environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    assert (b"WITH=scope" in environment) is (len(scope) == 2)
    client._ask({"op": "retire"}, timeout=60)
    assert process.wait(60) == 0


def test_without_files_left_it_turns_requests_away_and_goes_on(tmp_path: Path, started) -> None:
    client, process = started()
    # It can be connected to before it has loaded all of its modules, for which it needs files
    client._ask({"op": "status"}, timeout=60)
    limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    open_files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (open_files, limits[1]))
    before = cpu_ticks(process.pid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waiting:
        waiting.settimeout(60)
        waiting.connect(str(tmp_path / "z.sock"))
        with contextlib.suppress(ConnectionResetError):
            assert waiting.recv(1) == b"", "closed without an answer"
    assert cpu_ticks(process.pid) - before < 100
    assert "too many files are open" in (tmp_path / "z.log").read_text()
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
    assert client._ask({"op": "status"}, timeout=60)["pid"] == process.pid
    client._ask({"op": "retire"}, timeout=60)
    assert process.wait(60) == 0


def cpu_ticks(pid: int) -> int:
    """Time a process has used, in hundredths of a second (proc(5), stat, utime)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_what_it_says_when_it_does_not_start(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(zygote_client, "_scope", lambda: [])
    client = ZygoteClient(tmp_path / "z.sock", tmp_path / "z.log", "test", ["no_such_module:main"])
    with pytest.raises(ZygoteError, match="no_such_module"):
        client.ensure()


def test_one_that_retires_late_leaves_its_successor_s_socket(tmp_path: Path, started) -> None:
    """It got no answer across in time, so another one was started at the same path."""
    _, process = started()
    (tmp_path / "z.sock").rename(tmp_path / "old.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as successor:
        successor.bind(str(tmp_path / "z.sock"))
    ZygoteClient(tmp_path / "old.sock", tmp_path / "z.log", "test", [])._ask({"op": "retire"}, timeout=60)
    assert process.wait(60) == 0
    assert (tmp_path / "z.sock").is_socket()
