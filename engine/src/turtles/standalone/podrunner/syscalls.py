# SPDX-License-Identifier: GPL-3.0-or-later
"""The Linux system calls a Pod sandbox needs and Python 3.11 does not offer, by ctypes.

Every function raises :class:`OSError` with the call's name and path when the kernel refuses.
"""

import ctypes
import errno
import os
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long

# mount(2), umount2(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

# namespaces, clone(2)
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP = 0x20000000, 0x40000000, 0x2000000

# mount_setattr(2)
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8

# openat2(2)
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04

# prctl(2)
PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME, PR_CAPBSET_DROP = 4, 8, 15, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4

# Numbers of the calls without a libc wrapper in Debian 12; since Linux 5.1 they are the same on every architecture.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_OPENAT2, _SYS_MOUNT_SETATTR = 428, 429, 437, 442
# Those of older ones differ: pivot_root, keyctl, seccomp.
_OLDER = {
    "x86_64": (155, 250, 317),
    "aarch64": (41, 219, 277),
    "riscv64": (41, 219, 277),
    "ppc64le": (203, 271, 358),
    "s390x": (217, 280, 348),
}

_KEYCTL_JOIN_SESSION_KEYRING = 1
_SECCOMP_SET_MODE_FILTER = 1
#: Without it kernels before 5.16 slow every program down that has a filter (Speculative Store Bypass).
_SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4

#: Capabilities by name, with their numbers (linux/capability.h).
CAPABILITIES = {
    name: number
    for number, name in enumerate(
        (
            "CHOWN",
            "DAC_OVERRIDE",
            "DAC_READ_SEARCH",
            "FOWNER",
            "FSETID",
            "KILL",
            "SETGID",
            "SETUID",
            "SETPCAP",
            "LINUX_IMMUTABLE",
            "NET_BIND_SERVICE",
            "NET_BROADCAST",
            "NET_ADMIN",
            "NET_RAW",
            "IPC_LOCK",
            "IPC_OWNER",
            "SYS_MODULE",
            "SYS_RAWIO",
            "SYS_CHROOT",
            "SYS_PTRACE",
            "SYS_PACCT",
            "SYS_ADMIN",
            "SYS_BOOT",
            "SYS_NICE",
            "SYS_RESOURCE",
            "SYS_TIME",
            "SYS_TTY_CONFIG",
            "MKNOD",
            "LEASE",
            "AUDIT_WRITE",
            "AUDIT_CONTROL",
            "SETFCAP",
            "MAC_OVERRIDE",
            "MAC_ADMIN",
            "SYSLOG",
            "WAKE_ALARM",
            "BLOCK_SUSPEND",
            "AUDIT_READ",
            "PERFMON",
            "BPF",
            "CHECKPOINT_RESTORE",
        )
    )
}


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str | None, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, fstype, data)]
    _check(
        _LIBC.mount(encoded[0], os.fsencode(target), encoded[1], ctypes.c_ulong(flags), encoded[2]),
        f"mount {fstype or source} on {target}",
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_LIBC.umount2(os.fsencode(target), flags), f"umount {target}")


def syncfs(fd: int) -> None:
    """Flush the file system that a file is on, so that it survives a loss of power (syncfs(2))."""
    _check(_LIBC.syncfs(fd), "syncfs")


def pivot_root_here() -> None:
    """Make the current directory, a mount point, the root, and let go of the old root and everything mounted in it."""
    _check(_LIBC.syscall(ctypes.c_long(_OLDER[os.uname().machine][0]), b".", b"."), "pivot_root")
    umount(".", MNT_DETACH)
    os.chdir("/")


def join_new_session_keyring() -> None:
    """Leave the inherited session keyring for an empty one, if the kernel has keyrings (keyctl(2))."""
    number = ctypes.c_long(_OLDER[os.uname().machine][1])
    if (
        _LIBC.syscall(number, ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING), None) < 0
        and ctypes.get_errno() != errno.ENOSYS
    ):
        _check(-1, "keyctl")


