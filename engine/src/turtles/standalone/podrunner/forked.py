# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process that was forked does until it is a container, a command in one, or has started one."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from turtles.standalone.podrunner import crun, sandbox
from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.collector import STDIN, STREAMS
from turtles.standalone.podrunner.execution import Execution, run
from turtles.standalone.podrunner.seccomp import Filters
from turtles.standalone.podrunner.spec import spec_from


@dataclass(frozen=True)
class Preloaded:
    """What the forking process has made for all containers.

    :param functions: entry points by name.
    :param filters: system call filters that are compiled already.
    """

    functions: Mapping[str, Callable[[Any], Any]]
    filters: Filters


def be_container(preloaded: Preloaded, request: int, name: str, directory: Path, go: int, ready: int) -> NoReturn:
    """Be the container; never returns.

    :param request: a file with the Spec. It is read here and not before the fork: what it says, such as a Secret in a
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
        spec = spec_from(_json_of(request))
        function = preloaded.functions[spec.entry_point]
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
        sandbox.enter(spec, preloaded.filters)
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


def start_container(request: int, directory: Path, talk: socket.socket) -> NoReturn:
    """Start a container; never returns.

    :param request: a file with the Bundle, see :func:`be_container`.
    """
    try:
        _default_signals()
        bundle = crun.bundle_from(_json_of(request))
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


def be_command(preloaded: Preloaded, request: int, client: socket.socket, streams: list[int]) -> NoReturn:
    """Be a command in a container; never returns.

    :param request: a file with the Execution, see :func:`be_container`.
    """
    code = 126
    try:
        _default_signals()
        execution = Execution(**_json_of(request))
        os.setsid()
        (connection, *kept) = _close_others((client.fileno(), *streams))
        client = socket.socket(fileno=connection)
        for target, fd in enumerate(kept):
            os.dup2(fd, target)
        # Among the files of an untrusted image nothing is imported any more.
        sys.path.clear()
        sys.path_importer_cache.clear()
        run(execution, preloaded.filters, lambda fds: socket.send_fds(client, [b'{"started": true}'], fds))
    except FileNotFoundError as error:
        code = 127
        client.send(json.dumps({"error": str(error)}).encode())
    except BaseException as error:
        client.send(json.dumps({"error": str(error) or type(error).__name__}).encode())
    finally:
        os._exit(code)


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


def _json_of(fd: int) -> dict[str, Any]:
    """Return the object that a descriptor's file holds."""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        return dict(json.load(file))


def _close_others(keep: tuple[int, ...]) -> list[int]:
    """Close all file descriptors but 0, 1, 2 and some; return those, moved to 3, 4, ..."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 512) for fd in keep]
    os.closerange(3, 512)
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in high]
    # close_range(2): costs nothing, however many there could be.
    os.closerange(512, 2**31 - 1)
    return moved
