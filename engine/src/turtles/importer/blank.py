# SPDX-License-Identifier: GPL-3.0-or-later
"""An empty disk."""

from turtles.importer.target import Target


def run(target: Target) -> None:
    """Make it.

    :raises ImportFailed: there is no space for it.
    """
    with target.written("the disk can't be written"):
        target.prepare()
        target.erase()
        target.publish()
