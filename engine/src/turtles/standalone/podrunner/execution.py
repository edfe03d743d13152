# SPDX-License-Identifier: GPL-3.0-or-later
"""An additional command in a running container: its namespaces, its user, its privileges."""

import fcntl
import os
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from turtles.standalone.podrunner import privileges
from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.cgroup import join
from turtles.standalone.podrunner.seccomp import RUNTIME_DEFAULT, UNCONFINED, Filters

_NAMESPACES = (
    ("net", sc.CLONE_NEWNET),
    ("ipc", sc.CLONE_NEWIPC),
    ("uts", sc.CLONE_NEWUTS),
    ("cgroup", sc.CLONE_NEWCGROUP),
    ("mnt", sc.CLONE_NEWNS),
)
_TIOCSPTLCK, _TIOCGPTN = 0x40045431, 0x80045430


@dataclass(frozen=True)
class Execution:
    """What the command's process needs to know, as plain data.

    :param pid: the container's process 1, and ``start`` what tells it from a later process with its number.
    :param terminal: whether it gets a terminal, in place of the three streams.
    """

    pid: int
    start: str
    argv: list[str]
    env: dict[str, str]
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: list[int] = field(default_factory=list)
    capabilities: list[str] = field(default_factory=list)
    terminal: bool = False
    cgroup_procs: list[str] = field(default_factory=list)
    #: ``seccompProfile.type``.
    seccomp: str = RUNTIME_DEFAULT


def run(execution: Execution, filters: Filters, started: Callable[[list[int]], object]) -> None:
    """Become the command, in a process that is in the container's process namespace already.

    Nothing of the container is executed or loaded before its privileges are all that is left, and nothing in it may
    look into this process until then.

    :param filters: system call filters that are compiled already.
    :param started: called before the command takes over, with the terminal's master where there is one.
    :raises OSError: a step failed, or there is no such command; the message says which.
    :raises turtles.standalone.podrunner.seccomp.SeccompError: this machine can't make the filter that is asked for.
    """
    sc.prctl(sc.PR_SET_DUMPABLE, 0)
    program = filters.get(execution.capabilities) if execution.seccomp != UNCONFINED else None
    limited = join(execution.cgroup_procs)
    # Else it would be the forking process's, which the kernel is to spare.
    privileges.set_oom_score_adj(int(Path(f"/proc/{execution.pid}/oom_score_adj").read_text()))
    os.umask(0o022)
    opened = [
        (os.open(f"/proc/{execution.pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind) for name, kind in _NAMESPACES
    ]
    for fd, kind in opened:
        sc.setns(fd, kind)
        os.close(fd)
    os.chdir(execution.cwd)
    privileges.restrict(
        execution.uid, execution.gid, execution.groups, execution.capabilities, program, limited=limited
    )
    command = _find(execution.argv[0], execution.env.get("PATH", ""))
    masters: list[int] = []
    if execution.terminal:
        master, terminal = _terminal()
        for number in range(3):
            os.dup2(terminal, number)
        if terminal > 2:
            os.close(terminal)
        masters.append(master)
    started(masters)
    os.execve(command, execution.argv, execution.env)  # noqa: S606 - the command is the user's


def _terminal() -> tuple[int, int]:
    """Return master and slave of a new terminal of the container's own, which is now this session's (pts(4))."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    number = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
    slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    return master, slave


def _find(name: str, path: str) -> str:
    """Return the program that a command names (execvp(3)).

    :raises OSError: there is none, or it may not be executed.
    """
    candidates = [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in path.split(":")]
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and not Path(candidate).is_dir():
            return candidate
    for candidate in candidates:
        if Path(candidate).exists():
            raise PermissionError(f'exec: "{name}": permission denied')
    if "/" in name:
        raise FileNotFoundError(f'exec: "{name}": stat {name}: no such file or directory')
    raise FileNotFoundError(f'exec: "{name}": executable file not found in $PATH')
