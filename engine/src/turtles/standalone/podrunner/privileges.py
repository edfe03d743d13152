# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container's process may do: its user, capabilities, system calls and limits (capabilities(7), seccomp(2))."""

import contextlib
import os
import resource
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.spec import NOFILE

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
