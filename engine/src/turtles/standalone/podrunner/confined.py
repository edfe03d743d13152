# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a program on untrusted input: limited in time, memory and file size, and killed with all it started.

The program is the leader of a process group of its own, and the kernel kills it when the thread that waits for it ends
(PR_SET_PDEATHSIG, prctl(2)): neither a cancelled nor a killed podrunner leaves one behind.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: How often a running program's ``check`` is asked, in seconds.
_INTERVAL = 0.2
#: Bytes of a program's standard error that are kept: its last words.
_MAX_WORDS = 64 << 10


class CancelledError(Exception):
    """The result is no longer wanted."""


class OverdueError(Exception):
    """The time limit was exceeded."""


class Attempt:
    """Something that takes time: what it is doing, its deadline, and whether it is still wanted.

    :param seconds: how long it may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.stage = "starting"
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self) -> None:
        """Release its resources."""
        os.close(self._event)

    def cancel(self) -> None:
        """End it; safe from any thread, any number of times."""
        os.eventfd_write(self._event, 1)

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        poll = select.poll()
        poll.register(self._event, select.POLLIN)
        return bool(poll.poll(0))

    def fileno(self) -> int:
        """Return a descriptor that is readable once it was cancelled."""
        return self._event

    def check(self) -> None:
        """Raise if it must not continue.

        :raises CancelledError: it was cancelled.
        :raises OverdueError: its time is up.
        """
        if self.cancelled:
            raise CancelledError
        if time.monotonic() >= self.deadline:
            raise OverdueError


@dataclass(frozen=True)
class Limits:
    """What a program may use, as setrlimit(2) counts it: CPU seconds, and bytes of data and of each file it writes."""

    cpu: int
    data: int
    file_size: int

    def command(self) -> list[str]:
        """Return the words to put before a command."""
        return [
            "prlimit",
            f"--cpu={self.cpu}:{self.cpu + 5}",
            f"--data={self.data}",
            f"--fsize={self.file_size}",
            "--core=0",
            "--",
            "setpriv",
            "--pdeathsig=KILL",
            "--",
        ]


def waits_for_disk(pid: int) -> bool:
    """Say whether a thread of a process waits for the disk now (state D, proc(5))."""
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[0] == "D":
                return True
    return False


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code (negative: the signal that ended it) and the end of its error output."""

    code: int
    words: str

    @property
    def out_of_cpu(self) -> bool:
        """Whether it used up its CPU seconds."""
        # The second is how Go's runtime ends.
        return self.code == -signal.SIGXCPU or "SIGXCPU" in self.words


def run(
    command: Sequence[str],
    limits: Limits,
    attempt: Attempt,
    folder: Path,
    *,
    output: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: Callable[[int], None] = lambda pid: None,
) -> Ended:
    """Run a program to its end.

    :param folder: where its standard error is kept, to which the limit on file size applies too.
    :param output: file for its standard output; none: it is dropped.
    :param check: called with the program's pid several times a second; an exception ends the program.
    :raises CancelledError: the attempt was cancelled.
    :raises OverdueError: the attempt's time is up.
    :raises FileNotFoundError: there is no such program.
    """
    attempt.check()
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(command[0])
    words = folder / f"words-{os.urandom(4).hex()}"
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(open(words, "w+b"))
        stdout = subprocess.DEVNULL if output is None else stack.enter_context(open(output, "wb"))
        process = subprocess.Popen(
            [*limits.command(), *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=errors,
            env=env,
            start_new_session=True,
        )
        try:
            pidfd = os.pidfd_open(process.pid)
            stack.callback(os.close, pidfd)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.register(attempt, select.POLLIN)
            while pidfd not in [fd for fd, _ in poll.poll(_INTERVAL * 1000)]:
                attempt.check()
                check(process.pid)
        finally:
            # Also what it left running behind it, which would go on writing.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - _MAX_WORDS))
        text = errors.read().decode(errors="replace")
    words.unlink()
    return Ended(code, text)
