# SPDX-License-Identifier: GPL-3.0-or-later
"""Container disks where the server has no image volumes: each image runs as a container of its own in the Pod.

Three parts meet in the Pod's folder of sockets. An init container puts a small program (``container-disk.S``) into a
volume; the containers of the images run it, and nothing of the image. The launcher waits for the node agent, which
mounts the files of those containers where image volumes would be. Then the launcher connects to each program: it
ends when that connection does.
"""

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from turtles.domain import paths
from turtles.launcher.errors import LaunchError
from turtles.launcher.listening import listen

_ANSWER_BYTES = 4096
#: Seconds the node agent may take from its call to its answer: a few system calls.
_ANSWER_SECONDS = 30.0


def volumes(spec: Mapping[str, Any]) -> list[str]:
    """Return the names of the images that a VMI's guest uses: of its containerDisk volumes, and of its kernel."""
    return list(paths.images(spec))


class Request:
    """The request to have container disks mounted. Call :meth:`handle` whenever :meth:`fileno` is readable.

    It has no time limit: an image may take long to be pulled, and the Pod is deleted when it is no longer wanted.
    """

    def __init__(self, names: Sequence[str], root: Path = Path("/")) -> None:
        """Create the request.

        :param names: the volumes.
        :param root: prefix of all paths (tests).
        :raises LaunchError: if the Pod's folders can't be used.
        """
        self._names, self._root = names, root
        self._path = self._in_root(paths.CONTAINER_DISKS_SOCKET)
        self._lifelines: list[socket.socket] = []
        try:
            for name in names:
                self._in_root(paths.container_disk_image_dir(name)).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LaunchError(f"the Pod's folders can't be used: {error}") from error
        self._listener = listen(self._path)

    def fileno(self) -> int:
        """Return the listening socket's descriptor."""
        return self._listener.fileno()

    def handle(self) -> bool:
        """Receive the node agent's answer; return whether everything is mounted.

        :raises LaunchError: with the agent's words, if it can't be; or if the container of an image ended.
        """
        answer = self._answer()
        if not answer:
            return False  # not all of the containers run, or the agent was restarted: it comes again
        if answer != paths.CONTAINER_DISKS_MOUNTED:
            raise LaunchError(answer.decode(errors="replace").strip())
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for name in self._names:
            lifeline = socket.socket(socket.AF_UNIX)
            self._lifelines.append(lifeline)
            try:
                lifeline.connect(str(self._in_root(paths.container_disk_socket(name))))
                lifeline.sendall(b"\n")
            except OSError as error:
                raise LaunchError(f"volume {name!r}: the container of its image ended: {error}") from error
        return True

    def _answer(self) -> bytes:
        answer = b""
        client, _ = self._listener.accept()
        with client:
            client.settimeout(_ANSWER_SECONDS)
            try:
                while len(answer) < _ANSWER_BYTES and not answer.endswith(b"\n"):
                    if not (part := client.recv(_ANSWER_BYTES)):
                        return b""
                    answer += part
            except OSError:
                return b""
        return answer

    def _in_root(self, path: PurePosixPath) -> Path:
        return paths.in_root(self._root, path)
