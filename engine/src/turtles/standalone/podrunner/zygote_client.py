# SPDX-License-Identifier: GPL-3.0-or-later
"""The podrunner's side of the forking process: starts it and sends it requests."""

import contextlib
import dataclasses
import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from turtles.standalone.podrunner.crun import Bundle
from turtles.standalone.podrunner.execution import Execution
from turtles.standalone.podrunner.process_identity import process_start
from turtles.standalone.podrunner.spec import Spec
from turtles.standalone.podrunner.zygote_listener import MAX_MESSAGE

log = logging.getLogger(__name__)

#: There where systemd is PID 1 (sd_booted(3)).
_SYSTEMD = Path("/run/systemd/system")


class ZygoteError(Exception):
    """The forking process is not running, or a container could not be set up; the message says why."""


class ZygoteUnavailable(ZygoteError):
    """Nothing answers at the socket: it is unknown whether the request was carried out."""


def _scope() -> list[str]:
    """Return a command prefix that runs the rest in its own systemd unit; empty where systemd isn't PID 1.

    In the podrunner's unit Pods would end with a ``systemctl kill`` of the podrunner, or when systemd stops it because
    one of them ran out of memory. systemd-run becomes what it runs: the process ID stays.

    When the machine shuts down, systemd stops the unit. The forking process ignores SIGTERM, since a supervisor may
    send it to a whole group: the machine would wait until the unit's time is up (90 s).
    """
    program = shutil.which("systemd-run")
    if program is None or not _SYSTEMD.is_dir():
        return []
    return [
        program,
        "--scope",
        "--quiet",
        "--collect",
        f"--unit=turtles-pods-{uuid.uuid4().hex[:8]}",
        "--description=Pods of this machine",
        "--property=TasksMax=infinity",
        "--property=KillSignal=SIGKILL",
        "--",
    ]


