# SPDX-License-Identifier: GPL-3.0-or-later
"""The last words of a container, for the Pod's status (Kubernetes: terminationMessagePath)."""

import os
from pathlib import Path

#: Where the Pod's runtime expects the reason of a failure, and how much it keeps.
TERMINATION_LOG = Path("/dev/termination-log")
_BYTES = 4096


def leave(message: str) -> None:
    """Leave *message* for the Pod's status, if there is a place for it."""
    try:
        descriptor = os.open(TERMINATION_LOG, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    except OSError:
        return
    with open(descriptor, "wb") as file:
        file.write(message.encode()[:_BYTES])
