# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine in standalone mode: what the end-to-end tests do with its processes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine import Engine

#: In the command lines of processes of a further node on the machine.
_FURTHER = re.compile(r"--(?:config=|pods-dir=|socket )\S*/nodes/")


def commands() -> Iterator[tuple[int, str]]:
    """Pids and command lines of the machine's processes."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            yield int(entry.name), command


def programs(pids: list[int]) -> list[int]:
    """Those of processes that are no children of others: a child has its parent's command line until it has its own."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) not in pids:
                found.append(pid)
    return found


class Cluster(Engine):
    """The engine in standalone mode on this machine.

    :param instance: the name the roles were given as `turtles_instance`.
    """

    def __init__(self, *, instance: str, **options: Any) -> None:
        super().__init__(**options)
        self.instance = instance

    def processes(self, *words: str) -> Iterator[int]:
        """Pids of this instance's processes, without those of its further nodes, whose command line holds the words."""
        ours = [(pid, command) for pid, command in commands() if f"/{self.instance}/" in command]
        yield from programs(
            [pid for pid, command in ours if not _FURTHER.search(command) and all(word in command for word in words)]
        )

    def node_processes(self, node: str, *words: str) -> Iterator[int]:
        """Pids of the processes of a further node whose command line holds the words."""
        ours = [(pid, command) for pid, command in commands() if f"/{self.instance}/nodes/{node}/" in command]
        yield from programs([pid for pid, command in ours if all(word in command for word in words)])

    def pod_processes(self, namespace: str, vmi: str, word: str) -> list[int]:
        return self.processes_of_pod(self.launcher(namespace, vmi).metadata.uid, word)

    def processes_of_pod(self, uid: str, word: str) -> list[int]:
        """Pids of the processes in the Pod with that uid whose command line holds the word."""
        (file,) = Path(f"/run/{self.instance}").glob(f"**/netns/{uid}")
        netns = file.stat().st_ino
        found = []
        for pid, command in commands():
            with contextlib.suppress(OSError):
                if word in command and os.stat(f"/proc/{pid}/ns/net").st_ino == netns:
                    found.append(pid)
        return programs(found) if word else found

    def publish(self, archive: Path) -> str:
        place = Path(f"/var/lib/{self.instance}/images", archive.name)
        shutil.copy(archive, place)
        return f"oci-archive:{place}:latest"

    def kill(self, *words: str) -> int:
        """kill -9 the one process whose command line holds the words; its pid."""
        (pid,) = self.processes(*words)
        os.kill(pid, signal.SIGKILL)
        return pid
