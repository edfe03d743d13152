# SPDX-License-Identifier: GPL-3.0-or-later
"""An empty disk."""

from turtles.importer.errors import ImportFailed
from turtles.importer.target import Target


def run(target: Target) -> None:
    """Make it.

    :raises ImportFailed: there is no space for it.
    """
    try:
        target.prepare()
        target.erase()
        target.publish()
    except OSError as error:
        target.discard()
        raise ImportFailed(f"the disk can't be written: {error.strerror or error}") from error
