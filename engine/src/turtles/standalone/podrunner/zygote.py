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
import array
import contextlib
import errno
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
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from turtles.log import setup_logging
from turtles.standalone.podrunner import crun, sandbox
from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.cgroup import oom_kills
from turtles.standalone.podrunner.collector import STDIN, STREAMS, Collector, make_pipes
from turtles.standalone.podrunner.execution import Execution, run
from turtles.standalone.podrunner.files import write_json
from turtles.standalone.podrunner.seccomp import Filters, SeccompError
from turtles.standalone.podrunner.terminal import Terminal

log = logging.getLogger(__name__)

MAX_MESSAGE = 64 * 1024


def now() -> str:
    """Return the time as the Kubernetes API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def process_start(pid: int) -> str | None:
    """Return what tells this process from a later one with the same id: boot id and start time; None if it ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{fields[19]}"


class Zygote:
    """State of the forking process: listening socket, containers, pending starts."""

    def __init__(self, path: Path, fingerprint: str, entry_points: list[str]) -> None:
        self._fingerprint = fingerprint
        self._functions = {name: _resolve(name) for name in entry_points}
        sandbox.last_capability()
        self._filters = Filters()
        try:
            # For launchers, and for root of a container that asks for nothing.
            for capabilities in ((), sandbox.DEFAULT_CAPABILITIES):
                self._filters.get(capabilities)
        except SeccompError as error:
            log.error("containers with seccompProfile RuntimeDefault can't start: %s", error)
        self._containers: dict[str, dict[str, Any]] = {}
        self._exits: dict[str, dict[str, Any]] = {}
        self._starting: dict[int, tuple[str, socket.socket]] = {}
        self._collectors: dict[str, Collector] = {}
        self._executions: dict[int, socket.socket] = {}
        self._launches: dict[str, _Launch] = {}
        self._terminals: dict[str, Terminal] = {}
        #: Writing ends that keep standard inputs open while nobody is attached.
        self._inputs: dict[str, int] = {}
        self._selector = selectors.DefaultSelector()
        self._path = path
        self._own_pid_ns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.unlink(missing_ok=True)
        self._listener.bind(str(temporary))
        temporary.chmod(0o600)
        self._listener.listen(64)
        status = temporary.stat()
        self._socket = status.st_dev, status.st_ino
        temporary.rename(path)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._reap)
        self._retired = False
        #: Given up for a moment where no more files can be opened.
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

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
        while not (self._retired and not self._containers and not self._executions and not self._launches):
            for key, _ in self._selector.select():
                # What came before may have done with it, as the end of a container does with its pipes.
                if self._selector.get_map().get(key.fd) is key:
                    key.data(key.fileobj)

    def _accept(self, _: Any) -> None:
        try:
            client, _address = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            return
        self._selector.register(client, selectors.EVENT_READ, self._serve)

    def _turn_away(self) -> None:
        """Close a connection that can't be served: the podrunner tries again. Left waiting it would wake us forever."""
        log.error("a request is turned away: too many files are open (raise the limit, LimitNOFILE in systemd)")
        os.close(self._spare)
        with contextlib.suppress(OSError):
            self._listener.accept()[0].close()
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _serve(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        fds = array.array("i")
        message = b""
        try:
            message, ancillary, _flags, _address = client.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(8 * fds.itemsize))
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            if message:
                self._handle(client, json.loads(message), list(fds))
                return
        except Exception as error:
            log.exception("request failed")
            self._reply(client, {"error": f"{type(error).__name__}: {error}"})
        finally:
            for fd in fds:
                os.close(fd)
        client.close()

    def _handle(self, client: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        operation, key = request["op"], request.get("id", "")
        if operation in ("start", "launch"):
            if key in self._launches:
                self._reply(client, {"error": "it is being started"})
            elif key in self._containers:
                self._reply(client, self._containers[key])
            elif key in self._exits:
                self._reply(client, {"exit": self._exits[key]})
            elif operation == "launch":
                self._launch(client, request, fds)
            else:
                self._start(client, request, fds)
        elif operation == "attach":
            self._attach(client, request)
        elif operation == "collect":
            self._collect(request["dir"])
            self._reply(client, {})
        elif operation == "exec":
            self._execute(client, request, fds)
        elif operation == "reap":
            self._reap(None)
            if key in self._exits:
                self._reply(client, {"exit": self._exits[key]})
            elif key in self._containers:
                self._reply(client, {"running": self._containers[key]["pid"]})
            else:
                self._reply(client, {"unknown": True})
        elif operation == "status":
            self._reply(
                client, {"fingerprint": self._fingerprint, "pid": os.getpid(), "containers": sorted(self._containers)}
            )
        elif operation == "retire":
            self._retired = True
            self._remove_socket()
            self._selector.unregister(self._listener)
            self._listener.close()
            self._reply(client, {})
        else:
            self._reply(client, {"error": f"unknown operation {operation!r}"})

    def _remove_socket(self) -> None:
        """Remove the socket, unless a successor that got no answer in time has put its own in its place.

        To be called before it is closed, which frees its inode for the next one.
        """
        with contextlib.suppress(FileNotFoundError):
            status = self._path.stat()
            if (status.st_dev, status.st_ino) == self._socket:
                self._path.unlink(missing_ok=True)

    @staticmethod
    def _reply(client: socket.socket, answer: dict[str, Any]) -> None:
        # A podrunner that is gone reads state.json instead.
        with contextlib.suppress(OSError):
            client.send(json.dumps(answer).encode())
        client.close()

    def _start(self, client: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        directory = Path(request["dir"])
        make_pipes(directory)
        self._collect(request["dir"])
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
            self._finish(request["dir"])
            raise
        if pid == 0:
            os.close(go_write)
            self._container(fds[0], request["name"], directory, go_read, ready_write)
        os.close(go_read)
        os.close(ready_write)
        try:
            state = self._note(request["id"], request["dir"], pid, [])
        except OSError:
            # Without a word to go on the process ends: nobody would know of it.
            os.close(go_write)
            os.close(ready_read)
            os.waitpid(pid, 0)
            self._finish(request["dir"])
            raise
        self._containers[request["id"]] = state
        os.write(go_write, b"g")
        os.close(go_write)
        self._starting[ready_read] = (request["id"], client)
        self._selector.register(ready_read, selectors.EVENT_READ, self._ready)

    def _launch(self, client: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        """Let a child start a container that becomes ours."""
        directory, key = Path(request["dir"]), request["id"]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            make_pipes(directory)
            self._collect(request["dir"])
            if request.get("stdin"):
                # Both ends, so that there is no wait for a reader.
                self._inputs[key] = os.open(directory / STDIN, os.O_RDWR | os.O_CLOEXEC)
            sc.setns(self._own_pid_ns, sc.CLONE_NEWPID)
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            self._let_go(key, request["dir"])
            raise
        if pid == 0:
            self._launcher(fds[0], directory, theirs)
        theirs.close()
        self._launches[key] = _Launch(key, request["dir"], client, pid)
        self._selector.register(ours, selectors.EVENT_READ, partial(self._launching, key))

    def _launching(self, key: str, talk: socket.socket) -> None:
        """Take what the child says: that the container is created, that it runs, or that it doesn't."""
        launch = self._launches[key]
        said, masters, _flags, _address = socket.recv_fds(talk, MAX_MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
        for master in masters:
            self._terminals[key] = Terminal(master, Path(launch.directory), self._selector)
        told = json.loads(said or b"{}")
        if "pid" in told:
            try:
                self._containers[key] = self._note(key, launch.directory, told["pid"], told["procs"])
                talk.send(b"go")
            except OSError as error:
                # Without a word to go on the child ends the container: nobody would know of it.
                launch.failure = str(error)
                talk.shutdown(socket.SHUT_RDWR)
            return
        launch.failure = launch.failure or told.get("error", "")
        if told.get("started"):
            launch.started = True
        if said:
            return
        self._selector.unregister(talk)
        talk.close()
        os.waitpid(launch.pid, 0)
        del self._launches[key]
        container = self._containers.get(key)
        if launch.started and container is not None:
            self._reply(launch.client, container)
            # It may have ended before its starter.
            self._reap(None)
            return
        failure = launch.failure or "the process that starts it was killed"
        if container is None:
            self._containers[key] = container = {"dir": launch.directory, "startedAt": now()}
            Path(launch.directory, "state.json").unlink(missing_ok=True)
        else:
            # Its starter has seen to that, if it could.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(container["pid"], signal.SIGKILL)
                os.waitpid(container["pid"], 0)
        self._ended(key, 128, None, failure)
        self._reply(launch.client, {"error": failure})

    def _attach(self, client: socket.socket, request: dict[str, Any]) -> None:
        """Hand over what leads to a container's standard streams."""
        key, fds = request["id"], {}
        if key in self._terminals:
            fds = {"stdout": self._terminals[key].follow(), "terminal": self._terminals[key].copy()}
        elif request.get("stdin") and key in self._inputs:
            path = Path(self._containers[key]["dir"], STDIN)
            fds = {"stdin": os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)}
            if request.get("once"):
                os.close(self._inputs.pop(key))
        with contextlib.suppress(OSError):
            socket.send_fds(client, [json.dumps({"streams": list(fds)}).encode()], list(fds.values()))
        client.close()
        for fd in fds.values():
            os.close(fd)

    def _note(self, key: str, directory: str, pid: int, procs: list[str]) -> dict[str, Any]:
        """Write state.json, and return what it says."""
        state = {
            "id": key,
            "pid": pid,
            "start": process_start(pid),
            "startedAt": now(),
            "dir": directory,
            "parent": {"pid": os.getpid(), "start": process_start(os.getpid())},
            "cgroupProcs": procs,
        }
        write_json(Path(directory, "state.json"), state)
        return state

    def _collect(self, directory: str) -> None:
        """Start writing a container's log, unless that is done already."""
        if directory in self._collectors:
            return
        collector = self._collectors[directory] = Collector(Path(directory))

        def take(stream: str, fd: int) -> None:
            if not collector.collect(stream):
                # Nobody is left who could write.
                self._selector.unregister(fd)
                os.close(collector.pipes.pop(stream))
                if not collector.pipes:
                    self._finish(directory)

        for stream, fd in collector.pipes.items():
            self._selector.register(fd, selectors.EVENT_READ, partial(take, stream))

    def _let_go(self, key: str, directory: str) -> None:
        """Let go of the streams of a container that has ended."""
        if key in self._terminals:
            self._terminals.pop(key).close()
        if key in self._inputs:
            os.close(self._inputs.pop(key))
        self._finish(directory)

    def _finish(self, directory: str) -> None:
        """Write what is left of a container's log."""
        collector = self._collectors.pop(directory, None)
        if collector is not None:
            for fd in collector.pipes.values():
                self._selector.unregister(fd)
            collector.finish()

    def _execute(self, client: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        """Run a command in a container; report its end to ``client``."""
        if process_start(request["pid"]) != request["start"]:
            self._reply(client, {"error": "the container has ended"})
            return
        inside = os.open(f"/proc/{request['pid']}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            sc.setns(inside, sc.CLONE_NEWPID)
            pid = os.fork()
        finally:
            os.close(inside)
        if pid == 0:
            self._executed(fds[0], client, fds[1:])
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
            self._reply(client, self._containers.get(key) or {"exit": self._exits[key]})
        else:
            message = text.decode(errors="replace") or "the container's process ended while it was set up"
            container = self._containers.get(key)
            if container is not None:
                os.waitpid(container["pid"], 0)
                self._ended(key, 128, None, message)
            self._reply(client, {"error": message})

    def _reap(self, fd: Any) -> None:
        if fd is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        starting = {key for key, _ in self._starting.values()} | self._launches.keys()
        for key, container in list(self._containers.items()):
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
                self._reply(client, {"exit": code})

    def _ended(self, key: str, code: int, number: int | None, message: str | None) -> None:
        container = self._containers.pop(key)
        # First the log, so that whoever sees the end finds all that was said.
        self._let_go(key, container["dir"])
        ended = {"exitCode": code, "signal": number, "finishedAt": now(), "startedAt": container["startedAt"]}
        if message is not None:
            ended |= {"reason": "StartError", "message": message}
        elif oom_kills(container.get("cgroupProcs") or ()):
            ended |= {"reason": "OOMKilled"}
        self._exits[key] = ended
        # A Pod's directory may be gone already.
        with contextlib.suppress(OSError):
            write_json(Path(container["dir"], "exit.json"), ended)
        while len(self._exits) > 1000:
            self._exits.pop(next(iter(self._exits)))

    def _container(self, told: int, name: str, directory: Path, go: int, ready: int) -> None:
        """Be the container; never returns.

        :param told: a file with the Spec. It is read here and not before the fork: what it says, such as a Secret in a
            variable, would be left in the memory of all containers that are forked later.
        """
        code = 1
        note = -1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            # Process 1 of a namespace gets no signal it has no handler for.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
            if os.read(go, 1) != b"g":
                os._exit(128)
            spec = sandbox.spec_from(_json_of(told))
            function = self._functions[spec.entry_point]
            os.setsid()
            null = os.open("/dev/null", os.O_RDONLY)
            note = os.open(directory / "self-exit", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.dup2(null, 0)
            for target, stream in enumerate(STREAMS, 1):
                # Open for reading too: without a reader, writing would end the container.
                pipe = os.open(directory / stream, os.O_RDWR | os.O_CLOEXEC)
                # The container's user may open it again by /dev/stdout.
                os.fchown(pipe, spec.uid, -1)
                os.dup2(pipe, target)
            ready, note = _close_others((ready, note))
            os.environ.clear()
            sc.set_command_line([name, *spec.argv])
            sandbox.enter(spec, self._filters)
            sc.prctl(sc.PR_SET_NAME, name.encode()[:15])
            os.environ.update(spec.env)
            sys.argv = [name, *spec.argv]
            for output in (sys.stdout, sys.stderr):
                output.reconfigure(line_buffering=True)  # type: ignore[union-attr]
            os.write(ready, b"ok")
            os.close(ready)
            ready = -1
            code = sandbox.run_entry_point(function, list(spec.argv) if spec.argument is None else spec.argument)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException as error:
            if ready >= 0:
                os.write(ready, str(error).encode()[:4000] or b"failed")
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            if note >= 0:
                os.write(note, str(code & 255).encode())
            os._exit(code & 255)

    def _launcher(self, told: int, directory: Path, talk: socket.socket) -> None:
        """Start a container; never returns.

        :param told: a file with the Bundle, see :meth:`_container`.
        """
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            bundle = crun.bundle_from(_json_of(told))
            os.setsid()
            os.dup2(os.open(directory / STDIN if bundle.stdin else os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
            for target, stream in enumerate(STREAMS, 1):
                # Open for reading too: without a reader, writing would end the container.
                os.dup2(os.open(directory / stream, os.O_RDWR | os.O_CLOEXEC), target)
            (connection,) = _close_others((talk.fileno(),))
            talk = socket.socket(fileno=connection)

            def created(pid: int, masters: list[int]) -> None:
                message = {"pid": pid, "procs": bundle.cgroup_procs}
                socket.send_fds(talk, [json.dumps(message).encode()], masters)
                if talk.recv(16) != b"go":
                    raise crun.RuntimeFailure("its start could not be recorded")

            crun.launch(bundle, created)
            talk.send(b'{"started": true}')
        except BaseException as error:
            with contextlib.suppress(OSError):
                talk.send(json.dumps({"error": str(error)[:4000] or type(error).__name__}).encode())
        finally:
            os._exit(0)

    def _executed(self, told: int, client: socket.socket, streams: list[int]) -> None:
        """Be a command in a container; never returns.

        :param told: a file with the Execution, see :meth:`_container`.
        """
        code = 126
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            execution = Execution(**_json_of(told))
            os.setsid()
            (connection, *kept) = _close_others((client.fileno(), *streams))
            client = socket.socket(fileno=connection)
            for target, fd in enumerate(kept):
                os.dup2(fd, target)
            # Among the files of an untrusted image nothing is imported any more.
            sys.path.clear()
            sys.path_importer_cache.clear()
            run(execution, self._filters, lambda fds: socket.send_fds(client, [b'{"started": true}'], fds))
        except FileNotFoundError as error:
            code = 127
            client.send(json.dumps({"error": str(error)}).encode())
        except BaseException as error:
            client.send(json.dumps({"error": str(error) or type(error).__name__}).encode())
        finally:
            os._exit(code)


@dataclass
class _Launch:
    """A container that a child is starting."""

    key: str
    directory: str
    client: socket.socket
    pid: int
    started: bool = False
    failure: str = ""


def _json_of(fd: int) -> dict[str, Any]:
    """Return the object that a descriptor's file holds."""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        return dict(json.load(file))


def _close_others(keep: tuple[int, ...]) -> list[int]:
    """Close all file descriptors but 0, 1, 2 and some; return those, moved to 3, 4, ..."""
    import fcntl

    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 512) for fd in keep]
    os.closerange(3, 512)
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in high]
    # close_range(2): costs nothing, however many there could be.
    os.closerange(512, 2**31 - 1)
    return moved


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
