# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets at which the node agent finds the launcher."""

import socket
from pathlib import Path

from turtles.launcher.errors import LaunchError

_BACKLOG = 4


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at a path, instead of whatever is there.

    :raises LaunchError: if the Pod's folders can't be used.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)  # the node agent is root and may connect anyway
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise LaunchError(f"the Pod's folders can't be used: {error}") from error
    return listener
