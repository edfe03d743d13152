# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers of filesystems; a script stands in for virtiofsd."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from turtles.domain import paths
from turtles.launcher import filesystems
from turtles.launcher.errors import LaunchError

from .conftest import make_vmi

LISTENS = """
    import socket, sys
    options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    assert options["--sandbox"] == "none"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(options["--socket-path"])
    listener.listen()
    print(options["--shared-dir"], flush=True)
    listener.accept()
"""


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "PRIVATE_DIR", tmp_path / "private")
    return tmp_path / "private"


def program(tmp_path: Path, text: str) -> tuple[Path]:
    path = tmp_path / "virtiofsd"
    path.write_text("#!/usr/bin/env python3\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return (path,)


def sharing(volume: dict[str, Any]) -> dict[str, Any]:
    vmi = make_vmi(volumes=[{"name": "shared", **volume}])
    vmi["spec"]["domain"].setdefault("devices", {})["filesystems"] = [{"name": "shared", "virtiofs": {}}]
    return vmi


def test_served(tmp_path, private, capfd):
    folder = private / "config-map/shared"
    folder.mkdir(parents=True)
    (process,) = filesystems.start(sharing({"configMap": {"name": "a"}}), program(tmp_path, LISTENS))
    try:
        assert (private / "virtiofs/shared.sock").is_socket()
    finally:
        process.kill()
        process.wait()


def test_nothing_to_serve():
    assert filesystems.start(make_vmi(), ()) == []


@pytest.mark.parametrize(
    ("text", "volume", "message"),
    [
        (None, {"configMap": {"name": "a"}}, "there is no virtiofsd that runs without root"),
        ("import sys; sys.exit(3)", {"configMap": {"name": "a"}}, "ended with exit status 3"),
        (LISTENS, {"secret": {"secretName": "a"}}, "the Pod has no directory"),
        (LISTENS, {"containerPath": {"path": "/usr"}}, "is not in a volume that is mounted in the Pod"),
    ],
)
def test_failures(tmp_path, private, text, volume, message):
    (private / "config-map/shared").mkdir(parents=True)
    programs = program(tmp_path, text) if text else (tmp_path / "missing",)
    with pytest.raises(LaunchError, match=message):
        filesystems.start(sharing(volume), programs)


MOUNTS = """
22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 0:5 / /proc rw - proc proc rw
24 22 0:6 / /var/run/secrets/cloud ro - tmpfs tmpfs ro
25 22 0:7 / {private} rw - ext4 /dev/sda1 rw
"""


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/var/run/secrets/cloud", True),
        ("/var/run/secrets/cloud/token", True),
        ("/var/run/secrets", False),
        ("/usr", False),
        ("/proc/1", False),
    ],
)
def test_volumes_of_the_pod(path, is_one):
    text = MOUNTS.format(private="/var/run/kubevirt-private").strip()
    # /var/run may be a link on the machine that runs the tests.
    resolved = text.replace("/var/run", str(Path("/var/run").resolve()))
    assert filesystems.is_volume(Path(path), resolved) is is_one
    private = Path("/var/run/kubevirt-private/vmi-disks/a")
    assert not filesystems.is_volume(private, resolved)
