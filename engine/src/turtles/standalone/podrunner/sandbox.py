# SPDX-License-Identifier: GPL-3.0-or-later
"""The way into a container: namespaces, root file system, identity and privileges; then its entry point.

:func:`enter` runs in the forked process, which is process 1 of a new process namespace.
"""

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from turtles.standalone.podrunner import privileges, root
from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.cgroup import join
from turtles.standalone.podrunner.seccomp import UNCONFINED, Filters
from turtles.standalone.podrunner.spec import Spec


def enter(spec: Spec, filters: Filters) -> None:
    """Turn this process, process 1 of a new process namespace, into the container's.

    :param filters: system call filters that are compiled already.
    :raises OSError: a step failed; the message says which. The process is unusable afterwards.
    :raises turtles.standalone.podrunner.seccomp.SeccompError: this machine can't make the filter that is asked for.
    """
    # While the host's files can be read.
    program = filters.get(spec.capabilities) if spec.seccomp != UNCONFINED else None
    limited = join(spec.cgroup_procs)
    privileges.set_oom_score_adj(spec.oom_score_adj)
    if spec.netns:
        netns = os.open(spec.netns, os.O_RDONLY | os.O_CLOEXEC)
        sc.setns(netns, sc.CLONE_NEWNET)
        os.close(netns)
    sc.unshare(sc.CLONE_NEWNS | sc.CLONE_NEWUTS | sc.CLONE_NEWIPC | sc.CLONE_NEWCGROUP)
    socket.sethostname(spec.hostname)
    sc.mount(None, "/", flags=sc.MS_REC | sc.MS_PRIVATE)
    root.change(spec)
    os.chdir(spec.cwd)
    privileges.restrict(spec.uid, spec.gid, spec.groups, spec.capabilities, program, spec.nofile, limited)


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
