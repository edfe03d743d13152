# SPDX-License-Identifier: GPL-3.0-or-later
"""The inside of a container: namespaces, a root file system made of the host's, devices, identity and privileges.

:func:`enter` runs in the forked process, which is process 1 of a new process namespace. The root is a tmpfs that is
empty but for what is listed: programs and libraries of the host's operating system, and the few files of /etc that they
read, all read-only. What isn't listed (homes, /srv, /opt, /var, the host's and the engine's own configuration) is not
there. The old root is unmounted entirely, so that no Pod holds on to the mounts of another.

Sources of the rules: pivot_root(2), open_tree(2), mount_setattr(2), capabilities(7), seccomp(2); the kubelet's layout
of /etc/hosts and /dev/termination-log; the OCI runtime specification for default devices, and containerd's default
spec for masked and read-only paths.
"""

import contextlib
import os
import resource
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.cgroup import join
from turtles.standalone.podrunner.seccomp import RUNTIME_DEFAULT, UNCONFINED, Filters

#: Capabilities a container has that says nothing (as containerd and Docker give them).
DEFAULT_CAPABILITIES = frozenset(
    {
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    }
)

#: What a container sees of the host at the same path, where the host has it: programs and libraries with what is
#: mounted below them, and configuration that they read whoever runs them. None of it is secret or names the host.
HOST_PATHS = (
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/sbin",
    "/usr",
    *(
        f"/etc/{name}"
        for name in (
            # the dynamic linker, names of programs
            "alternatives",
            "ld.so.cache",
            "ld.so.conf",
            "ld.so.conf.d",
            # libc's names, numbers and time, and which system this is
            "gai.conf",
            "host.conf",
            "localtime",
            "nsswitch.conf",
            "os-release",
            "protocols",
            "services",
            "timezone",
            # whom TLS trusts, and how it is spoken
            "gnutls",
            "ssl/certs",
            "ssl/openssl.cnf",
            # firmware that QEMU may use
            "qemu",
        )
    ),
)

_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
#: Directories of the Filesystem Hierarchy Standard; nothing of the host's is in them unless it is listed.
_EMPTY = (
    "boot",
    "dev",
    "etc",
    "home",
    "media",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "tmp",
    "var",
    "var/cache",
    "var/lib",
    "var/log",
    "var/mail",
    "var/opt",
    "var/spool",
    "var/tmp",
)
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


def capability_set(
    add: Iterable[str], drop: Iterable[str], default: frozenset[str] = DEFAULT_CAPABILITIES
) -> list[str]:
    """Return the capabilities of a container: the default ones, without those dropped, with those added.

    Names may carry the prefix CAP_; ALL means every one.

    :raises ValueError: there is no such capability.
    """
    names = set(default)
    for wanted, keep in ((drop, False), (add, True)):
        for name in wanted:
            name = name.upper().removeprefix("CAP_")
            if name != "ALL" and name not in sc.CAPABILITIES:
                raise ValueError(f"there is no capability {name}")
            chosen = set(sc.CAPABILITIES) if name == "ALL" else {name}
            names = names | chosen if keep else names - chosen
    return sorted(names)


# --- on the host -----------------------------------------------------------------------------------------------------


def create_netns(path: Path) -> None:
    """Create a network namespace, with ``lo`` up, and keep it at path by a bind mount, unless it exists."""
    if is_mount(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o444)
    failure: list[BaseException] = []

    def make() -> None:
        # A thread of its own leaves the process's other threads in the host's namespace.
        try:
            sc.unshare(sc.CLONE_NEWNET)
            set_loopback_up()
            sc.mount("/proc/thread-self/ns/net", str(path), flags=sc.MS_BIND)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failure:
        path.unlink(missing_ok=True)
        raise failure[0]


def set_loopback_up() -> None:
    """Set ``lo`` of the calling thread's network namespace up (SIOCGIFFLAGS, SIOCSIFFLAGS, netdevice(7))."""
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(sock, 0x8913, request))[1]
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", flags | 1))


def delete_netns(path: Path) -> None:
    """Release a network namespace, if it exists."""
    for _ in range(8):
        if not is_mount(path):
            break
        # Another one may be at it; whether it is gone shows the next look.
        with contextlib.suppress(OSError):
            sc.umount(str(path), sc.MNT_DETACH)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def is_mount(path: Path) -> bool:
    """Say whether something is mounted exactly at path."""
    return str(path) in mount_points()


