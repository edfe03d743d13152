# SPDX-License-Identifier: GPL-3.0-or-later
"""The system call filter of ``seccompProfile: RuntimeDefault``, compiled by libseccomp.

The list of system calls is the one that Debian ships for container engines (package golang-github-containers-common).
It is made for Podman, whose containers have a user namespace of their own, so it allows creating namespaces and mounts.
Here, as with containerd and Docker, root of a container is root of the machine: what :data:`_BY_CAPABILITY` and
:data:`_NEVER` name is taken out of the list.

A filter depends on nothing but a container's capabilities. It is compiled once per set of them and loaded with one
system call.

Sources of the rules: seccomp(2), the OCI runtime specification (linux.seccomp), seccomp_rule_add(3); "Significant
syscalls blocked by the default profile" in Docker's manual.
"""

import ctypes
import errno
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

#: Values of ``seccompProfile.type``.
RUNTIME_DEFAULT, UNCONFINED = "RuntimeDefault", "Unconfined"

#: The list of system calls, in the format of Docker's and Podman's ``--security-opt seccomp=``.
PROFILE = Path("/usr/share/containers/seccomp.json")

_SYS_ADMIN = frozenset({"SYS_ADMIN"})
#: System calls of the list that need one of some capabilities, or are refused with EPERM.
_BY_CAPABILITY: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        (
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "setns",
            "umount",
            "umount2",
            "unshare",
        ),
        _SYS_ADMIN,
    ),
    "syslog": frozenset({"SYS_ADMIN", "SYSLOG"}),
    "reboot": frozenset({"SYS_BOOT"}),
    "pidfd_getfd": frozenset({"SYS_PTRACE"}),
    **dict.fromkeys(("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"), frozenset({"SYS_NICE"})),
}
#: System calls that no capability gives: keyrings know no namespaces, io_uring runs what no filter sees, and arguments
#: of socketcall(2), the 32-bit way to a socket, are out of a filter's reach.
_NEVER = frozenset(
    {
        "add_key",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "keyctl",
        "pivot_root",
        "request_key",
        "socketcall",
    }
)
#: Address families of socket(2) that know no network namespaces or only enlarge what can be attacked: AF_ALG, AF_VSOCK.
_NO_FAMILIES = (38, 40)
#: CLONE_NEW* of clone(2): NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)

# libseccomp's seccomp.h
_ACT_ALLOW, _ACT_ERRNO = 0x7FFF0000, 0x00050000
_CMP = {f"SCMP_CMP_{name}": number for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)}
_CTL_OPTIMIZE, _BINARY_TREE = 8, 2
_NR_ERROR = -1
#: What the profile calls an architecture that uname(2) names.
_GOARCH = {"x86_64": "amd64", "aarch64": "arm64"}


class SeccompError(Exception):
    """There is no filter to load; the message says why and what to do."""


@dataclass(frozen=True)
class Rule:
    """What happens to one system call.

    :param conditions: (argument, comparison, first operand, second operand); all must hold.
    """

    name: str
    action: int
    conditions: tuple[tuple[int, int, int, int], ...] = ()


class _Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def rules(profile: dict[str, Any], capabilities: Iterable[str]) -> Iterator[Rule]:
    """Yield the rules for a container with some capabilities; where two contradict each other the first one holds.

    :raises SeccompError: the profile contains something unknown.
    """
    own = frozenset(capabilities)
    refused = _ACT_ERRNO | errno.EPERM
    for name, needed in _BY_CAPABILITY.items():
        yield Rule(name, _ACT_ALLOW if needed & own else refused)
    for name in sorted(_NEVER):
        yield Rule(name, refused)
    yield from _clone("SYS_ADMIN" in own)
    # Without it glibc falls back to clone(2), whose flags can be told (they are not behind a pointer).
    yield Rule("clone3", _ACT_ALLOW if "SYS_ADMIN" in own else _ACT_ERRNO | errno.ENOSYS)
    yield from _socket()
    special = {*_BY_CAPABILITY, *_NEVER, "clone", "clone3", "socket"}
    for entry in profile["syscalls"]:
        if not _applies(entry, own):
            continue
        conditions = tuple(_condition(argument) for argument in entry.get("args") or ())
        for name in entry["names"]:
            if name not in special:
                yield Rule(name, _action(entry["action"], entry.get("errnoRet")), conditions)


