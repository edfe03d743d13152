# SPDX-License-Identifier: GPL-3.0-or-later
"""Resource limits of a Pod's processes, in cgroup v2 or v1, as far as the host lets us write there."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

#: v1 controllers used where they are mounted.
_V1 = ("cpu", "memory", "pids")
_PERIOD = 100_000


@dataclass(frozen=True)
class Limits:
    """What a group of processes may use. CPU in millicores, memory in bytes; None is no limit."""

    cpu_request: int = 0
    cpu_limit: int | None = None
    memory_limit: int | None = None


def cpu_shares(millicores: int) -> int:
    """Return cgroup v1's cpu.shares for a request, as the kubelet computes it."""
    return max(2, min(262_144, millicores * 1024 // 1000))


def cpu_weight(millicores: int) -> int:
    """Return cgroup v2's cpu.weight for a request (KEP-2254)."""
    return 1 + (cpu_shares(millicores) - 2) * 9999 // 262_142


class Cgroups:
    """The groups of this instance's Pods: ``<controller>/<parent>/<pod uid>``.

    A controller that is not mounted or not writable is named in the log once and skipped: limits are then not enforced.
    """

    def __init__(self, parent: str, mounts: str | None = None) -> None:
        """Find the hierarchies; ``mounts`` is a text like /proc/self/mountinfo's (for tests)."""
        self._parent = parent
        self._bases: dict[str, Path] = {}
        text = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
        for line in text.splitlines():
            before, _, after = line.partition(" - ")
            where, kind, options = Path(before.split()[4]), after.split()[0], after.split()[-1].split(",")
            if kind == "cgroup":
                self._bases.update((name, where) for name in _V1 if name in options)
            elif kind == "cgroup2":
                self._bases["unified"] = where
        if any(name in self._bases for name in _V1):
            self._bases.pop("unified", None)
        for name, base in list(self._bases.items()):
            try:
                (base / parent).mkdir(exist_ok=True)
                if name == "unified":
                    self._enable(base)
                    self._enable(base / parent)
            except OSError as error:
                log.warning("limits of Pods are not enforced: cgroup not writable", extra={"controller": name,
                            "error": str(error)})
                del self._bases[name]
        missing = [name for name in ("cpu", "memory") if "unified" not in self._bases and name not in self._bases]
        if missing:
            log.warning("limits of Pods are not enforced: no cgroup controller", extra={"controllers": missing})

    @staticmethod
    def _enable(group: Path) -> None:
        available = (group / "cgroup.controllers").read_text().split()
        for name in _V1:
            if name in available:
                (group / "cgroup.subtree_control").write_text(f"+{name}")

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
            settings = self._v2(limits) if controller == "unified" else self._v1(controller, limits)
            for key, value in settings.items():
                try:
                    (group / key).write_text(value)
                except OSError as error:
                    log.warning("limit not set", extra={"file": str(group / key), "value": value, "error": str(error)})
            procs.append(str(group / "cgroup.procs"))
        return procs

    @staticmethod
    def _v1(controller: str, limits: Limits) -> Mapping[str, str]:
        if controller == "memory":
            return {} if limits.memory_limit is None else {"memory.limit_in_bytes": str(limits.memory_limit)}
        if controller != "cpu":
            return {}
        settings = {"cpu.shares": str(cpu_shares(limits.cpu_request))}
        if limits.cpu_limit is not None:
            settings |= {
                "cpu.cfs_period_us": str(_PERIOD),
                "cpu.cfs_quota_us": str(max(1000, limits.cpu_limit * _PERIOD // 1000)),
            }
        return settings

    @staticmethod
    def _v2(limits: Limits) -> Mapping[str, str]:
        settings = {"cpu.weight": str(cpu_weight(limits.cpu_request))}
        if limits.cpu_limit is not None:
            settings["cpu.max"] = f"{max(1000, limits.cpu_limit * _PERIOD // 1000)} {_PERIOD}"
        if limits.memory_limit is not None:
            settings["memory.max"] = str(limits.memory_limit)
        return settings

    def remove(self, name: str) -> None:
        """Remove a Pod's group; its processes are gone by then."""
        for base in self._bases.values():
            self._rmdir(base / self._parent / name)

    def remove_all(self) -> bool:
        """Remove the parent group with all groups in it; say whether anything was there."""
        found = False
        for base in self._bases.values():
            parent = base / self._parent
            if parent.is_dir():
                for entry in parent.iterdir():
                    if entry.is_dir():
                        found = True
                        self._rmdir(entry)
                self._rmdir(parent)
        return found

    @staticmethod
    def _rmdir(group: Path) -> None:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("cgroup not removed", extra={"group": str(group), "error": str(error)})
