# SPDX-License-Identifier: GPL-3.0-or-later
"""The standalone API server under test: a process of its own on a free loopback port."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from corpus import Request
from play import Player, Server

_COMMAND = [sys.executable, "-m", "turtles.standalone.main"]


@contextlib.contextmanager
def standalone(folder: Path) -> Iterator[Server]:
    """Run a standalone API server with its files in ``folder``."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    places = ["--config-dir", str(folder / "etc"), "--data-dir", str(folder / "data"), "--port", port]
    subprocess.run([*_COMMAND, "init", *places, "--node-name", "n1"], check=True, capture_output=True)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*_COMMAND, "apiserver", *places], stdout=log, stderr=log)
    server = Server("ours", folder / "etc/admin.kubeconfig")
    try:
        _wait(server, process, folder / "log")
        yield server
    finally:
        server.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    player = Player(server, "", {})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(Exception):
            if player.play(Request("", "", path="/readyz")).code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the server doesn't get ready:\n{log.read_text()}")
