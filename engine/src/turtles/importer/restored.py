# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that is on the claim already, because the storage has restored a snapshot: it is checked, and grows."""

from turtles.importer.conversion import too_large
from turtles.importer.errors import ImportFailed
from turtles.importer.target import Target


def run(target: Target) -> None:
    """Give the disk its size.

    :raises ImportRefused: there is none, or it is larger.
    :raises ImportFailed: it can't be written.
    """
    try:
        adopted = target.adopt()
        if adopted > target.size:
            raise too_large(target, adopted)
        target.grow()
    except OSError as error:
        raise ImportFailed(f"the restored disk can't be written: {error.strerror or error}") from error
    finally:
        target.close()
