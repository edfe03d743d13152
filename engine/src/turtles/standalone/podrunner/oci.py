# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a container for an OCI runtime: pure, no I/O.

Rules: OCI runtime specification, "Configuration"; containerd's default spec for what it leaves open. Two things differ
from there. No cgroup is configured: the podrunner's own ones (:mod:`.cgroup`) are there already. And instead of by a
device cgroup, which comes with one, the machine's devices are kept away by file systems: none that a container can
write to has device files, and none has programs with set-id bits.
"""

import base64
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from turtles.api.objects import Object
from turtles.standalone.podrunner import privileges, root
from turtles.standalone.podrunner.spec import NOFILE, Mount

#: Capabilities of a container that says nothing: containerd's, without the one for making device files.
DEFAULT_CAPABILITIES = privileges.DEFAULT_CAPABILITIES - {"MKNOD"}
#: crun's own key for a system call filter that is compiled already (crun(1)).
_FILTER = "run.oci.seccomp_bpf_data"
#: Folder of the bundle in which the container's root is mounted.
ROOT = "rootfs"


@dataclass(frozen=True)
class Process:
    """The first process of a container, and what its other processes (``exec``, probes) have in common with it."""

    args: list[str]
    env: dict[str, str]
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: list[int] = field(default_factory=list)
    #: Without the prefix CAP_.
    capabilities: list[str] = field(default_factory=list)
    terminal: bool = False
    #: File descriptors that each process may have.
    nofile: int = NOFILE

    @property
    def effective(self) -> list[str]:
        """The capabilities that it can use: as in Kubernetes, none are left of those of an ordinary user."""
        return [] if self.uid else self.capabilities


@dataclass(frozen=True)
class Container:
    """A container as far as an OCI runtime has to know it.

    :param netns: path of its network namespace, None for the machine's.
    :param mounts: in addition to those that every container has.
    :param devices: device files: path, and what :func:`number_of` gives.
    :param seccomp: system call filter, None for none.
    :param sysctls: kernel parameters of its namespaces.
    """

    process: Process
    hostname: str
    netns: str | None
    mounts: Sequence[Mount] = ()
    devices: Mapping[str, tuple[int, bool]] = field(default_factory=dict)
    read_only_root: bool = False
    seccomp: bytes | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)


def config_of(container: Container) -> Object:
    """Return the content of a bundle's config.json."""
    targets = {mount.target for mount in container.mounts}
    mounts = [entry for entry in _MOUNTS if entry["destination"] not in targets]
    # What is mounted below something else comes after it.
    mounts += [_bind(mount) for mount in sorted(container.mounts, key=lambda one: one.target.rstrip("/").count("/"))]
    namespaces: list[Object] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")]
    if container.netns is not None:
        namespaces.append({"type": "network", "path": container.netns})
    return {
        "ociVersion": "1.0.0",
        "process": _process(container.process),
        "root": {"path": ROOT, "readonly": container.read_only_root},
        "hostname": container.hostname,
        "mounts": mounts,
        "annotations": (
            {} if container.seccomp is None else {_FILTER: base64.b64encode(container.seccomp).decode("ascii")}
        ),
        "linux": {
            "namespaces": namespaces,
            "devices": [_device(path, number, container.process) for path, number in sorted(container.devices.items())],
            "sysctl": dict(container.sysctls),
            "maskedPaths": list(root.MASKED),
            "readonlyPaths": [f"/proc/{name}" for name in root.PROC_READ_ONLY],
            "rootfsPropagation": "rprivate",
        },
    }


def process_of(config: Object) -> Process:
    """Return the process that a config.json of :func:`config_of` describes."""
    process = config["process"]
    return Process(
        args=list(process["args"]),
        env=dict(entry.partition("=")[::2] for entry in process["env"]),
        cwd=process["cwd"],
        uid=process["user"]["uid"],
        gid=process["user"]["gid"],
        groups=list(process["user"]["additionalGids"]),
        capabilities=[name.removeprefix("CAP_") for name in process["capabilities"]["bounding"]],
        terminal=process["terminal"],
    )


def is_filtered(config: Object) -> bool:
    """Say whether a container's system calls are filtered, as config.json says."""
    return _FILTER in config["annotations"]


def _process(process: Process) -> Object:
    bounding = [f"CAP_{name}" for name in process.capabilities]
    effective = [f"CAP_{name}" for name in process.effective]
    return {
        "terminal": process.terminal,
        "user": {"uid": process.uid, "gid": process.gid, "additionalGids": process.groups},
        "args": process.args,
        "env": [f"{name}={value}" for name, value in process.env.items()],
        "cwd": process.cwd,
        "capabilities": {
            "bounding": bounding,
            "effective": effective,
            "permitted": effective,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": process.nofile, "hard": process.nofile},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ],
        "noNewPrivileges": True,
    }


def _bind(mount: Mount) -> Object:
    depth = "r" if mount.recursive else ""
    options = [f"{depth}bind", "rprivate", "nosuid", "nodev", "ro" if mount.read_only else "rw"]
    if mount.recursive:
        # Also what is mounted below.
        options += ["rnosuid", "rnodev", *(["rro"] if mount.read_only else [])]
    options += ["noexec"] if mount.no_exec else []
    return {"destination": mount.target, "type": "bind", "source": mount.source, "options": options}


def number_of(path: Path) -> tuple[int, bool]:
    """Return a device's number as stat(2) gives it, and whether it is one of blocks."""
    status = path.stat()
    return status.st_rdev, stat.S_ISBLK(status.st_mode)


def _device(path: str, numbered: tuple[int, bool], process: Process) -> Object:
    number, is_block = numbered
    return {
        "path": path,
        "type": "b" if is_block else "c",
        "major": os.major(number),
        "minor": os.minor(number),
        "fileMode": 0o660,
        # What a container is given is its user's, as with containerd's device_ownership_from_security_context.
        "uid": process.uid,
        "gid": process.gid,
    }


def _mount(target: str, kind: str, *options: str) -> Object:
    return {"destination": target, "type": kind, "source": kind, "options": list(options)}


_MOUNTS = (
    _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
    # The one file system with devices: nobody is to add others.
    _mount("/dev", "tmpfs", "nosuid", "noexec", "strictatime", "mode=755", "size=64k", "ro"),
    _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    _mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=64m"),  # noqa: S108
    _mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
    _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
)
