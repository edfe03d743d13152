# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers of the forking process: those that run, and how the latest that ended did.

The podrunner reads the same from files, whether this process is there or not.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

from turtles.api.times import now
from turtles.standalone.files import write_json
from turtles.standalone.podrunner.cgroup import oom_kills
from turtles.standalone.podrunner.process_identity import process_start

#: How many ended containers are remembered.
_MAX_EXITS = 1000


class Containers:
    """Containers by their ids: ``running`` with what state.json says, ``exits`` with what exit.json says."""

    def __init__(self) -> None:
        self.running: dict[str, dict[str, Any]] = {}
        self.exits: dict[str, dict[str, Any]] = {}

    def add(self, key: str, directory: str, pid: int, procs: list[str]) -> None:
        """Add one that runs from now on.

        :param procs: files of its control groups, if its process isn't one of ours that joins them.
        :raises OSError: it can't be noted.
        """
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
        self.running[key] = state

    def add_failed(self, key: str, directory: str) -> None:
        """Add one that could not be created, to be ended."""
        self.running[key] = {"dir": directory, "startedAt": now()}
        Path(directory, "state.json").unlink(missing_ok=True)

    def end(self, key: str, code: int, number: int | None, message: str | None) -> None:
        """Note that one has ended.

        :param number: the signal that ended it. :param message: why it could not start.
        """
        container = self.running.pop(key)
        ended = {"exitCode": code, "signal": number, "finishedAt": now(), "startedAt": container["startedAt"]}
        if message is not None:
            ended |= {"reason": "StartError", "message": message}
        elif oom_kills(container.get("cgroupProcs") or ()):
            ended |= {"reason": "OOMKilled"}
        self.exits[key] = ended
        # A Pod's directory may be gone already.
        with contextlib.suppress(OSError):
            write_json(Path(container["dir"], "exit.json"), ended)
        while len(self.exits) > _MAX_EXITS:
            self.exits.pop(next(iter(self.exits)))
