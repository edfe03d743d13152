# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs containers with crun, an OCI runtime, as an external program.

:func:`launch` runs in a process that the forking process has forked for it, in a mount namespace of its own: the
container's root, a stack of the image's content and a layer that it may write to, is mounted there and in the
container, and nowhere else. So there is nothing to unmount, no matter what is killed when.

crun creates the container, whose process waits; what crun can't do is done to it; crun starts it and ends. The
container's process is then a child of the forking process, which asks the kernel for that (PR_SET_CHILD_SUBREAPER).
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turtles.standalone.podrunner import oci
from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.cgroup import join
from turtles.standalone.podrunner.privileges import set_oom_score_adj

_PROGRAM = "crun"
#: Seconds that any of its commands may take.
_TIMEOUT = 60
#: Socket in the bundle at which crun delivers a terminal.
_CONSOLE = "console.sock"
#: Where crun would find controllers of a hybrid hierarchy of cgroups, which it refuses to work with.
_HYBRID = Path("/sys/fs/cgroup/unified")


class RuntimeFailure(Exception):
    """crun could not do what was asked; the message is its own."""


@dataclass(frozen=True)
class Bundle:
    """What :func:`launch` has to know, as plain data.

    :param ident: the container's name for crun.
    :param state: crun's own folder for what it knows of containers.
    :param folder: the bundle: config.json, and mount points.
    :param content: the image's files.
    :param layer: folder for what the container writes into its root.
    :param links: parts of volumes (sources by target); they have no symbolic links but those that another Pod has put
        there in the meantime.
    :param cgroup_procs: files into which its processes are written.
    """

    ident: str
    state: str
    folder: str
    content: str
    layer: str
    links: dict[str, str] = field(default_factory=dict)
    cgroup_procs: list[str] = field(default_factory=list)
    oom_score_adj: int = 0
    #: It has a terminal, in place of the three streams.
    terminal: bool = False
    #: Something may be written to its standard input.
    stdin: bool = False


def launch(bundle: Bundle, created: Callable[[int, list[int]], None]) -> None:
    """Create and start a container whose standard streams are this process's.

    :param created: called with its process, which has not executed anything yet, and its terminal's master where there
        is one; an exception ends it.
    :raises RuntimeFailure: it is not possible; nothing is left of it.
    :raises OSError: as above.
    """
    # The container inherits it: crun would fail where less than we have isn't allowed.
    set_oom_score_adj(bundle.oom_score_adj)
    sc.unshare(sc.CLONE_NEWNS)
    sc.mount(None, "/", flags=sc.MS_REC | sc.MS_PRIVATE)
    if (_HYBRID / "cgroup.controllers").exists():
        sc.mount("tmpfs", str(_HYBRID), "tmpfs", sc.MS_RDONLY, "size=4k")
    _mount_root(bundle)
    for target, source in bundle.links.items():
        sc.move_mount(sc.open_tree(source, no_links=True), target)
    number = Path(bundle.folder, "pid")
    words = ["--bundle", bundle.folder, "--pid-file", str(number)]
    try:
        with contextlib.ExitStack() as stack:
            console = stack.enter_context(_console()) if bundle.terminal else None
            words += [f"--console-socket={_CONSOLE}"] if console is not None else []
            # Not this process, which needs more memory than a container may have.
            _call(bundle.state, "create", *words, bundle.ident, before=lambda: join(bundle.cgroup_procs))
            masters = [] if console is None else _sent_by(console)
        pid = int(number.read_text())
        _in_namespace(pid, _forbid_devices)
        created(pid, masters)
        _call(bundle.state, "start", bundle.ident)
    except BaseException:
        delete(Path(bundle.state), bundle.ident)
        raise


def _console() -> socket.socket:
    """Return a socket at which crun delivers a terminal's master; in this folder, as its path has to be short."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.settimeout(_TIMEOUT)
    listener.bind(_CONSOLE)
    listener.listen(1)
    return listener


def _sent_by(listener: socket.socket) -> list[int]:
    with listener.accept()[0] as connection:
        connection.settimeout(_TIMEOUT)
        fds = socket.recv_fds(connection, 4096, 1, socket.MSG_CMSG_CLOEXEC)[1]
    if not fds:
        raise RuntimeFailure("crun returned no terminal")
    return fds


def _mount_root(bundle: Bundle) -> None:
    upper, work, root = Path(bundle.layer, "upper"), Path(bundle.layer, "work"), Path(bundle.folder, oci.ROOT)
    for path in (upper, work, root):
        path.mkdir(parents=True, exist_ok=True)
    upper.chmod(0o755)
    # Short names: all options together have to fit into a page of memory.
    os.chdir(bundle.layer)
    layers = f"lowerdir={bundle.content},upperdir=upper,workdir=work"
    sc.mount("overlay", str(root), "overlay", sc.MS_NOSUID | sc.MS_NODEV, layers)
    os.chdir(bundle.folder)


def _in_namespace(pid: int, work: Callable[[], None]) -> None:
    """Do something among the mounts of another process."""
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        sc.setns(theirs, sc.CLONE_NEWNS)
        try:
            work()
        finally:
            sc.setns(own, sc.CLONE_NEWNS)
            os.fchdir(here)
    finally:
        for fd in (own, theirs, here):
            os.close(fd)


def _forbid_devices() -> None:
    # crun mounts the root once more, and forgets these.
    sc.mount_setattr("/", sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV)


def is_installed() -> bool:
    """Say whether there is crun."""
    return shutil.which(_PROGRAM) is not None


def _call(state: str, *words: str, before: Callable[[], object] | None = None) -> None:
    log = Path(state, f"log-{os.getpid()}")
    command = [_PROGRAM, "--root", state, "--cgroup-manager=disabled", "--log-format=json", f"--log={log}", *words]
    try:
        # Standard output and error are the container's. Only processes of one thread give something to do before.
        done = subprocess.run(command, check=False, timeout=_TIMEOUT, preexec_fn=before)
        if done.returncode == -signal.SIGKILL:
            raise RuntimeFailure(
                f"crun {words[0]} was killed: the container's memory limit may be too small to start it"
            )
        if done.returncode:
            raise RuntimeFailure(_message(log) or f"crun {words[0]} ended with {done.returncode}")
    except subprocess.TimeoutExpired as error:
        raise RuntimeFailure(f"crun {words[0]} takes more than {_TIMEOUT} s") from error
    finally:
        log.unlink(missing_ok=True)


def _message(log: Path) -> str:
    lines = []
    with contextlib.suppress(OSError, ValueError):
        lines = [json.loads(line) for line in log.read_text(errors="replace").splitlines() if line]
    errors = [str(line.get("msg") or "") for line in lines if line.get("level", "error") == "error"]
    return "; ".join(errors)[:1000]


def delete(state: Path, ident: str) -> None:
    """Let crun forget a container, and end it if it runs."""
    if not (state / ident).is_dir():
        return
    with contextlib.suppress(RuntimeFailure, OSError):
        _call(str(state), "delete", "--force", ident)


def delete_all(state: Path, prefix: str) -> None:
    """Let crun forget all containers whose names begin in some way."""
    for path in state.glob(f"{prefix}*"):
        if path.is_dir():
            delete(state, path.name)


def bundle_from(data: dict[str, Any]) -> Bundle:
    """Return the Bundle that ``dataclasses.asdict`` turned into plain data."""
    return Bundle(**data)
