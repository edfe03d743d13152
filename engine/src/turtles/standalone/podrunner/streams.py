# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's side of ``kubectl logs``, ``exec``, ``attach`` and ``port-forward``.

A kubelet speaks HTTPS for this. Here both are on one machine, so there is a unix socket for root only, and instead of
copying bytes the node hands over file descriptors: pipes or the terminal of a command, a socket that is connected
within the Pod. The kernel says who asks. Nothing of a session lives in this process but the reading of logs.

Protocol, over a unix socket of type SOCK_SEQPACKET, one JSON object per message, one request per connection:

- ``{"op": "log", "uid", "container", "options"}`` → ``{"ok": true}`` with a pipe.
- ``{"op": "attach", "uid", "container", "stdin"}`` → ``{"ok": true, "streams": [name, ...]}`` with a descriptor for
  each: ``stdout`` and ``stderr``, pipes with what comes from now on, and ``stdin``, where the container reads that; or
  ``stdout`` and ``terminal``, which takes input and a size.
- ``{"op": "exec", "uid", "container", "command", "terminal", "stdin", "stdout", "stderr"}`` → with a connection where
  the forking process says ``started`` (with the terminal's master) and ``exit``, then the pipes that were asked for.
- ``{"op": "portforward", "uid", "port"}`` → with a connected socket.

``{"error": {"code", "reason", "message"}}`` says what is wrong, in the words of metav1.Status.
"""

import contextlib
import dataclasses
import json
import logging
import os
import socket
import struct
import threading
from pathlib import Path

from turtles.api.objects import Object
from turtles.kube.client import ApiError
from turtles.kube.informer import Informer
from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.commands import Commands
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.container import ContainerError
from turtles.standalone.podrunner.logs import Options, Reader, log_path, send
from turtles.standalone.podrunner.poddir import PodDir
from turtles.standalone.podrunner.zygote_client import ZygoteClient, ZygoteError

log = logging.getLogger(__name__)

MAX_REQUEST = 1 << 20


class StreamError(Exception):
    """The request can't be granted."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class StreamServer:
    """Serves the node's socket.

    :param pods: informer of the Pods of this node, with the index ``uid``.
    """

    def __init__(
        self,
        config: Config,
        pods: Informer,
        zygote: ZygoteClient,
        commands: Commands,
    ) -> None:
        self._config, self._pods, self._zygote, self._commands = config, pods, zygote, commands
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def start(self) -> None:
        """Start serving, in threads of its own."""
        path = self._config.stream_socket
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.unlink(missing_ok=True)
        self._listener.bind(str(temporary))
        temporary.chmod(0o600)
        self._listener.listen(64)
        temporary.rename(path)
        threading.Thread(target=self._accept, name="streams", daemon=True).start()

    def stop(self) -> None:
        """Stop answering; sessions continue, except for reading logs."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="stream", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        descriptors: list[int] = []
        with client:
            try:
                client.settimeout(30)
                # SO_PEERCRED: process, user and group at the other end (unix(7)).
                peer = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                if peer[1] not in (0, os.getuid()):
                    raise StreamError(403, "Forbidden", "only root may send requests to the node")
                request = json.loads(client.recv(MAX_REQUEST) or b"{}")
                answer = self._answer(request)
                named = isinstance(answer, dict)
                descriptors = list(answer.values()) if isinstance(answer, dict) else answer
                message = {"ok": True, **({"streams": list(answer)} if named else {})}
                socket.send_fds(client, [json.dumps(message).encode()], descriptors)
            except StreamError as error:
                _refuse(client, error)
            except (ContainerError, ZygoteError, ApiError, OSError, KeyError, ValueError) as error:
                log.warning("a stream was refused", extra={"error": str(error)})
                _refuse(client, StreamError(500, "InternalError", f"Internal error occurred: {error}"))
            finally:
                for fd in descriptors:
                    os.close(fd)

    def _answer(self, request: Object) -> list[int] | dict[str, int]:
        pods = self._pods.by_index("uid", request["uid"])
        if not pods:
            raise StreamError(404, "NotFound", "the Pod is not on this node")
        pod, directory = pods[0], PodDir(self._config.pods_dir, request["uid"])
        operation = request["op"]
        if operation == "log":
            return self._log(pod, directory, request["container"], Options(**request["options"]))
        if operation == "attach":
            return self._attach(pod, directory, request["container"], bool(request.get("stdin")))
        if operation == "exec":
            return self._execute(pod, directory, request)
        if operation == "portforward":
            return [self._connect(pod, int(request["port"]))]
        raise StreamError(400, "BadRequest", f"unknown operation {operation!r}")

    # --- logs --------------------------------------------------------------------------------------------------------

    def _log(self, pod: Object, directory: PodDir, name: str, options: Options) -> list[int]:
        own = directory.container(name)
        if options.previous and _waits(pod, name) and directory.observe(name, self._zygote).exit is not None:
            # What has ended is the previous start already, though the next one hasn't begun.
            options = dataclasses.replace(options, previous=False)
        if not log_path(own, options.previous).exists():
            raise StreamError(404, "NotFound", f"container {name} has no log")
        return [_sent(own, options)]

    def _attach(self, pod: Object, directory: PodDir, name: str, stdin: bool) -> dict[str, int]:
        observed = directory.observe(name, self._zygote)
        if not observed.running or observed.state is None:
            raise StreamError(500, "InternalError", f'container not found ("{name}")')
        container = _container(pod, name) or {}
        streams: dict[str, int] = {}
        if container.get("stdin") or container.get("tty"):
            wanted = stdin and bool(container.get("stdin"))
            once = bool(container.get("stdinOnce"))
            streams = self._zygote.attach(str(observed.state["id"]), stdin=wanted, once=once)
        if "terminal" not in streams:
            own = directory.container(name)
            for stream in ("stdout", "stderr"):
                streams[stream] = _sent(own, Options(follow=True, tail=0, stream=stream))
        return streams

    # --- commands ----------------------------------------------------------------------------------------------------

    def _execute(self, pod: Object, directory: PodDir, request: Object) -> list[int]:
        name, terminal = request["container"], bool(request["terminal"])
        container = _container(pod, name)
        observed = directory.observe(name, self._zygote)
        if container is None or not observed.running or observed.state is None:
            raise StreamError(500, "InternalError", f'container not found ("{name}")')
        execution = self._commands.execution(pod, container, directory, observed, list(request["command"]), terminal)
        theirs: list[int] = []
        ours: list[int] = []
        try:
            for wanted, reads in ((request["stdin"], True), (request["stdout"], False), (request["stderr"], False)):
                if wanted and not terminal:
                    reading, writing = os.pipe2(os.O_CLOEXEC)
                    theirs.append(reading if reads else writing)
                    ours.append(writing if reads else reading)
                else:
                    theirs.append(os.open("/dev/null", (os.O_RDONLY if reads else os.O_WRONLY) | os.O_CLOEXEC))
            control = self._zygote.execute(execution, theirs).detach()
            return [control, *ours]
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)

    # --- ports -------------------------------------------------------------------------------------------------------

    def _connect(self, pod: Object, port: int) -> int:
        """Return a socket that is connected to a port of a Pod's loopback interface."""
        netns = None if pod["spec"].get("hostNetwork") else self._config.run_dir / "netns" / pod["metadata"]["uid"]
        failures: list[Exception] = []
        descriptors: list[int] = []

        def connect() -> None:
            # A thread of its own: no other ever sees the Pod's network.
            try:
                if netns is not None:
                    enter_network(netns)
                descriptors.append(socket.create_connection(("127.0.0.1", port), timeout=10).detach())
            except OSError as error:
                failures.append(error)

        thread = threading.Thread(target=connect, name="portforward", daemon=True)
        thread.start()
        thread.join()
        if failures:
            text = f"failed to connect to localhost:{port} inside the Pod's network: {failures[0]}"
            raise StreamError(500, "InternalError", text)
        return descriptors[0]


def enter_network(path: Path) -> None:
    """Put the calling thread into a network namespace (setns(2)).

    :raises OSError: it is not there.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sc.setns(fd, sc.CLONE_NEWNET)
    finally:
        os.close(fd)


def _container(pod: Object, name: str) -> Object | None:
    every = (*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"])
    return next((one for one in every if one["name"] == name), None)


def _waits(pod: Object, name: str) -> bool:
    status = pod.get("status") or {}
    entries = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    return any(entry["name"] == name and "waiting" in entry["state"] for entry in entries)


def _sent(directory: Path, options: Options) -> int:
    """Return a pipe on which a log comes."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    threading.Thread(target=send, args=(Reader(directory, options), writing), name="log", daemon=True).start()
    return reading


def _refuse(client: socket.socket, error: StreamError) -> None:
    body = {"error": {"code": error.code, "reason": error.reason, "message": str(error)}}
    with contextlib.suppress(OSError):
        client.send(json.dumps(body).encode())