def _clone(may: bool) -> Iterator[Rule]:
    if may:
        yield Rule("clone", _ACT_ALLOW)
        return
    flags = 1 if platform.machine() == "s390x" else 0
    equal = _CMP["SCMP_CMP_MASKED_EQ"]
    yield Rule("clone", _ACT_ALLOW, ((flags, equal, sum(_NAMESPACES), 0),))
    for bit in _NAMESPACES:
        yield Rule("clone", _ACT_ERRNO | errno.EPERM, ((flags, equal, bit, bit),))


def _socket() -> Iterator[Rule]:
    """Yield rules for socket(2): one for each gap between the families that are left out, since rules only add up."""
    below, above, same = _CMP["SCMP_CMP_LT"], _CMP["SCMP_CMP_GT"], _CMP["SCMP_CMP_EQ"]
    yield Rule("socket", _ACT_ALLOW, ((0, below, _NO_FAMILIES[0], 0),))
    for family in range(_NO_FAMILIES[0], _NO_FAMILIES[-1] + 1):
        action = _ACT_ERRNO | errno.EAFNOSUPPORT if family in _NO_FAMILIES else _ACT_ALLOW
        yield Rule("socket", action, ((0, same, family, 0),))
    yield Rule("socket", _ACT_ALLOW, ((0, above, _NO_FAMILIES[-1], 0),))


