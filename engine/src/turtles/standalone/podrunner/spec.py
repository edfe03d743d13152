# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container's process is told about the container, as plain data."""

from dataclasses import dataclass, field
from typing import Any

from turtles.standalone.podrunner.seccomp import RUNTIME_DEFAULT

#: File descriptors that a container's process may have.
NOFILE = 65536


@dataclass(frozen=True)
class Mount:
    """A path of the host that is visible in the container at ``target``."""

    source: str
    target: str
    read_only: bool = False
    no_exec: bool = False
    recursive: bool = False
    #: The source has no symbolic links; one that is there nevertheless was put there by another Pod.
    no_links: bool = False


@dataclass(frozen=True)
class Spec:
    """All a container's process needs to know, as plain data: it is passed as JSON (see :func:`spec_from`)."""

    entry_point: str
    argv: list[str]
    env: dict[str, str]
    root_mount: str
    hostname: str
    netns: str | None = None
    uid: int = 0
    gid: int = 0
    groups: list[int] = field(default_factory=list)
    capabilities: list[str] = field(default_factory=list)
    devices: dict[str, str] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    #: Paths of the host that are seen at the same place, read-only, as far as they exist.
    show: list[str] = field(default_factory=list)
    #: Directories below those that are not to be seen.
    masks: list[str] = field(default_factory=list)
    cwd: str = "/"
    cgroup_procs: list[str] = field(default_factory=list)
    oom_score_adj: int = 0
    nofile: int = NOFILE
    #: ``seccompProfile.type``.
    seccomp: str = RUNTIME_DEFAULT
    #: With it the entry point is called as ``function(argument)`` instead of ``function(argv)``.
    argument: str | None = None


def spec_from(data: dict[str, Any]) -> Spec:
    """Return the Spec that ``dataclasses.asdict`` turned into plain data."""
    return Spec(**(data | {"mounts": [Mount(**entry) for entry in data.get("mounts", [])]}))