def _environment() -> dict[str, str]:
    """Return the variables that the forking process needs: containers have a copy of its memory."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "LANG", "LD_LIBRARY_PATH") or name.startswith(("LC_", "PYTHON"))
    }


class ZygoteClient:
    """Talks to the forking process at a socket and starts one where none (or one of another version) is.

    :param fingerprint: changes when what is preloaded changes; an older process is retired: it keeps its containers.
    """

    def __init__(self, path: Path, log_path: Path, fingerprint: str, entry_points: list[str]) -> None:
        self._path = path
        self._log_path = log_path
        self._fingerprint = fingerprint
        self._entry_points = entry_points
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ensure(self) -> bool:
        """Make sure that one of our version listens; say whether it was started just now.

        :raises ZygoteError: it does not start.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                log.warning("the forking process ended", extra={"exitCode": self._process.returncode})
                self._process = None
            with contextlib.suppress(ZygoteError):
                if self._ask({"op": "status"}, timeout=10)["fingerprint"] == self._fingerprint:
                    return False
                log.info("retiring the forking process of an earlier version")
                self._ask({"op": "retire"}, timeout=10)
            for scope in (_scope(), []):
                try:
                    self._spawn(scope)
                    break
                except ZygoteError as error:
                    if not scope:
                        raise
                    log.warning("Pods share the podrunner's cgroup", extra={"error": str(error)})
            return True

    def _spawn(self, prefix: list[str]) -> None:
        self._path.unlink(missing_ok=True)
        with open(self._log_path, "ab") as output:
            self._process = subprocess.Popen(
                [
                    *prefix,
                    sys.executable,
                    "-m",
                    "turtles.standalone.podrunner.zygote",
                    "--socket",
                    str(self._path),
                    "--fingerprint",
                    self._fingerprint,
                    *self._entry_points,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
                env=_environment(),
            )
        self._wait_listening(self._process)

    def _wait_listening(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        pidfd = os.pidfd_open(process.pid)
        try:
            while not self._path.exists():
                # Wakes at once when the process ends, and looks for its socket in between.
                if select.select([pidfd], [], [], 0.02)[0]:
                    process.wait()
                    tail = self._log_path.read_text(errors="replace")[-600:]
                    raise ZygoteError(f"the forking process does not start: {tail}")
                if time.monotonic() > deadline:
                    raise ZygoteError("the forking process does not listen after 60 s")
        finally:
            os.close(pidfd)

    def start(self, key: str, directory: Path, name: str, spec: Spec) -> dict[str, Any]:
        """Start a container and return its state, or its exit if it ended immediately.

        :raises ZygoteError: it could not be set up.
        """
        return self._begin({"op": "start", "id": key, "dir": str(directory), "name": name}, spec)

    def launch(self, key: str, directory: Path, bundle: Bundle) -> dict[str, Any]:
        """Start a container with an OCI runtime; as :meth:`start`."""
        return self._begin({"op": "launch", "id": key, "dir": str(directory), "stdin": bundle.stdin}, bundle)

    def attach(self, key: str, *, stdin: bool, once: bool) -> dict[str, int]:
        """Return descriptors that lead to a container's terminal or standard input, where it has them, by name.

        :param once: its standard input ends when the one that is returned is closed.
        :raises ZygoteError: nothing listens.
        """
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.settimeout(10)
                sock.connect(str(self._path))
                sock.send(json.dumps({"op": "attach", "id": key, "stdin": stdin, "once": once}).encode())
                message, fds, _flags, _address = socket.recv_fds(sock, MAX_MESSAGE, 4, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise ZygoteUnavailable(f"the forking process does not answer: {error}") from error
        return dict(zip(json.loads(message or b"{}").get("streams") or [], fds, strict=False))

    def _begin(self, request: dict[str, Any], what: Spec | Bundle) -> dict[str, Any]:
        memory = os.memfd_create("spec")
        with open(memory, "wb") as spec_file:
            spec_file.write(json.dumps(dataclasses.asdict(what)).encode())
            spec_file.flush()
            fds = [spec_file.fileno()]
            try:
                return self._ask(request, fds)
            except ZygoteUnavailable:
                # The id makes sure that a container which did start is not started twice.
                self.ensure()
                return self._ask(request, fds)

    def collect(self, directory: Path) -> None:
        """Start writing a container's log.

        :raises ZygoteError: it can't be.
        """
        self._ask({"op": "collect", "dir": str(directory)}, timeout=10)

    def execute(self, execution: Execution, streams: list[int], bound: bool = False) -> socket.socket:
        """Run a command in a container; return the connection that reports its start and its end.

        :param streams: what becomes standard input, output and error.
        :param bound: end it when the connection is closed.
        :raises ZygoteError: nothing listens.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with os.fdopen(os.memfd_create("execution"), "wb") as file:
                file.write(json.dumps(dataclasses.asdict(execution)).encode())
                file.flush()
                sock.settimeout(10)
                sock.connect(str(self._path))
                request = {"op": "exec", "pid": execution.pid, "start": execution.start, "bound": bound}
                socket.send_fds(sock, [json.dumps(request).encode()], [file.fileno(), *streams])
        except OSError as error:
            sock.close()
            raise ZygoteUnavailable(f"the forking process does not answer: {error}") from error
        return sock

    def reap(self, key: str) -> dict[str, Any]:
        """Return ``{"exit": ...}``, ``{"running": pid}`` or ``{"unknown": True}``.

        :raises ZygoteError: nothing listens.
        """
        return self._ask({"op": "reap", "id": key}, timeout=10)

    def status(self) -> dict[str, Any]:
        """Return the process's fingerprint, pid and running containers.

        :raises ZygoteError: nothing listens.
        """
        return self._ask({"op": "status"}, timeout=10)

    def retire(self) -> None:
        """Let the process end once its containers have; nothing to do if none listens."""
        with contextlib.suppress(ZygoteError):
            self._ask({"op": "retire"}, timeout=10)

    def _ask(self, request: dict[str, Any], fds: list[int] | None = None, timeout: float = 60) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.settimeout(timeout)
                sock.connect(str(self._path))
                socket.send_fds(sock, [json.dumps(request).encode()], fds or [])
                answer = json.loads(sock.recv(MAX_MESSAGE) or b"{}")
        except OSError as error:
            raise ZygoteUnavailable(f"the forking process does not answer: {error}") from error
        if "error" in answer:
            raise ZygoteError(answer["error"])
        return dict(answer)


def alive(state: dict[str, Any]) -> bool:
    """Say whether the container that a state.json describes still runs."""
    return process_start(state["pid"]) == str(state["start"])


def send_signal(state: dict[str, Any], number: int) -> bool:
    """Send a signal to a container's process 1; False if it has ended. A later process with its id is never hit."""
    try:
        pidfd = os.pidfd_open(state["pid"])
    except ProcessLookupError:
        return False
    try:
        if not alive(state):
            return False
        signal.pidfd_send_signal(pidfd, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)


def wait_end(state: dict[str, Any], seconds: float) -> bool:
    """Wait until a container's process 1 has ended; False if it has not after some seconds."""
    try:
        pidfd = os.pidfd_open(state["pid"])
    except ProcessLookupError:
        return True
    try:
        return not alive(state) or bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        os.close(pidfd)
