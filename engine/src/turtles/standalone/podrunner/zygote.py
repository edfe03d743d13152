# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that forks containers from preloaded Python modules, and reaps them.

It outlives the podrunner: a restart of the podrunner, intended or not, affects no Pod. It has one thread, so that a
fork is whole, and its garbage collector leaves alone what it loaded, so that those pages stay shared.

Protocol, over a unix socket of type SOCK_SEQPACKET, one JSON object per message, one request per connection:

- ``{"op": "start", "id", "dir", "name"}`` with a file descriptor, the Spec as JSON → ``{"pid", "startedAt"}`` once the
  container runs, or ``{"error"}``. The same id again gives the running container. What it says is collected in ``log``.
- ``{"op": "launch", "id", "dir"}`` with a file descriptor, a :class:`turtles.standalone.podrunner.crun.Bundle` as JSON
  → as above, for a container that an OCI runtime starts.
- ``{"op": "attach", "id", "stdin", "once"}`` → ``{"streams": [name, ...]}`` with a descriptor for each: ``terminal``,
  the master of a container's terminal, and ``stdout``, a pipe with what comes from it from now on; or ``stdin``, a pipe
  to its standard input, which ends with it if ``once`` is set.
- ``{"op": "collect", "dir"}``: write the log of a container whose forking process is gone.
- ``{"op": "exec", "pid", "start", "bound"}`` with four file descriptors, a
  :class:`turtles.standalone.podrunner.execution.Execution` as JSON and what becomes standard input, output and error
  → ``{"started": true}``, with a terminal's master where there is one, then ``{"exit": code}``; or ``{"error"}``. One
  that is bound is killed when the connection is closed.
- ``{"op": "reap", "id"}`` → ``{"exit": {...}}`` when it has ended, ``{"running": pid}`` or ``{"unknown": true}``.
- ``{"op": "status"}`` → ``{"fingerprint", "pid", "containers": [...]}``
- ``{"op": "retire"}``: stop listening, end when the last container has ended.

