# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-launcher attachment``: process of a Pod that holds a claim for a machine that runs already.

It makes the disk on the claim ready as a launcher does, then listens on a socket: by that the node agent finds the
Pod's mounts, and it knows that the disk is ready. The claim is in the Pod as long as this runs.
"""

import argparse
import contextlib
import logging
import os
import select
import signal
import socket
from pathlib import Path

from turtles import termination
from turtles.command import Command
from turtles.domain import paths
from turtles.launcher import disks
from turtles.launcher.errors import LaunchError

log = logging.getLogger(__name__)

NAME = "attachment"
_BACKLOG = 16


def main(argv: list[str]) -> int:
    """Hold a claim until a signal arrives; returns 1 if its disk can't be used."""
    command = Command(f"virt-launcher {NAME}", "Holds a claim for a running virtual machine.", component=NAME)
    add = command.parser.add_argument
    add("--volume", required=True, help="name of the machine's volume")
    add("--claim", required=True, help="name of the claim, for messages")
    add("--size", type=int, help="bytes of the claim")
    add("--read-only", action="store_true", help="the claim is only read")
    add("--folder", action="store_true", help="the claim holds files instead of a disk")
    return command.run(_run, argv, signals=False)


def _run(options: argparse.Namespace) -> int:
    ended, wake = socket.socketpair()
    for each in (ended, wake):
        each.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        if not options.folder:
            claim = {"claimName": options.claim, "readOnly": options.read_only}
            disks.prepare_claim({"name": options.volume, "persistentVolumeClaim": claim}, options.size)
    except (LaunchError, OSError) as error:
        log.error("%s", error)
        termination.leave(str(error))
        return 1
    _listen(Path(paths.ATTACHMENT_SOCKET), ended)
    return 0


def _listen(path: Path, ended: socket.socket) -> None:
    """Take connections, which are about who listens and nothing else, until something is read from a socket."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    draft = path.with_name(f".{path.name}")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        listener.bind(str(draft))
        listener.listen(_BACKLOG)
        # Whoever sees it can connect.
        draft.rename(path)
        log.info("ready", extra={"uid": os.geteuid()})
        while True:
            ready, _, _ = select.select([listener, ended], [], [])
            if ended in ready:
                return
            with contextlib.suppress(OSError):
                listener.accept()[0].close()