def set_seccomp_filter(program: bytes) -> None:
    """Filter every system call of this process and its children from now on (seccomp(2)).

    :param program: instructions, struct sock_filter[].
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    _check(
        _LIBC.syscall(
            ctypes.c_long(_OLDER[os.uname().machine][2]),
            ctypes.c_long(_SECCOMP_SET_MODE_FILTER),
            ctypes.c_ulong(_SECCOMP_FILTER_FLAG_SPEC_ALLOW),
            header,
        ),
        "the kernel has no system call filters (CONFIG_SECCOMP_FILTER), which seccompProfile RuntimeDefault needs",
    )


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_LIBC.unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    _check(_LIBC.setns(fd, kind), f"setns {kind:#x}")


def prctl(option: int, arg2: int | bytes = 0, arg3: int = 0) -> None:
    """prctl(2)."""
    second = arg2 if isinstance(arg2, bytes) else ctypes.c_ulong(arg2)
    _check(_LIBC.prctl(option, second, ctypes.c_ulong(arg3), ctypes.c_ulong(0), ctypes.c_ulong(0)), f"prctl {option}")


def set_command_line(argv: list[str]) -> None:
    """Change what ps(1) shows of this process, up to the length of its first command line.

    The environment it was started with is blanked, so that /proc/<pid>/environ doesn't show it (proc(5), stat). Python
    and libc must not use that any more: call ``os.environ.clear()`` before.
    """
    with open("/proc/self/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = b"\0".join(os.fsencode(word) for word in argv)[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))
    start, end = int(fields[47]), int(fields[48])
    ctypes.memset(start, 0, end - start)


def capset(capabilities: set[int], inheritable: set[int]) -> None:
    """Set the permitted and effective set to ``capabilities``, and the inheritable set."""
    words = []
    for base in (0, 32):
        effective, inherited = (
            sum(1 << (number - base) for number in numbers if base <= number < base + 32)
            for numbers in (capabilities, inheritable)
        )
        words += [effective, effective, inherited]
    header = struct.pack("Ii", 0x20080522, 0)
    _check(_LIBC.capset(header, struct.pack("6I", *words)), "capset")


def open_tree(path: str, recursive: bool = False, no_links: bool = False) -> int:
    """Return a file descriptor of a detached copy of the mount at path, with the mounts below it if recursive.

    :param no_links: a symbolic link anywhere in the path is an error.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    descriptor = openat2(_AT_FDCWD, path, os.O_PATH, resolve=RESOLVE_NO_SYMLINKS if no_links else 0)
    try:
        return int(
            _check(
                _LIBC.syscall(ctypes.c_long(_SYS_OPEN_TREE), descriptor, b"", ctypes.c_uint(flags)), f"open_tree {path}"
            )
        )
    finally:
        os.close(descriptor)


def open_own_tree(path: str) -> int:
    """Return a file descriptor of a detached copy of the mount at path, with those below it; only for trusted paths."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE
    return int(
        _check(
            _LIBC.syscall(ctypes.c_long(_SYS_OPEN_TREE), _AT_FDCWD, os.fsencode(path), ctypes.c_uint(flags)),
            f"open_tree {path}",
        )
    )


def move_mount(tree: int, target: str) -> None:
    """Attach what :func:`open_tree` gave at target."""
    _check(
        _LIBC.syscall(
            ctypes.c_long(_SYS_MOVE_MOUNT),
            tree,
            b"",
            _AT_FDCWD,
            os.fsencode(target),
            ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
        ),
        f"mount on {target}",
    )


def mount_setattr(where: int | str, attributes: int, recursive: bool = False) -> None:
    """Set MOUNT_ATTR_* on a mount, given by file descriptor or path, and with recursive on all below it."""
    attr = struct.pack("QQQQ", attributes, 0, 0, 0)
    fd, path = (where, b"") if isinstance(where, int) else (_AT_FDCWD, os.fsencode(where))
    flags = (_AT_EMPTY_PATH if isinstance(where, int) else 0) | (_AT_RECURSIVE if recursive else 0)
    _check(
        _LIBC.syscall(
            ctypes.c_long(_SYS_MOUNT_SETATTR), fd, path, ctypes.c_uint(flags), attr, ctypes.c_size_t(len(attr))
        ),
        f"mount_setattr {where}",
    )


def openat2(dir_fd: int, path: str, flags: int, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """openat2(2): open path below dir_fd; by default symbolic links and ``..`` never lead out of dir_fd."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve | RESOLVE_NO_MAGICLINKS)
    return int(
        _check(
            _LIBC.syscall(
                ctypes.c_long(_SYS_OPENAT2), dir_fd, os.fsencode(path) or b".", how, ctypes.c_size_t(len(how))
            ),
            f"open {path}",
        )
    )