def mount_points() -> list[str]:
    """Return every mount point of this mount namespace, in mount order."""
    return [_unescape(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def unmount_below(directory: Path) -> bool:
    """Unmount everything mounted at or below a directory; say whether there was anything."""
    prefix = f"{directory}/"
    found = [point for point in mount_points() if point == str(directory) or point.startswith(prefix)]
    for point in reversed(found):
        with contextlib.suppress(OSError):
            sc.umount(point, sc.MNT_DETACH)
    return bool(found)


def _unescape(text: str) -> str:
    return text.encode().decode("unicode_escape") if "\\" in text else text


# --- in the container ------------------------------------------------------------------------------------------------


def enter(spec: Spec, filters: Filters) -> None:
    """Turn this process, process 1 of a new process namespace, into the container's.

    :param filters: system call filters that are compiled already.
    :raises OSError: a step failed; the message says which. The process is unusable afterwards.
    :raises turtles.standalone.podrunner.seccomp.SeccompError: this machine can't make the filter that is asked for.
    """
    # While the host's files can be read.
    program = filters.get(spec.capabilities) if spec.seccomp != UNCONFINED else None
    limited = join(spec.cgroup_procs)
    set_oom_score_adj(spec.oom_score_adj)
    if spec.netns:
        netns = os.open(spec.netns, os.O_RDONLY | os.O_CLOEXEC)
        sc.setns(netns, sc.CLONE_NEWNET)
        os.close(netns)
    sc.unshare(sc.CLONE_NEWNS | sc.CLONE_NEWUTS | sc.CLONE_NEWIPC | sc.CLONE_NEWCGROUP)
    socket.sethostname(spec.hostname)
    sc.mount(None, "/", flags=sc.MS_REC | sc.MS_PRIVATE)
    _root(spec)
    os.chdir(spec.cwd)
    restrict(spec.uid, spec.gid, spec.groups, spec.capabilities, program, spec.nofile, limited)


def _root(spec: Spec) -> None:
    # Everything is opened before the root changes and placed after it: from then on every path, with all symbolic
    # links in it, resolves inside the container.
    volumes = [(mount, sc.open_tree(mount.source, mount.recursive, mount.no_links)) for mount in spec.mounts]
    shown, links = _open_shown(spec.show)
    numbers = {target: Path(source).stat().st_rdev for target, source in spec.devices.items()}

    sc.mount("tmpfs", spec.root_mount, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755,size=1m")
    os.chdir(spec.root_mount)
    sc.pivot_root_here()
    os.umask(0o022)
    # Devices of the tmpfs that are the container's own: only there may mount points be made.
    own = {Path("/").stat().st_dev}

    for name in _EMPTY:
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
    # The one file system with devices: whoever has CAP_MKNOD must not be able to add the host's disks.
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


def _dev(numbers: dict[str, int], uid: int, gid: int) -> None:
    sc.mount("tmpfs", "/dev", "tmpfs", sc.MS_NOSUID | sc.MS_NOEXEC, "mode=755,size=64k")
    for name, (major, minor) in _DEVICES.items():
        _node(Path("/dev", name), os.makedev(major, minor))
    for target, number in numbers.items():
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        _node(path, number)
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


def _node(path: Path, number: int) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, number)
    path.chmod(0o666)


def set_oom_score_adj(value: int) -> None:
    """Set how early the kernel kills this process if memory runs out; less takes CAP_SYS_RESOURCE (proc(5))."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(value))


@cache
def last_capability() -> int:
    """Return the highest capability that the kernel knows; to be asked before a container's files are all there is."""
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def most_files(wanted: int = NOFILE) -> int:
    """Return how many file descriptors a process can be given; more than we have takes CAP_SYS_RESOURCE."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def restrict(
    uid: int,
    gid: int,
    groups: Iterable[int],
    capabilities: Iterable[str],
    program: bytes | None,
    nofile: int = NOFILE,
    limited: bool = False,
) -> None:
    """Become the container's user, with its capabilities and system calls, for good.

    :param program: system call filter, None for none.
    :param nofile: file descriptors that each process may have.
    :param limited: a control group counts the container's processes.
    :raises OSError: the kernel refuses.
    """
    hard = most_files(nofile)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limited:
        # It counts all processes of a user, who is the same in many Pods: one of them could use up the others' share.
        # An engine that itself runs in a container may lack CAP_SYS_RESOURCE; it continues with what it has.
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_NPROC, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    # Keys of the engine's session are none of the container's business.
    sc.join_new_session_keyring()
    wanted = {sc.CAPABILITIES[name] for name in capabilities}
    last = last_capability()
    wanted = {number for number in wanted if number <= last}
    for number in range(last + 1):
        if number not in wanted:
            sc.prctl(sc.PR_CAPBSET_DROP, number)
    sc.prctl(sc.PR_SET_KEEPCAPS, 1)
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    sc.capset(wanted, wanted)
    sc.prctl(sc.PR_CAP_AMBIENT, sc.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in wanted:
        # Ambient capabilities are what an ordinary user's programs keep across execve(2).
        sc.prctl(sc.PR_CAP_AMBIENT, sc.PR_CAP_AMBIENT_RAISE, number)
    sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    if program is not None:
        sc.set_seccomp_filter(program)


def visible_paths(further: Iterable[str] = ()) -> list[str]:
    """Return all that a container sees of the host: :data:`HOST_PATHS`, this Python installation and some more.

    What doesn't exist may be among them.
    """
    found = set(HOST_PATHS)
    candidates = {path for path in (*further, sys.prefix, sys.base_prefix, *sys.path) if path.startswith("/")}
    for path in sorted(candidates | {os.path.realpath(path) for path in candidates}, key=len):
        # The working directory ("/") or a script's (/tmp) is no installation.
        if path.strip("/") not in ("", *_EMPTY) and not covered(path, found):
            found.add(path.rstrip("/"))
    return sorted(found)


def covered(path: str, paths: Iterable[str]) -> bool:
    """Say whether a path is one of some paths or below one."""
    return f"{path.rstrip('/')}/".startswith(tuple(f"{known}/" for known in paths))


def run_entry_point(function: Callable[[Any], int | None], argument: list[str] | str) -> int:
    """Call a container's entry point and return its exit code; an exception is printed and gives 1."""
    import traceback

    try:
        return int(function(argument) or 0)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
