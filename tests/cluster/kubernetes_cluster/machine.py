# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One machine of a cluster: processes in namespaces of their own, with a root, a network and a process 1."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

from . import cgroup
from .errors import ClusterError, wait_for
from .settings import Settings

PROGRAMS = Path(__file__).parent
#: Where programs are on a machine: those given, those built, Debian's that aren't installed, the host's.
PATH = (
    "/opt/programs:/opt/kubernetes/bin:/opt/kubernetes/root/usr/bin:/opt/kubernetes/root/usr/sbin"
    ":/usr/sbin:/usr/bin:/sbin:/bin"
)


class Machine:
    """A machine called `name`; see boot.sh for what it is made of.

    Files: DIRECTORY/machines/NAME/{etc,var,tmp} are its folders (etc: what it gets at boot), DIRECTORY/logs/NAME-*.log
    what its programs say.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self.name = name
        self.directory = settings.directory / "machines" / name
        self._logs = settings.directory / "logs"
        self._cgroup = f"{settings.cgroup}/{name}"
        self._programs = settings.programs
        self.etc = self.directory / "etc"

    def prepare(self) -> None:
        """Make its folders."""
        for folder in ("etc", "var", "tmp", "root"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)

    def boot(self, cache: Path) -> None:
        """Start process 1."""
        cgroup.create(self._cgroup)
        namespaces = ("--mount", "--net", "--uts", "--ipc", "--cgroup", "--pid", "--fork", "--kill-child")
        program = (PROGRAMS / "boot.sh", self.name, self.directory, cache, self._programs or "")
        process = self._spawn("boot", "unshare", *namespaces, *program)
        wait_for(f"machine {self.name}", lambda: self.pid, timeout=60, logs=[self.log("boot")], processes=[process])

    @property
    def pid(self) -> int:
        """Process 1, as the host counts.

        :raises ClusterError: when the machine isn't up.
        """
        try:
            pid = int((self.directory / "pid").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            raise ClusterError(f"machine {self.name} isn't up") from None
        return pid

    def log(self, program: str) -> Path:
        """What a program says."""
        return self._logs / f"{self.name}-{program}.log"

    def _spawn(self, name: str, *command: str | Path) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as log:
            return subprocess.Popen(
                [PROGRAMS / "join.sh", self._cgroup, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={"PATH": PATH, "HOME": "/root"},
                cwd="/",
            )

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--all"]

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a program that stays; it logs under `name`."""
        return self._spawn(name, *self._enter(), *command)

    def start_outside(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a program that stays, on the host but with what the machine's processes are ended with."""
        return self._spawn(name, *command)

    def run(self, *command: str, timeout: float = 60) -> str:
        """Run a command on the machine; what it prints.

        :raises ClusterError: where it fails or takes longer than `timeout` seconds, with what it printed.
        """
        try:
            done = subprocess.run(
                [PROGRAMS / "join.sh", self._cgroup, *self._enter(), *command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout,
                env={"PATH": PATH, "HOME": "/root"},
                cwd="/",
            )
        except subprocess.TimeoutExpired:
            raise ClusterError(f"{self.name}: {shlex.join(command)}: no end within {timeout} s") from None
        if done.returncode:
            output = done.stdout[-2000:] + done.stderr[-2000:]
            raise ClusterError(f"{self.name}: {shlex.join(command)} failed ({done.returncode}): {output}")
        return done.stdout

    def processes(self, *words: str) -> list[int]:
        """Processes on the machine, Pods' included, whose command line holds all the words."""
        found = []
        for pid in sorted(cgroup.processes(self._cgroup)):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if command and not command.startswith("nsenter ") and all(word in command for word in words):
                found.append(pid)
        return found

    def kill(self, program: str) -> None:
        """kill -9 the processes of a program, whose name without folder this is.

        :raises ClusterError: when it doesn't run.
        """
        found = [pid for pid in cgroup.processes(self._cgroup) if _program(pid) == program]
        if not found:
            raise ClusterError(f"{self.name}: no process {program}")
        for pid in found:
            os.kill(pid, signal.SIGKILL)


def _program(pid: int) -> str:
    try:
        return Path(os.readlink(f"/proc/{pid}/exe")).name
    except OSError:  # it ended
        return ""
