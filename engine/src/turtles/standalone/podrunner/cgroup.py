# SPDX-License-Identifier: GPL-3.0-or-later
"""Resource limits of a Pod's processes, in cgroup v2 or v1, as far as the host lets us write there."""

import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

#: Controllers that are used, of whichever version they are.
_CONTROLLERS = ("cpu", "memory", "pids")
_PERIOD = 100_000


@dataclass(frozen=True)
class Limits:
    """What a group of processes may use. CPU in millicores, memory in bytes, tasks in number; None is no limit."""

    cpu_request: int = 0
    cpu_limit: int | None = None
    memory_limit: int | None = None
    pids_limit: int | None = None


def cpu_shares(millicores: int) -> int:
    """Return cgroup v1's cpu.shares for a request, as the kubelet computes it."""
    return max(2, min(262_144, millicores * 1024 // 1000))


def cpu_weight(millicores: int) -> int:
    """Return cgroup v2's cpu.weight for a request (KEP-2254)."""
    return 1 + (cpu_shares(millicores) - 2) * 9999 // 262_142


def join(procs: Iterable[str]) -> bool:
    """Put this process, which has one thread, into groups; say whether one of them limits how many processes it has.

    :param procs: the groups' files cgroup.procs.
    :raises OSError: it can't be in one of them.
    """
    limited = False
    for name in procs:
        # 0 is what writes (cgroups(7)). A thread that moves itself needn't wait until no process of the machine is
        # forking (for milliseconds, cgroup_procs_write_start() in the kernel); version 1 only.
        thread = Path(name).with_name("tasks")
        (thread if thread.exists() else Path(name)).write_text("0")
        with contextlib.suppress(OSError):
            limited |= Path(name).with_name("pids.max").read_text().strip() != "max"
    return limited


def oom_kills(procs: Iterable[str]) -> int:
    """Return how many processes of groups were killed because the groups' memory was used up.

    :param procs: the groups' files cgroup.procs.
    """
    kills = 0
    for name in procs:
        for file in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                for line in Path(name).with_name(file).read_text().splitlines():
                    key, _, value = line.partition(" ")
                    kills += int(value) if key == "oom_kill" else 0
    return kills


def node_pids() -> int:
    """Return how many processes and threads all Pods together may have: the kernel's maximum but a tenth."""
    return min(int(Path("/proc/sys/kernel", name).read_text()) for name in ("pid_max", "threads-max")) * 9 // 10


class Cgroups:
    """The groups of this instance's Pods: ``<controller>/<parent>/<pod uid>``.

    Each controller is used where the host has it: in a hierarchy of version 1, or in the unified one of version 2. A
    controller that is nowhere or not writable is named in the log once and skipped: its limits are not enforced.
    """

    def __init__(self, parent: str, mounts: str | None = None) -> None:
        """Find the hierarchies; ``mounts`` is a text like /proc/self/mountinfo's (for tests)."""
        self._parent = parent
        self._bases: dict[str, Path] = {}
        #: Controllers of the unified hierarchy; those of version 1 are not in it.
        self._unified: frozenset[str] = frozenset()
        #: What can't be used, and why.
        failures: dict[str, str] = {}
        text = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
        for line in text.splitlines():
            before, _, after = line.partition(" - ")
            where, kind, options = Path(before.split()[4]), after.split()[0], after.split()[-1].split(",")
            if kind == "cgroup":
                self._bases.update((name, where) for name in _CONTROLLERS if name in options)
            elif kind == "cgroup2":
                self._bases["unified"] = where
        for name, base in list(self._bases.items()):
            try:
                if name == "unified":
                    self._unified = self._available(base)
                    if not self._unified:
                        del self._bases[name]
                        continue
                (base / parent).mkdir(exist_ok=True)
            except OSError as error:
                failures |= dict.fromkeys(self._unified if name == "unified" else [name], str(error))
                del self._bases[name]
                self._unified = frozenset() if name == "unified" else self._unified
        if self._unified:
            base = self._bases["unified"]
            failures |= self._enable(base) | self._enable(base / parent)
        missing = [name for name in _CONTROLLERS if name not in self._unified and name not in self._bases]
        if missing:
            log.warning(
                "limits of Pods are not enforced: no cgroup controller",
                extra={"controllers": missing, **({"errors": failures} if failures else {})},
            )
        if "pids" not in missing:
            self._set(
                self._bases["pids" if "pids" in self._bases else "unified"] / parent, {"pids.max": str(node_pids())}
            )

    @staticmethod
    def _available(base: Path) -> frozenset[str]:
        return frozenset((base / "cgroup.controllers").read_text().split()) & frozenset(_CONTROLLERS)

    def _enable(self, group: Path) -> dict[str, str]:
        """Let a group's children have the controllers; give up those that can't be enabled, and return why."""
        failures = {}
        for name in sorted(self._unified):
            try:
                (group / "cgroup.subtree_control").write_text(f"+{name}")
            except OSError as error:
                # As the kernel refuses the controller cpu while there are realtime processes; the others still work.
                failures[name] = str(error)
        self._unified -= failures.keys()
        return failures

    def create_inner(self, name: str, inner: str, limits: Limits) -> list[str]:
        """Make the group of one container within that of its Pod, which is there, and return as :meth:`create` does.

        What a group of an earlier start has counted is forgotten.
        """
        if self._unified:
            pod = self._bases["unified"] / self._parent / name
            for controller in sorted(self._unified):
                try:
                    (pod / "cgroup.subtree_control").write_text(f"+{controller}")
                except OSError as error:
                    log.warning("limits of containers are not enforced", extra={"group": str(pod), "error": str(error)})
        for base in self._bases.values():
            # One that is left is used by processes that are about to end.
            with contextlib.suppress(OSError):
                (base / self._parent / name / inner).rmdir()
        return self.create(f"{name}/{inner}", limits)

    def create(self, name: str, limits: Limits) -> list[str]:
        """Make the group of a Pod and return the files into which its processes' ids are to be written."""
        procs = []
        for controller, base in self._bases.items():
            group = base / self._parent / name
            try:
                group.mkdir(exist_ok=True)
            except OSError as error:
                log.warning("cgroup not made", extra={"group": str(group), "error": str(error)})
                continue
            self._set(group, self._v2(limits) if controller == "unified" else self._v1(controller, limits))
            procs.append(str(group / "cgroup.procs"))
        return procs

    @staticmethod
    def _set(group: Path, settings: Mapping[str, str]) -> None:
        for key, value in settings.items():
            try:
                (group / key).write_text(value)
            except OSError as error:
                log.warning("limit not set", extra={"file": str(group / key), "value": value, "error": str(error)})

    @staticmethod
    def _pids(limits: Limits) -> dict[str, str]:
        return {"pids.max": "max" if limits.pids_limit is None else str(limits.pids_limit)}

    @classmethod
    def _v1(cls, controller: str, limits: Limits) -> Mapping[str, str]:
        if controller == "memory":
            return {} if limits.memory_limit is None else {"memory.limit_in_bytes": str(limits.memory_limit)}
        if controller == "pids":
            return cls._pids(limits)
        settings = {"cpu.shares": str(cpu_shares(limits.cpu_request))}
        if limits.cpu_limit is not None:
            settings |= {
                "cpu.cfs_period_us": str(_PERIOD),
                "cpu.cfs_quota_us": str(max(1000, limits.cpu_limit * _PERIOD // 1000)),
            }
        return settings

    def _v2(self, limits: Limits) -> Mapping[str, str]:
        settings: dict[str, str] = {}
        if "cpu" in self._unified:
            settings["cpu.weight"] = str(cpu_weight(limits.cpu_request))
            if limits.cpu_limit is not None:
                settings["cpu.max"] = f"{max(1000, limits.cpu_limit * _PERIOD // 1000)} {_PERIOD}"
        if "memory" in self._unified and limits.memory_limit is not None:
            settings["memory.max"] = str(limits.memory_limit)
        return settings | (self._pids(limits) if "pids" in self._unified else {})

    def remove(self, name: str) -> None:
        """Remove a Pod's group; its processes are gone by then."""
        for base in self._bases.values():
            self._rmdir(base / self._parent / name)

    def remove_all(self) -> bool:
        """Remove the parent group with all groups in it; say whether anything was there."""
        removed = False
        for base in self._bases.values():
            parent = base / self._parent
            if parent.is_dir():
                for entry in parent.iterdir():
                    if entry.is_dir():
                        removed = True
                        self._rmdir(entry)
                self._rmdir(parent)
        return removed

    @classmethod
    def _rmdir(cls, group: Path) -> None:
        """Remove a group and those of containers in it."""
        try:
            for entry in group.iterdir():
                if entry.is_dir():
                    cls._rmdir(entry)
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("cgroup not removed", extra={"group": str(group), "error": str(error)})
