# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher in circumstances that tests can't wait for or make; run in the sandbox."""

from turtles.launcher import delivery, main, waits


def impatient(arguments: list[str]) -> int:
    """Say every few milliseconds that the VMI isn't there yet."""
    waits._REMIND_SECONDS, waits._LONGEST_REMIND_SECONDS = 0.02, 0.02
    return main.main(arguments)


class _UsedUp:
    def inotify_init1(self, flags: int) -> int:
        return -1


def without_inotify(arguments: list[str]) -> int:
    """Have all instances of inotify used up by others."""
    delivery._LIBC = _UsedUp()
    return main.main(arguments)
