# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's root file system: a tmpfs that is empty but for what is listed.

Programs and libraries of the host's operating system, and the few files of /etc that they read, are there read-only.
What isn't listed (homes, /srv, /opt, /var, the host's and the engine's own configuration) is not there. The old root is
unmounted entirely, so that no Pod holds on to the mounts of another.

Sources of the rules: pivot_root(2), open_tree(2), mount_setattr(2); the kubelet's layout of /etc/hosts and
/dev/termination-log; the OCI runtime specification for default devices, and containerd's default spec for masked and
read-only paths.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.host_programs import EMPTY_FOLDERS
from turtles.standalone.podrunner.spec import Spec

_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {"/var/run": "/run", "/var/lock": "/run/lock", "/etc/mtab": "../proc/self/mounts"}
_WRITABLE_TMPFS = (("/run", "755", "64m"), ("/tmp", "1777", "256m"), ("/var/tmp", "1777", "256m"))  # noqa: S108
PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)


def change(spec: Spec) -> None:
    """Change the root of this process, which has a mount namespace of its own.

    :raises OSError: a step failed.
    """
    # Everything is opened before the root changes and placed after it: from then on every path, with all symbolic
    # links in it, resolves inside the container.
    volumes = [(mount, sc.open_tree(mount.source, mount.recursive, mount.no_links)) for mount in spec.mounts]
    shown, links = _open_shown(spec.show)
    numbers = {target: Path(source).stat() for target, source in spec.devices.items()}

    sc.mount("tmpfs", spec.root_mount, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755,size=1m")
    os.chdir(spec.root_mount)
    sc.pivot_root_here()
    os.umask(0o022)
    # Devices of the tmpfs that are the container's own: only there may mount points be made.
    own = {Path("/").stat().st_dev}

    for name in EMPTY_FOLDERS:
        os.mkdir(f"/{name}")  # noqa: PTH102 - as below: Path takes longer than the system call
    for target, link in (links | _LINKS).items():
        _parents(target)
        os.symlink(link, target)  # noqa: PTH211
    fresh = (*(f"{point}/" for point, _, _ in _WRITABLE_TMPFS), "/var/run/", "/dev/", "/proc/")
    late = [(path, tree) for path, tree in shown if path.startswith(fresh)]
    for path, tree in shown:
        if not path.startswith(fresh):
            _show(tree, path)
    for mask in sorted(spec.masks):
        if not mask.startswith(fresh) and Path(mask).is_dir():
            sc.mount("tmpfs", mask, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755,size=64k")
            own.add(Path(mask).stat().st_dev)
    mounts = sorted(volumes, key=lambda item: item[0].target.count("/"))
    earlier: tuple[str, ...] = ()
    for mount, tree in mounts:
        if not mount.target.startswith(fresh + earlier):
            _target(mount.target, _is_directory(tree), own)
        earlier += (f"{mount.target.rstrip('/')}/",)
    sc.mount_setattr("/", sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV, recursive=True)

    for point, mode, size in _WRITABLE_TMPFS:
        sc.mount("tmpfs", point, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, f"mode={mode},size={size}")
    Path("/run/lock").mkdir(mode=0o1777)
    for path, tree in late:
        sc.mount_setattr(tree, sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV, recursive=True)
        _show(tree, path)
    for mask in sorted(spec.masks):
        if mask.startswith(fresh) and Path(mask).is_dir():
            _hide(mask)
    _proc()
    sc.mount("sysfs", "/sys", "sysfs", sc.MS_RDONLY | sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    _dev(numbers, spec.uid, spec.gid)
    _mask()
    for mount, tree in mounts:
        _make(Path(mount.target), _is_directory(tree))
        attributes = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV
        attributes |= sc.MOUNT_ATTR_RDONLY if mount.read_only else 0
        attributes |= sc.MOUNT_ATTR_NOEXEC if mount.no_exec else 0
        sc.mount_setattr(tree, attributes, recursive=True)
        _place(tree, mount.target)
    # The one file system with devices: a container with CAP_MKNOD must not be able to add the host's disks.
    sc.mount_setattr("/dev", sc.MOUNT_ATTR_RDONLY)


def _open_shown(paths: Iterable[str]) -> tuple[list[tuple[str, int]], dict[str, str]]:
    """Return the trees of those paths that the host has, and the symbolic links among them."""
    trees: list[tuple[str, int]] = []
    links: dict[str, str] = {}
    for path in paths:
        try:
            links[path] = os.readlink(path)  # noqa: PTH115
        except FileNotFoundError:
            continue
        except OSError:
            # It is no link.
            trees.append((path, sc.open_own_tree(path)))
    return trees, links


def _show(tree: int, path: str) -> None:
    """Attach a tree at an unused path in a file system of the container's own."""
    _parents(path)
    if _is_directory(tree):
        os.mkdir(path)  # noqa: PTH102
    else:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    _place(tree, path)


def _parents(path: str) -> None:
    parent = path.rpartition("/")[0]
    if parent and not os.path.isdir(parent):  # noqa: PTH112
        os.makedirs(parent)  # noqa: PTH103


def _place(tree: int, target: str) -> None:
    sc.move_mount(tree, target)
    os.close(tree)


def _is_directory(tree: int) -> bool:
    return stat.S_ISDIR(os.fstat(tree).st_mode)


def _make(path: Path, directory: bool) -> None:
    """Create a mount point, with the directories above it."""
    if path.exists():
        return
    if directory:
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _target(path: str, directory: bool, own: set[int]) -> None:
    """Create a mount point in the tree of the host's directories without writing to the host.

    The deepest directory that exists is replaced by a tmpfs in which each of its entries is bound.
    """
    if os.path.lexists(path):
        return
    parent = Path(path).parent
    while not parent.is_dir():
        parent = parent.parent
    parent = parent.resolve()
    if parent.stat().st_dev not in own:
        trees: list[tuple[str, int]] = []
        links: list[tuple[str, str]] = []
        with os.scandir(parent) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links.append((entry.path, str(Path(entry.path).readlink())))
                elif entry.is_dir() or entry.is_file():
                    trees.append((entry.path, sc.open_tree(entry.path, recursive=True)))
        mode = stat.S_IMODE(parent.stat().st_mode)
        sc.mount("tmpfs", str(parent), "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, f"mode={mode:o},size=1m")
        own.add(parent.stat().st_dev)
        for target, link in links:
            Path(target).symlink_to(link)
        for target, tree in trees:
            _make(Path(target), _is_directory(tree))
            _place(tree, target)
    _make(Path(path), directory)


def _proc() -> None:
    sc.mount("proc", "/proc", "proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    for name in PROC_READ_ONLY:
        if Path("/proc", name).exists():
            tree = sc.open_tree(f"/proc/{name}")
            sc.mount_setattr(tree, sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV)
            _place(tree, f"/proc/{name}")


def _dev(numbers: dict[str, os.stat_result], uid: int, gid: int) -> None:
    sc.mount("tmpfs", "/dev", "tmpfs", sc.MS_NOSUID | sc.MS_NOEXEC, "mode=755,size=64k")
    for name, (major, minor) in _DEVICES.items():
        _node(Path("/dev", name), os.makedev(major, minor))
    for target, status in numbers.items():
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        _node(path, status.st_rdev, stat.S_IFMT(status.st_mode))
        # What a container is given is its user's, as with containerd's device_ownership_from_security_context.
        os.chown(path, uid, gid)
    for name in ("pts", "shm"):
        Path("/dev", name).mkdir()
    sc.mount("devpts", "/dev/pts", "devpts", sc.MS_NOSUID | sc.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
    sc.mount("tmpfs", "/dev/shm", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC, "mode=1777,size=64m")  # noqa: S108
    for link, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        Path("/dev", link).symlink_to(target)


def _mask() -> None:
    """Hide what reveals the host, or would let root of a container change it, in /proc and /sys."""
    for path in MASKED:
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(mode):
            _hide(path)
        else:
            sc.mount("/dev/null", path, flags=sc.MS_BIND)


def _hide(directory: str) -> None:
    sc.mount("tmpfs", directory, "tmpfs", sc.MS_RDONLY | sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC, "mode=755,size=4k")


def _node(path: Path, number: int, kind: int = stat.S_IFCHR) -> None:
    os.mknod(path, kind | 0o666, number)
    path.chmod(0o666)
