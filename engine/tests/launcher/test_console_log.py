# SPDX-License-Identifier: GPL-3.0-or-later
"""From the file that QEMU appends to, through the launcher and a pipe, to the output of a container."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from turtles.launcher.console_log import BACKLOG, ConsoleLog


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "uid" / "virt-serial0-log"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    return tmp_path / "pipe"


def tail(pipe: Path) -> subprocess.Popen[bytes]:
    program = "import sys; from turtles.launcher.tail import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, pipe], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def container(pipe: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = tail(pipe)
    yield process
    process.kill()
    process.communicate()


def append(file: Path, data: bytes) -> None:
    with file.open("ab") as qemu:
        qemu.write(data)


def test_the_container_says_what_the_guest_says(file, pipe, container):
    console_log = ConsoleLog(file, pipe)
    append(file, b"login: ")
    assert console_log.copy()
    append(file, b"\xff\x00\r\n")
    assert console_log.copy()
    assert container.stdout.read(11) == b"login: \xff\x00\r\n"


def test_it_keeps_what_is_said_before_the_container_runs_and_ends_with_the_launcher(file, pipe):
    launcher = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from turtles.launcher.console_log import ConsoleLog;"
            "log = ConsoleLog(*map(Path, sys.argv[1:])); Path(sys.argv[1]).write_text('early'); log.copy();"
            "print(flush=True); input()",
            file,
            pipe,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    launcher.stdout.readline()
    container = tail(pipe)
    assert container.stdout.read(5) == b"early"
    assert container.poll() is None
    launcher.communicate()
    assert container.wait(60) == 0
    container.communicate()


def test_a_container_that_comes_after_the_launcher_has_ended(pipe):
    os.mkfifo(pipe)
    container = tail(pipe)
    assert container.communicate(timeout=60) == (b"", b"")
    assert container.returncode == 0


def test_a_guest_that_writes_without_end_fills_no_disk(file, pipe, container):
    console_log = ConsoleLog(file, pipe)
    received = 0
    for _ in range(8):
        append(file, b"x" * BACKLOG)
        while not console_log.copy():
            received += len(os.read(container.stdout.fileno(), 1 << 20))
    while received < 8 * BACKLOG:
        received += len(os.read(container.stdout.fileno(), 1 << 20))
    assert file.stat().st_blocks * 512 <= BACKLOG


def test_output_that_nobody_takes_is_lost_and_the_rest_is_not(file, pipe, caplog):
    console_log = ConsoleLog(file, pipe)
    append(file, b"x" * (5 * BACKLOG))
    assert not console_log.copy()
    assert "nothing takes it" in caplog.text
    container = tail(pipe)
    try:
        append(file, b"the end")
        said = b""
        while not said.endswith(b"the end"):
            console_log.copy()
            said += os.read(container.stdout.fileno(), 1 << 20)
    finally:
        container.kill()
        container.communicate()


@pytest.mark.parametrize(
    ("arguments", "code", "said"), [(["file/pipe"], 1, "virt-tail: file/pipe: Not a directory"), ([], 2, "usage")]
)
def test_what_it_cannot_read(tmp_path, arguments, code, said):
    (tmp_path / "file").touch()
    program = "import sys; from turtles.launcher.tail import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code
    assert said in done.stderr
