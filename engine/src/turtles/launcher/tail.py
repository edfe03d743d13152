# SPDX-License-Identifier: GPL-3.0-or-later
"""The command virt-tail: what runs in the container ``guest-console-log`` of a launcher Pod.

It writes to its standard output what comes through the pipe named as its argument, until virt-launcher, which writes to
it, has ended. It does so as cat(1), which takes half a megabyte where Python takes ten.
"""

import errno
import os
import sys
import time

#: What the command is called; a process that is forked from a loaded launcher is told by it what it is.
PROGRAM = "virt-tail"
_CAT = "/usr/bin/cat"
#: Seconds that the launcher, which is started first, may take to make the pipe, and between two looks for it.
_PATIENCE, _PAUSE = 60.0, 0.05


def main(argv: list[str] | None = None) -> int:
    """Become cat(1), reading from the pipe.

    :param argv: the pipe's path; None takes the process's own arguments.
    :return: the exit status, if that isn't possible.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print(f"usage: {PROGRAM} PIPE", file=sys.stderr)
        return 2
    try:
        pipe = _open(arguments[0])
        os.dup2(pipe, 0)
        os.execv(_CAT, ["cat"])  # noqa: S606
    except OSError as error:
        print(f"{PROGRAM}: {arguments[0]}: {error.strerror}", file=sys.stderr)
    return 1


def _open(path: str) -> int:
    """Open the pipe. Nobody waits for a writer: a launcher that has ended already won't come back."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            break
        except OSError as error:
            if error.errno != errno.ENOENT or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE)
    os.set_blocking(pipe, True)
    return pipe
