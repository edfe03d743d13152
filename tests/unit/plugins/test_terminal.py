# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sessions over a terminal: a real one, with a real shell behind a login of our own."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.turtles.kubevirt.plugins.plugin_utils._terminal import Terminal, TerminalError

LOGIN = r"""
while :; do
    printf '\nDebian GNU/Linux 13 guest ttyS0\n\nguest login: '
    read -r user
    [ -n "$user" ] || continue
    stty -echo; printf 'Password: '; read -r password; stty echo; echo
    if [ "$user:$password" = "root:secret" ]; then PS1='root@guest:~# ' sh -i; else echo 'Login incorrect'; fi
done
"""


class Line:
    """The terminal's other end, as a console gives it."""

    def __init__(self, program: str, folder: Path) -> None:
        """Start it. What it makes by mktemp is in the folder: guests of tests that break a session off keep it."""
        mktemp = folder / "mktemp"
        mktemp.write_text(f"#!/bin/sh\nexec {shutil.which('mktemp')} -d {folder}/ansible-XXXXXX\n")
        mktemp.chmod(0o755)
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "/bin/sh", "-c", program],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            close_fds=True,
            env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        )
        os.close(slave)

    def send(self, data: bytes) -> None:
        while data:
            # The terminal takes more when somebody reads
            assert select.select([], [self.master], [], 20)[1]
            data = data[os.write(self.master, data[:512]) :]

    def receive(self, timeout: float) -> bytes | None:
        if not select.select([self.master], [], [], timeout)[0]:
            return None
        try:
            return os.read(self.master, 65536)
        except OSError:
            return b""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    found = Line(LOGIN, tmp_path)
    yield found
    found.close()


@pytest.fixture
def terminal(line: Line) -> Terminal:
    found = Terminal(line.send, line.receive, "shop/web")
    found.log_in("root", "secret", 30)
    return found


def test_commands_have_input_output_and_a_status(terminal: Terminal):
    assert terminal.run("echo out; echo err >&2; exit 3", None) == (3, b"out\n", b"err\n")
    assert terminal.run("cat", b"a\x04b\x03\r\n\x00") == (0, b"a\x04b\x03\r\n\x00", b"")
    assert terminal.run("echo 'it''s'; printf %s \"$HOME\" | wc -c", None)[0] == 0


def test_files_of_any_content_go_both_ways(terminal: Terminal, tmp_path):
    data = os.urandom(200_000)
    terminal.put(str(tmp_path / "it's"), data)
    assert (tmp_path / "it's").read_bytes() == data
    assert terminal.get(str(tmp_path / "it's")) == data
    terminal.put(str(tmp_path / "empty"), b"")
    assert terminal.get(str(tmp_path / "empty")) == b""


def test_a_session_leaves_nothing_and_the_next_one_logs_in(terminal: Terminal, line: Line):
    folder = terminal.run("dirname $0", None)[1].decode().strip()
    assert os.path.isdir(folder)
    terminal.log_out()
    assert not os.path.exists(folder)
    again = Terminal(line.send, line.receive, "shop/web")
    again.log_in("root", "secret", 30)
    # A session that was cut off is taken over where it is
    third = Terminal(line.send, line.receive, "shop/web")
    third.log_in("root", "secret", 30)
    assert third.run("echo here", None) == (0, b"here\n", b"")


def test_what_a_session_that_was_cut_off_left_is_not_run(terminal: Terminal, line: Line, tmp_path):
    line.send(b"touch %s/marker; sleep 60" % bytes(tmp_path))
    again = Terminal(line.send, line.receive, "shop/web")
    again.log_in("root", "secret", 30)
    assert again.run("echo here", None) == (0, b"here\n", b"")
    assert not (tmp_path / "marker").exists()


def test_a_program_that_keeps_the_terminal_is_ended(terminal: Terminal, line: Line):
    # The prompt before it is still to be read
    line.send(b"echo; exec 3>&1; sh -c 'printf \"$ \" >&3; cat >/dev/null'\n")
    again = Terminal(line.send, line.receive, "shop/web")
    again.log_in("root", "secret", 30)
    assert again.run("echo here", None) == (0, b"here\n", b"")


def test_no_part_of_what_is_sent_removes_folders(line: Line):
    sent = []

    def send(data: bytes) -> None:
        sent.append(data)
        line.send(data)

    terminal = Terminal(send, line.receive, "shop/web")
    terminal.log_in("root", "secret", 30)
    terminal.run("true", b"data")
    terminal.log_out()
    assert b"rm -r" not in b"".join(sent)
    # The last word is the guest's: it asks for the next login
    assert terminal._seen.endswith(b"login: ")


def test_a_wrong_password_is_told(line: Line):
    with pytest.raises(TerminalError, match=r"^shop/web rejected the login of root: wrong user or password\.$"):
        Terminal(line.send, line.receive, "shop/web").log_in("root", "guess", 30)


def test_a_missing_password_is_told(line: Line):
    with pytest.raises(TerminalError, match="give ansible_password"):
        Terminal(line.send, line.receive, "shop/web").log_in("root", None, 30)


def test_a_guest_that_says_nothing_is_not_waited_for_without_end(tmp_path: Path):
    line = Line("stty -echo; sleep 60", tmp_path)
    began = time.monotonic()
    with pytest.raises(TerminalError, match="within the timeout\\. It says nothing"):
        Terminal(line.send, line.receive, "shop/web").log_in("root", "secret", 1)
    assert time.monotonic() - began < 20
    line.close()


def test_the_end_of_the_line_is_told(tmp_path: Path):
    line = Line("sleep 0.2", tmp_path)
    with pytest.raises(TerminalError, match="the guest stopped or somebody else opened it"):
        Terminal(line.send, line.receive, "shop/web").log_in("root", "secret", 30)
    line.close()
