# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of the images' containers, and the launcher's request for their files."""

import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from turtles.domain import paths
from turtles.launcher import container_disk
from turtles.launcher.errors import LaunchError

from .conftest import wait_for

SOURCE, BINARY = (files("turtles.launcher").joinpath(f"container-disk.{kind}") for kind in ("S", "bin"))


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's own folder: its paths are too long for a Unix socket.
    path = Path(tempfile.mkdtemp(prefix="cd-"))
    yield path
    shutil.rmtree(path)


def install(folder: Path) -> None:
    """Put the program where a Pod's init container puts it."""
    program = folder / "container-disk"
    program.write_bytes(BINARY.read_bytes())
    program.chmod(0o555)


@pytest.fixture
def program(folder: Path) -> Iterator[subprocess.Popen]:
    install(folder)
    process = subprocess.Popen([folder / "container-disk", folder / "s"], stderr=subprocess.PIPE)
    wait_for((folder / "s").exists, "the socket")
    yield process
    process.kill()
    process.wait()
    process.stderr.close()


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    wait_for(lambda: client.connect_ex(str(path)) == 0, "the program to listen")
    return client


def test_it_says_who_it_is_and_lives_as_long_as_the_launcher(folder: Path, program: subprocess.Popen) -> None:
    with connect(folder / "s") as agent:
        assert struct.unpack("iII", agent.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0] == program.pid
    launcher = connect(folder / "s")
    launcher.sendall(b"\n")
    wait_for(lambda: "SigBlk:\t0000000000004000" in Path(f"/proc/{program.pid}/status").read_text(), "it to hold on")
    program.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.2)
    launcher.close()
    assert program.wait(60) == 0


def test_it_ends_when_no_launcher_came(program: subprocess.Popen) -> None:
    program.terminate()
    assert program.wait(60) == 0


@pytest.mark.parametrize("arguments", [[], ["x" * 108], ["/nonexistent/s"], ["a", "b"]])
def test_it_says_what_is_wrong(folder: Path, arguments: list[str]) -> None:
    install(folder)
    done = subprocess.run([folder / "container-disk", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "can't listen" in done.stderr


@pytest.mark.skipif(not all(map(shutil.which, ("as", "ld", "objcopy"))), reason="needs binutils")
def test_the_binary_is_what_the_source_says(tmp_path: Path) -> None:
    steps = [
        ["as", "--64", str(SOURCE), "-o", "c.o"],
        ["ld", "-Ttext=0x400000", "-e", "start", "c.o", "-o", "c.elf"],
        ["objcopy", "-O", "binary", "-j", ".text", "c.elf", "container-disk.bin"],
    ]
    for step in steps:
        subprocess.run(step, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "container-disk.bin").read_bytes() == BINARY.read_bytes()


@pytest.fixture
def request_(folder: Path) -> container_disk.Request:
    (folder / "var/run/kubevirt/sockets").mkdir(parents=True)
    return container_disk.Request(["root"], folder)


def tell(folder: Path, words: bytes) -> None:
    def agent() -> None:
        with connect(folder / "var/run/kubevirt/sockets/container-disks") as client:
            client.sendall(words)

    threading.Thread(target=agent).start()


def test_the_request(folder: Path, request_: container_disk.Request) -> None:
    assert (folder / "var/run/kubevirt-image-volume/root").is_dir()
    tell(folder, b"")
    assert not request_.handle(), "the agent was restarted"
    with socket.socket(socket.AF_UNIX) as disk:
        disk.bind(str(folder / "var/run/kubevirt/sockets/disk-root"))
        disk.listen()
        tell(folder, paths.CONTAINER_DISKS_MOUNTED)
        assert request_.handle()
        lifeline, _ = disk.accept()
        assert lifeline.recv(9) == b"\n"
        lifeline.close()
    assert not (folder / "var/run/kubevirt/sockets/container-disks").exists()


def test_the_agent_s_words_are_the_launcher_s_last(folder: Path, request_: container_disk.Request) -> None:
    tell(folder, b"volume 'root': open_tree: Function not implemented\n")
    with pytest.raises(LaunchError, match="Function not implemented"):
        request_.handle()


def test_an_image_s_container_that_is_gone_again(folder: Path, request_: container_disk.Request) -> None:
    tell(folder, paths.CONTAINER_DISKS_MOUNTED)
    with pytest.raises(LaunchError, match="volume 'root': the container of its image ended"):
        request_.handle()