def _applies(entry: dict[str, Any], capabilities: frozenset[str]) -> bool:
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    unknown = (set(includes) | set(excludes)) - {"caps", "arches", "minKernel"}
    if unknown:
        raise SeccompError(f"{PROFILE}: unknown condition {', '.join(sorted(unknown))}")
    machine = platform.machine()
    arch = _GOARCH.get(machine, machine)

    def has(name: str) -> bool:
        return name.upper().removeprefix("CAP_") in capabilities

    return (
        all(has(name) for name in includes.get("caps") or ())
        and (not includes.get("arches") or arch in includes["arches"])
        and (not includes.get("minKernel") or _kernel() >= _version(includes["minKernel"]))
        and not any(has(name) for name in excludes.get("caps") or ())
        and arch not in (excludes.get("arches") or ())
        and not (excludes.get("minKernel") and _kernel() >= _version(excludes["minKernel"]))
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def _kernel() -> tuple[int, ...]:
    return _version(os.uname().release)


def _action(name: str, number: int | None) -> int:
    if name == "SCMP_ACT_ALLOW":
        return _ACT_ALLOW
    if name == "SCMP_ACT_ERRNO":
        return _ACT_ERRNO | (errno.EPERM if number is None else int(number))
    raise SeccompError(f"{PROFILE}: unknown action {name}")


def _condition(argument: dict[str, Any]) -> tuple[int, int, int, int]:
    operator = _CMP.get(argument["op"])
    if operator is None:
        raise SeccompError(f"{PROFILE}: unknown comparison {argument['op']}")
    return argument["index"], operator, argument["value"], argument.get("valueTwo") or 0


def read_profile(path: Path = PROFILE) -> dict[str, Any]:
    """Return the list of system calls.

    :raises SeccompError: it isn't installed, or isn't one.
    """
    try:
        profile = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise SeccompError(f"{path} is missing: install the package golang-github-containers-common") from error
    except (OSError, ValueError) as error:
        raise SeccompError(f"{path} can't be read as a seccomp profile: {error}") from error
    if not isinstance(profile, dict) or not profile.get("syscalls") or "defaultAction" not in profile:
        raise SeccompError(f"{path} is not a seccomp profile: it needs defaultAction and syscalls")
    return profile


def relevant_capabilities(profile: dict[str, Any]) -> frozenset[str]:
    """Return the capabilities on which a filter depends."""
    named = {
        name
        for entry in profile["syscalls"]
        for kind in ("includes", "excludes")
        for name in (entry.get(kind) or {}).get("caps") or ()
    }
    return frozenset().union(
        _SYS_ADMIN, *_BY_CAPABILITY.values(), (name.upper().removeprefix("CAP_") for name in named)
    )


def compile_filter(profile: dict[str, Any], capabilities: Iterable[str]) -> bytes:
    """Return the filter of a container with some capabilities, as struct sock_filter[] (seccomp(2)).

    :raises SeccompError: libseccomp isn't installed, or the profile is unusable.
    """
    library = _library()
    context = library.seccomp_init(_action(profile["defaultAction"], profile.get("defaultErrnoRet")))
    if not context:
        raise SeccompError("libseccomp: seccomp_init failed")
    try:
        for name in _architectures(profile):
            token = library.seccomp_arch_resolve_name(name.encode())
            if token:
                _check(library.seccomp_arch_add(context, token), f"architecture {name}", errno.EEXIST)
        # What the kernel can't answer from its cache it looks up in a tree, not a list. Not before libseccomp 2.5.
        library.seccomp_attr_set(context, _CTL_OPTIMIZE, _BINARY_TREE)
        for rule in rules(profile, capabilities):
            _add(library, context, rule)
        with os.fdopen(os.memfd_create("seccomp"), "w+b", buffering=0) as file:
            _check(library.seccomp_export_bpf(context, file.fileno()), "export")
            file.seek(0)
            return file.read()
    except (KeyError, TypeError, ValueError) as error:
        raise SeccompError(f"{PROFILE} is not understood: {error!r}") from error
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, rule: Rule) -> None:
    number = library.seccomp_syscall_resolve_name(rule.name.encode())
    if number == _NR_ERROR:
        # Newer than libseccomp: the filter's default refuses it.
        return
    conditions = (_Comparison * len(rule.conditions))(*(_Comparison(*one) for one in rule.conditions))
    added = library.seccomp_rule_add_array(context, rule.action, number, len(conditions), conditions)
    # EACCES is an action that equals the default's; EEXIST is what an earlier rule settles.
    _check(added, f"system call {rule.name}", errno.EACCES, errno.EEXIST)


def _check(result: int, what: str, *harmless: int) -> None:
    if result < 0 and -result not in harmless:
        raise SeccompError(f"libseccomp: {what}: {os.strerror(-result)}")


def _architectures(profile: dict[str, Any]) -> list[str]:
    """Return libseccomp's names of the further architectures whose programs this machine runs."""
    names = {entry["architecture"]: entry.get("subArchitectures") or [] for entry in profile.get("archMap") or []}
    own = names.get(f"SCMP_ARCH_{platform.machine().upper()}", [])
    return [name.removeprefix("SCMP_ARCH_").lower() for name in own]


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise SeccompError("libseccomp.so.2 is missing: install the package libseccomp2") from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


class Filters:
    """Compiled filters by capabilities; a forked process inherits those of its parent."""

    def __init__(self) -> None:
        self._compiled: dict[frozenset[str], bytes] = {}
        self._profile: dict[str, Any] | None = None

    def get(self, capabilities: Iterable[str]) -> bytes:
        """Return the filter of a container with some capabilities.

        :raises SeccompError: no filter can be made on this machine.
        """
        if self._profile is None:
            self._profile = read_profile()
        key = relevant_capabilities(self._profile) & frozenset(capabilities)
        if key not in self._compiled:
            self._compiled[key] = compile_filter(self._profile, key)
        return self._compiled[key]
