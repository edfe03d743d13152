# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens if libvirtd doesn't do its part. (The real one is in test_pod.)"""

import os
import stat
from pathlib import Path

import pytest

from turtles.launcher import libvirtd
from turtles.launcher.errors import LaunchError
from turtles.launcher.libvirtd import Libvirtd, LibvirtdError


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    """A Libvirtd with a short socket path, whose program is up to the test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / libvirtd._DRIVER).touch()
    monkeypatch.setattr(libvirtd, "_DRIVER_DIRS", (str(tmp_path),))
    daemon = Libvirtd(tmp_path / "libvirt", Path("socket"), binary=str(tmp_path / "program"))
    daemon.configure()
    yield daemon
    daemon.kill()
    daemon.forget()


def program(daemon: Libvirtd, text: str) -> None:
    Path(daemon.binary).write_text(f"#!/bin/sh\n{text}\n")
    Path(daemon.binary).chmod(0o755)


def test_configuration(daemon):
    config = (daemon.directory / "config/libvirt/libvirtd.conf").read_text()
    assert f'log_outputs = "3:file:{daemon.log_path}"' in config
    assert [path.name for path in (daemon.directory / "drivers").iterdir()] == [libvirtd._DRIVER]
    assert stat.S_IMODE((daemon.directory / "config/libvirt").stat().st_mode) == 0o700
    daemon.configure()


def test_program_gets_the_socket_and_a_clean_environment(daemon, monkeypatch):
    monkeypatch.setenv("OF_THE_LAUNCHER", "not for everyone")
    program(
        daemon,
        "env > environment.new; readlink /proc/$$/fd/3 >> environment.new; echo pid=$$ >> environment.new\n"
        "mv environment.new environment; exec sleep 60",
    )
    daemon.start(daemon.listen())
    while not Path("environment").exists():
        os.sched_yield()
    text = Path("environment").read_text()
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert "socket:[" in text
    assert values["LISTEN_FDS"] == "1"
    assert values["LISTEN_PID"] == values["pid"]
    assert "OF_THE_LAUNCHER" not in values
    # A Pod's root file system is read-only on Kubernetes.
    assert Path(values["TMPDIR"]).is_relative_to(daemon.directory)
    assert stat.S_IMODE(Path(values["TMPDIR"]).stat().st_mode) == 0o700


def test_program_that_ends(daemon):
    program(daemon, "exit 3")
    daemon.start(daemon.listen())
    with pytest.raises(LibvirtdError, match="exited before it answered"):
        daemon.wait_ready(10)


def test_program_that_hangs(daemon):
    program(daemon, "exec sleep 60")
    daemon.start(daemon.listen())
    with pytest.raises(LibvirtdError, match="didn't answer within"):
        daemon.wait_ready(0.05)


def test_missing_program(daemon):
    daemon.start(daemon.listen())
    with pytest.raises(LibvirtdError):
        daemon.wait_ready(10)


def test_missing_driver(tmp_path, monkeypatch):
    monkeypatch.setattr(libvirtd, "_DRIVER_DIRS", (str(tmp_path / "nowhere"),))
    with pytest.raises(LaunchError, match="QEMU driver isn't installed"):
        Libvirtd(tmp_path / "libvirt", tmp_path / "socket").configure()


def test_published_name_is_the_same_socket(daemon):
    program(daemon, "exec sleep 60")
    daemon.start(daemon.listen())
    for _ in range(2):
        daemon.publish(Path("public"))
        assert Path("public").samefile("socket")
        assert not Path("public").is_symlink()


def test_last_words(daemon):
    assert daemon.last_words() == ""
    daemon.log_path.write_text("\n".join(f"line {number}" for number in range(9)))
    assert daemon.last_words(2) == "line 7; line 8"