In ``dir`` it writes ``state.json`` before the container's first instruction, and ``exit.json`` after its last. A
container also notes its own exit code in ``self-exit``, for the case that this process is not there to see it.
"""

import argparse
import contextlib
import gc
import importlib
import json
import logging
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from turtles.log import setup_logging
from turtles.standalone.podrunner import forked
from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.privileges import DEFAULT_CAPABILITIES, last_capability
from turtles.standalone.podrunner.process_identity import process_start
from turtles.standalone.podrunner.seccomp import Filters, SeccompError
from turtles.standalone.podrunner.zygote_containers import Containers
from turtles.standalone.podrunner.zygote_listener import MAX_MESSAGE, Listener, reply
from turtles.standalone.podrunner.zygote_streams import StandardStreams

log = logging.getLogger(__name__)


class Zygote:
    """State of the forking process: listening socket, containers, pending starts."""

    def __init__(self, path: Path, fingerprint: str, entry_points: list[str]) -> None:
        self._fingerprint = fingerprint
        self._preloaded = forked.Preloaded({name: _resolve(name) for name in entry_points}, Filters())
        last_capability()
        try:
            # For launchers, and for root of a container that asks for nothing.
            for capabilities in ((), DEFAULT_CAPABILITIES):
                self._preloaded.filters.get(capabilities)
        except SeccompError as error:
            log.error("containers with seccompProfile RuntimeDefault can't start: %s", error)
        self._containers = Containers()
        self._starting: dict[int, tuple[str, socket.socket]] = {}
        self._executions: dict[int, socket.socket] = {}
        self._launches: dict[str, _Launch] = {}
        self._selector = selectors.DefaultSelector()
        self._streams = StandardStreams(self._selector)
        self._own_pid_ns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._listener = Listener(path, self._selector, self._handle)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._reap)
        self._retired = False

    def run(self) -> None:
        """Serve until retired and empty."""
        # Whose starter has ended becomes our child.
        sc.prctl(sc.PR_SET_CHILD_SUBREAPER, 1)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # The podrunner's supervisor may signal a whole group; Pods must not lose their parent by that.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write)
        if len(list(Path("/proc/self/task").iterdir())) > 1:
            log.warning("a preloaded module started threads: %s", [thread.name for thread in threading.enumerate()])
        gc.collect()
        gc.freeze()
        while not (self._retired and not self._containers.running and not self._executions and not self._launches):
            for key, _ in self._selector.select():
                # What came before may have done with it, as the end of a container does with its pipes.
                if self._selector.get_map().get(key.fd) is key:
                    key.data(key.fileobj)

    def _handle(self, client: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        operation, key = request["op"], request.get("id", "")
        if operation in ("start", "launch"):
            if key in self._launches:
                reply(client, {"error": "it is being started"})
            elif key in self._containers.running:
                reply(client, self._containers.running[key])
            elif key in self._containers.exits:
                reply(client, {"exit": self._containers.exits[key]})
            elif operation == "launch":
                self._launch(client, request, fds)
            else:
                self._start(client, request, fds)
        elif operation == "attach":
            self._streams.attach(client, key, stdin=bool(request.get("stdin")), once=bool(request.get("once")))
        elif operation == "collect":
            self._streams.collect(request["dir"])
            reply(client, {})
        elif operation == "exec":
            self._execute(client, request, fds)
        elif operation == "reap":
            self._reap(None)
            if key in self._containers.exits:
                reply(client, {"exit": self._containers.exits[key]})
            elif key in self._containers.running:
                reply(client, {"running": self._containers.running[key]["pid"]})
            else:
                reply(client, {"unknown": True})
        elif operation == "status":
            reply(
                client,
                {"fingerprint": self._fingerprint, "pid": os.getpid(), "containers": sorted(self._containers.running)},
            )
        elif operation == "retire":
            self._retired = True
            self._listener.close()
            reply(client, {})
        else:
            reply(client, {"error": f"unknown operation {operation!r}"})

    def _start(self, client: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        directory = Path(request["dir"])
        self._streams.create(request["dir"])
        go_read, go_write = os.pipe2(os.O_CLOEXEC)
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        # A process namespace is only for children made after unshare(2), and is made once: come back to our own first.
        sc.setns(self._own_pid_ns, sc.CLONE_NEWPID)
        sc.unshare(sc.CLONE_NEWPID)
        try:
            pid = os.fork()
        except OSError:
            for fd in (go_read, go_write, ready_read, ready_write):
                os.close(fd)
            self._streams.finish(request["dir"])
            raise
        if pid == 0:
            os.close(go_write)
            forked.be_container(self._preloaded, fds[0], request["name"], directory, go_read, ready_write)
        os.close(go_read)
        os.close(ready_write)
        try:
            self._containers.add(request["id"], request["dir"], pid, [])
        except OSError:
            # Without a word to go on the process ends: nobody would know of it.
            os.close(go_write)
            os.close(ready_read)
            os.waitpid(pid, 0)
            self._streams.finish(request["dir"])
            raise
        os.write(go_write, b"g")
        os.close(go_write)
        self._starting[ready_read] = (request["id"], client)
        self._selector.register(ready_read, selectors.EVENT_READ, self._ready)

    def _launch(self, client: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        """Let a child start a container that becomes ours."""
        directory, key = Path(request["dir"]), request["id"]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._streams.create(request["dir"])
            if request.get("stdin"):
                self._streams.keep_input(key, request["dir"])
            sc.setns(self._own_pid_ns, sc.CLONE_NEWPID)
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            self._streams.let_go(key, request["dir"])
            raise
        if pid == 0:
            forked.start_container(fds[0], directory, theirs)
        theirs.close()
        self._launches[key] = _Launch(key, request["dir"], client, pid)
        self._selector.register(ours, selectors.EVENT_READ, partial(self._launching, key))

    def _launching(self, key: str, talk: socket.socket) -> None:
        """Take what the child says: that the container is created, that it runs, or that it doesn't."""
        launch = self._launches[key]
        message, masters, _flags, _address = socket.recv_fds(talk, MAX_MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
        for master in masters:
            self._streams.add_terminal(key, launch.directory, master)
        launched = json.loads(message or b"{}")
        if "pid" in launched:
            try:
                self._containers.add(key, launch.directory, launched["pid"], launched["procs"])
                talk.send(b"go")
            except OSError as error:
                # Without a word to go on the child ends the container: nobody would know of it.
                launch.failure = str(error)
                talk.shutdown(socket.SHUT_RDWR)
            return
        launch.failure = launch.failure or launched.get("error", "")
        if launched.get("started"):
            launch.started = True
        if message:
            return
        self._selector.unregister(talk)
        talk.close()
        os.waitpid(launch.pid, 0)
        del self._launches[key]
        container = self._containers.running.get(key)
        if launch.started and container is not None:
            reply(launch.client, container)
            # It may have ended before its starter.
            self._reap(None)
            return
        failure = launch.failure or "the process that starts it was killed"
        if container is None:
            self._containers.add_failed(key, launch.directory)
        else:
            # Its starter has seen to that, if it could.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(container["pid"], signal.SIGKILL)
                os.waitpid(container["pid"], 0)
        self._ended(key, 128, None, failure)
        reply(launch.client, {"error": failure})

    def _execute(self, client: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        """Run a command in a container; report its end to ``client``."""
        if process_start(request["pid"]) != request["start"]:
            reply(client, {"error": "the container has ended"})
            return
        inside = os.open(f"/proc/{request['pid']}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            sc.setns(inside, sc.CLONE_NEWPID)
            pid = os.fork()
        finally:
            os.close(inside)
        if pid == 0:
            forked.be_command(self._preloaded, fds[0], client, fds[1:])
        self._executions[pid] = client
        if request.get("bound"):
            self._selector.register(client, selectors.EVENT_READ, partial(self._abandoned, pid))

    def _abandoned(self, pid: int, client: socket.socket) -> None:
        """Kill a command nobody waits for any more."""
        self._selector.unregister(client)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _ready(self, fd: int) -> None:
        self._selector.unregister(fd)
        text = b""
        while chunk := os.read(fd, 4096):
            text += chunk
        os.close(fd)
        key, client = self._starting.pop(fd)
        if text == b"ok":
            reply(client, self._containers.running.get(key) or {"exit": self._containers.exits[key]})
        else:
            message = text.decode(errors="replace") or "the container's process ended while it was set up"
            container = self._containers.running.get(key)
            if container is not None:
                os.waitpid(container["pid"], 0)
                self._ended(key, 128, None, message)
            reply(client, {"error": message})

    def _reap(self, fd: Any) -> None:
        if fd is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        starting = {key for key, _ in self._starting.values()} | self._launches.keys()
        for key, container in list(self._containers.running.items()):
            if key in starting:
                continue
            pid, status = os.waitpid(container["pid"], os.WNOHANG)
            if pid:
                number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
                self._ended(key, 128 + number if number else os.WEXITSTATUS(status), number, None)

        for pid, client in list(self._executions.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._executions[pid]
                with contextlib.suppress(KeyError):
                    self._selector.unregister(client)
                code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                reply(client, {"exit": code})

    def _ended(self, key: str, code: int, number: int | None, message: str | None) -> None:
        # First the log, so that the log is complete once the end is seen.
        self._streams.let_go(key, self._containers.running[key]["dir"])
        self._containers.end(key, code, number, message)


@dataclass
class _Launch:
    """A container that a child is starting."""

    key: str
    directory: str
    client: socket.socket
    pid: int
    started: bool = False
    failure: str = ""


def _resolve(name: str) -> Callable[[Any], Any]:
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    if not callable(function):
        raise TypeError(f"{name} is not a function")
    return function  # type: ignore[no-any-return]


def main(argv: list[str] | None = None) -> int:
    """Run the forking process: ``--socket PATH --fingerprint TEXT module:function ...``"""
    parser = argparse.ArgumentParser(prog="turtles-zygote")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--fingerprint", default="")
    parser.add_argument("entry_points", nargs="*")
    arguments = parser.parse_args(argv)
    setup_logging("zygote")
    sc.prctl(sc.PR_SET_NAME, b"turtles-zygote")
    zygote = Zygote(arguments.socket, arguments.fingerprint, arguments.entry_points)
    log.info("ready", extra={"entryPoints": arguments.entry_points})
    zygote.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
