# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a cluster of the tests' own leaves behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kubernetes_cluster import Settings, cgroup


def traces(settings: Settings) -> list[str]:
    """Files, interfaces, mounts, control groups, routes, packet filters and processes of a cluster on this machine."""
    interface = Path(f"/sys/class/net/{settings.instance}")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    groups = [h / settings.cgroup for h in cgroup.hierarchies()]
    commands = (["ip", "route"], ["nft", "list", "ruleset"], ["iptables-save"])
    rules = [subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands]
    mine = settings.network.removesuffix("0.0/16")
    return [
        *(str(path) for path in (interface, settings.directory, *groups) if path.exists()),
        *(line for line in mounts if str(settings.directory) in line),
        *(line for line in "".join(rules).splitlines() if mine in line),
        *(f"process {pid}" for pid in cgroup.processes(settings.cgroup)),
    ]
