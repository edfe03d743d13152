# SPDX-License-Identifier: GPL-3.0-or-later
"""A Pod's files on disk: everything a Pod runner needs to continue where another one was killed."""

import contextlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from turtles import clock
from turtles.api.times import now
from turtles.standalone.files import read_json, remove_tree, write_json
from turtles.standalone.podrunner import restart
from turtles.standalone.podrunner.collector import rotated
from turtles.standalone.podrunner.logs import Options, Reader, log_path
from turtles.standalone.podrunner.zygote_client import ZygoteClient, ZygoteError, alive

#: Bytes of a termination message: from its file, and from the log.
_MESSAGE, _MESSAGE_OF_LOG = 4096, 2048


@dataclass(frozen=True)
class Observed:
    """A container as it is: ``state`` of the last start (None: never started), ``exit`` if that has ended."""

    attempt: int
    state: dict[str, Any] | None
    exit: dict[str, Any] | None
    last_exit: dict[str, Any] | None
    #: What :func:`.restart.following` returned at the last start, 0 if it was the first.
    delay: float = 0.0

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.state is not None and self.exit is None


class PodDir:
    """``<pods>/<uid>``; its ``containers/<name>`` holds logs, termination-log, and notes of its starts: state.json,
    exit.json, attempts.json, signalled.json."""

    def __init__(self, pods_dir: Path, uid: str) -> None:
        self.uid = uid
        self.path = pods_dir / uid

    @property
    def cni_record(self) -> Path:
        """File that keeps the attachment to the node's network, or to the one that takes its place."""
        return self.path / "cni.json"

    def create(self, pod: dict[str, Any]) -> bool:
        """Create the directory, and record which Pod it is for; return whether it wasn't there."""
        if (self.path / "pod.json").exists():
            return False
        self.path.mkdir(parents=True, exist_ok=True, mode=0o750)
        metadata = pod["metadata"]
        write_json(self.path / "pod.json", {key: metadata[key] for key in ("namespace", "name", "uid")})
        return True

    def container(self, name: str) -> Path:
        """Return a container's directory."""
        return self.path / "containers" / name

    def containers(self) -> list[str]:
        """Return the names of containers that have a directory."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(entry.name for entry in (self.path / "containers").iterdir())
        return []

    def has_started(self) -> bool:
        """Say whether a container was ever started."""
        files = ("state.json", "attempts.json")
        return any((self.container(name) / file).exists() for name in self.containers() for file in files)

    def key(self, name: str, attempt: int) -> str:
        """Return the id under which the forking process knows a start of a container."""
        return f"{self.uid}/{name}/{attempt}"

    def observe(self, name: str, zygote: ZygoteClient) -> Observed:
        """Return a container's state, and record its end if that hasn't been done."""
        directory = self.container(name)
        attempts = read_json(directory / "attempts.json") or {"attempt": 0, "lastExit": None}
        attempt, last, delay = attempts["attempt"], attempts["lastExit"], float(attempts.get("delay", 0))
        state, ended = read_json(directory / "state.json"), read_json(directory / "exit.json")
        if state is None or ended is not None or alive(state):
            return Observed(attempt, state, ended, last, delay)
        try:
            ended = zygote.reap(self.key(name, attempt)).get("exit")
        except ZygoteError:
            ended = None
        ended = ended or read_json(directory / "exit.json") or self._own_word(directory, state)
        write_json(directory / "exit.json", ended)
        return Observed(attempt, state, ended, last, delay)

    @staticmethod
    def _own_word(directory: Path, state: dict[str, Any]) -> dict[str, Any]:
        """Return the end of a container whose parent was not running at the time."""
        ended = {"signal": None, "startedAt": state["startedAt"], "finishedAt": now()}
        with contextlib.suppress(OSError, ValueError):
            return ended | {"exitCode": int((directory / "self-exit").read_text())}
        return ended | {
            "exitCode": 137,
            "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the Pod was looked at",
        }

    def next_attempt(self, name: str, observed: Observed, message: str = "") -> int:
        """Prepare a container's directory for another start and return its number.

        :param message: how the last one ended, in its own words.
        """
        directory = self.container(name)
        attempt = observed.attempt + 1
        ended = observed.exit or {}
        delay = restart.following(observed.delay, seconds_of(ended))
        last_state = {**({"message": message} if message else {}), **ended}
        write_json(directory / "attempts.json", {"attempt": attempt, "lastExit": last_state, "delay": delay})
        for file in ("state.json", "exit.json", "self-exit"):
            (directory / file).unlink(missing_ok=True)
        last, before = log_path(directory, False), log_path(directory, True)
        for old, kept in ((last, before), (rotated(last), rotated(before))):
            kept.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                old.rename(kept)
        return attempt

    def signalled(self, key: str) -> float | None:
        """Return when (monotonic) a start of a container was asked to end; None if it wasn't.

        :param key: as of :meth:`key`.
        """
        noted = read_json(self._signalled(key)) or {}
        return clock.moment(noted) if noted.get("id") == key else None

    def note_signal(self, key: str, moment: float) -> None:
        """Record when a start of a container was asked to end, for a podrunner that takes over."""
        write_json(self._signalled(key), {"id": key, **clock.stamp(moment)})

    def _signalled(self, key: str) -> Path:
        return self.container(key.split("/")[1]) / "signalled.json"

    def message(self, name: str, of_log: bool) -> str:
        """Return a container's termination message: what is in its file, else (if asked for) its last log lines."""
        directory = self.container(name)
        text = _tail(directory / "termination-log")
        if not text.strip() and of_log:
            reader = Reader(directory, Options(tail=80))
            text = b"".join(reader)[-_MESSAGE_OF_LOG:].decode(errors="replace")
        return text.strip()

    def remove(self) -> None:
        """Remove the directory."""
        remove_tree(self.path)


def seconds_of(ended: dict[str, Any]) -> float:
    """Return how long a container ran that has ended."""
    stamps = [ended.get(key) or "" for key in ("startedAt", "finishedAt")]
    try:
        began, end = (datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ") for stamp in stamps)
    except ValueError:
        return 0.0
    return (end - began).total_seconds()


def _tail(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _MESSAGE))
            return file.read(_MESSAGE).decode(errors="replace")
    except OSError:
        return ""
