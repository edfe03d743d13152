# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Control groups of a cluster: where all its processes are found, whoever started them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from .errors import ClusterError

ROOT = Path("/sys/fs/cgroup")


def check_for_nodes() -> None:
    """Nodes need the hierarchies of version 1.

    :raises ClusterError: where the kernel has only the unified one, which Kubernetes 1.20 with cgroupfs can't use from
        inside another control group.
    """
    if _is_unified():
        raise ClusterError(
            "nodes of the test cluster need control groups of version 1 (boot with "
            "systemd.unified_cgroup_hierarchy=0), or set KUBECONFIG to use a cluster that exists"
        )


def hierarchies() -> list[Path]:
    """Every hierarchy of control groups: one of version 2, several of version 1."""
    if _is_unified():
        return [ROOT]
    return [h for h in sorted(ROOT.iterdir()) if (h / "cgroup.procs").exists() and not h.is_symlink()]


def _is_unified() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def create(group: str) -> None:
    """Make the group, and those above it, in every hierarchy."""
    for hierarchy in hierarchies():
        folder = hierarchy
        for part in Path(group).parts:
            folder = folder / part
            folder.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                # a new group of processors has none, and takes no process
                if (folder / name).exists() and not (folder / name).read_text().strip():
                    (folder / name).write_text((folder.parent / name).read_text())


def processes(group: str) -> set[int]:
    """Ids of the processes in the group and below, in any hierarchy."""
    found: set[int] = set()
    for hierarchy in hierarchies():
        for folder, _folders, _files in os.walk(hierarchy / group):
            try:
                found.update(int(pid) for pid in Path(folder, "cgroup.procs").read_text().split())
            except OSError:  # it went meanwhile
                continue
    found.discard(0)  # somebody in namespaces beyond ours
    return found


def remove(group: str, *, timeout: float = 60) -> None:
    """Kill everything in the group and remove it.

    :raises ClusterError: when something is still there after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while left := _try_remove(group):
        if time.monotonic() > deadline:
            names = [f"{pid} {Path(f'/proc/{pid}/comm').read_text().strip()}" for pid in processes(group)]
            raise ClusterError(f"control group {left} can't be removed; processes: {', '.join(names) or 'none'}")
        time.sleep(0.05)  # killed processes take a moment to end


def remove_empty(group: str) -> None:
    """Remove the group where nothing is in it."""
    for hierarchy in hierarchies():
        with contextlib.suppress(OSError):  # not there, or somebody else's groups are in it
            (hierarchy / group).rmdir()


def _try_remove(group: str) -> Path | None:
    for pid in processes(group):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    left = None
    for hierarchy in hierarchies():
        for folder, _folders, _files in os.walk(hierarchy / group, topdown=False):
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                left = Path(folder)
    return left
