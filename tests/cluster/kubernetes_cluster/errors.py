# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What can go wrong, and waiting for what should go right."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class ClusterError(Exception):
    """Says what didn't work and what to look at."""


def tail(log: Path, lines: int = 15) -> str:
    """The end of a component's log, indented."""
    try:
        text = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        text = []
    return f"{log}:\n" + "\n".join(f"    {line}" for line in text or ["(empty)"])


def wait_for(
    what: str,
    condition: Callable[[], T],
    *,
    timeout: float,
    logs: Sequence[Path] = (),
    processes: Sequence[subprocess.Popen[bytes]] = (),
) -> T:
    """What `condition` returns once that is true.

    Components of Kubernetes tell nobody when they are ready, so this asks: an exception means not yet.

    :param processes: without which it will never be true.
    :raises ClusterError: after `timeout` seconds, or when one of the processes ended, with what was awaited, why it
        isn't there, and the ends of the logs.
    """
    deadline = time.monotonic() + timeout
    reason = "no reason given"
    while time.monotonic() < deadline:
        if ended := [p.returncode for p in processes if p.poll() is not None]:
            reason = f"a process it needs ended with code {ended[0]}"
            break
        try:
            if result := condition():
                return result
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        time.sleep(0.1)
    ends = "\n".join(tail(log) for log in logs)
    raise ClusterError(f"no {what} within {timeout:.0f} s: {reason}\n{ends}")
