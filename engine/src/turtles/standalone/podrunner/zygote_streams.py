# SPDX-License-Identifier: GPL-3.0-or-later
"""The standard streams of containers: their logs, terminals and inputs."""

import contextlib
import json
import os
import selectors
import socket
from functools import partial
from pathlib import Path

from turtles.standalone.podrunner.collector import STDIN, Collector, make_pipes
from turtles.standalone.podrunner.terminal import Terminal


class StandardStreams:
    """The streams of all containers of one process."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._collectors: dict[str, Collector] = {}
        self._terminals: dict[str, Terminal] = {}
        #: Writing ends that keep standard inputs open while nobody is attached, and where their pipes are.
        self._inputs: dict[str, tuple[int, Path]] = {}

    def create(self, directory: str) -> None:
        """Create the pipes of a container that is about to start, and collect its log."""
        make_pipes(Path(directory))
        self.collect(directory)

    def keep_input(self, key: str, directory: str) -> None:
        """Keep a container's standard input open."""
        path = Path(directory, STDIN)
        # Both ends, so that there is no wait for a reader.
        self._inputs[key] = os.open(path, os.O_RDWR | os.O_CLOEXEC), path

    def add_terminal(self, key: str, directory: str, master: int) -> None:
        """Read a container's terminal from now on."""
        self._terminals[key] = Terminal(master, Path(directory), self._selector)

    def attach(self, client: socket.socket, key: str, *, stdin: bool, once: bool) -> None:
        """Hand over what leads to a container's standard streams.

        :param once: the input ends with what is handed over.
        """
        fds = {}
        if key in self._terminals:
            fds = {"stdout": self._terminals[key].follow(), "terminal": self._terminals[key].copy()}
        elif stdin and key in self._inputs:
            kept, path = self._inputs[key]
            fds = {"stdin": os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)}
            if once:
                os.close(kept)
                del self._inputs[key]
        with contextlib.suppress(OSError):
            socket.send_fds(client, [json.dumps({"streams": list(fds)}).encode()], list(fds.values()))
        client.close()
        for fd in fds.values():
            os.close(fd)

    def collect(self, directory: str) -> None:
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
                    self.finish(directory)

        for stream, fd in collector.pipes.items():
            self._selector.register(fd, selectors.EVENT_READ, partial(take, stream))

    def let_go(self, key: str, directory: str) -> None:
        """Let go of the streams of a container that has ended."""
        if key in self._terminals:
            self._terminals.pop(key).close()
        if key in self._inputs:
            os.close(self._inputs.pop(key)[0])
        self.finish(directory)

    def finish(self, directory: str) -> None:
        """Write what is left of a container's log."""
        collector = self._collectors.pop(directory, None)
        if collector is not None:
            for fd in collector.pipes.values():
                self._selector.unregister(fd)
            collector.finish()
