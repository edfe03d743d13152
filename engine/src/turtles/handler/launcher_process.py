# SPDX-License-Identifier: GPL-3.0-or-later
"""Process 1 of a launcher's Pod: what its environment says, where it may run, its namespaces, its root."""

import errno
import os
from collections.abc import Collection

from turtles.handler import process_limits, processors, realtime
from turtles.handler.peer import closing, open_namespace

#: How much of the launcher's environment is read.
_ENVIRONMENT_BYTES = 65536
#: More than /proc/<number>/status ever is.
_STATUS_SIZE = 65536


class LauncherProcess:
    """The launcher's process, held by its folder /proc/<number>: no other process, even if that gets the number."""

    def __init__(self) -> None:
        self._folder: int | None = None

    def hold(self, folder: int) -> None:
        """Take over the descriptor of the process's folder, in place of an earlier one."""
        self.close()
        self._folder = folder

    def close(self) -> None:
        """Let go of the process."""
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    @property
    def folder(self) -> int:
        """Descriptor of /proc/<number>.

        :raises FileNotFoundError: if the process isn't known, any more or yet.
        """
        if self._folder is None:
            raise FileNotFoundError(errno.ENOENT, "not connected to the Pod's libvirtd")
        return self._folder

    def open_root(self) -> int:
        """Return a descriptor of the process's root.

        :raises OSError: if it has ended or isn't known.
        """
        return os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.folder)

    def open_namespace(self, kind: str) -> int:
        """Return a descriptor of one of the process's namespaces.

        :param kind: its name in /proc/<number>/ns.
        :raises OSError: if it has ended or isn't known.
        """
        return open_namespace(self.folder, kind)

    def environment(self) -> dict[str, str]:
        """Return the variables that the process was started with; none if they can't be read."""
        try:
            with open(os.open("environ", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.folder), "rb") as file:
                text = file.read(_ENVIRONMENT_BYTES).decode(errors="replace")
        except OSError:
            return {}
        return dict(entry.partition("=")[::2] for entry in text.split("\0"))

    def processors(self) -> tuple[int, ...]:
        """Return the node's processors that the Pod may run on."""
        with closing(os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.folder)) as file:
            status = os.read(file, _STATUS_SIZE).decode(errors="replace")
        lines = [line.partition(":")[2] for line in status.splitlines() if line.startswith("Cpus_allowed_list:")]
        return processors.parse_list(lines[0]) if lines else ()

    def schedule_in_real_time(self, vcpus: Collection[int]) -> None:
        """Have virtual processors scheduled in real time.

        :raises OSError: if the kernel refuses it.
        """
        realtime.schedule(os.readlink("ns/pid", dir_fd=self.folder), vcpus)

    def allow_locked_memory(self, amount: int) -> None:
        """Let the Pod's processes lock that many bytes of memory.

        :raises OSError: if the kernel refuses it.
        """
        process_limits.allow(os.readlink("ns/pid", dir_fd=self.folder), process_limits.LOCKED_MEMORY, amount)

    def allow_open_files(self, number: int) -> None:
        """Let each of the Pod's processes have that many files open.

        :raises OSError: if the kernel refuses it.
        """
        process_limits.allow(os.readlink("ns/pid", dir_fd=self.folder), process_limits.OPEN_FILES, number)
