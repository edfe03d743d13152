# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors between the node agent and a launcher, and how a launcher's messages are sanitised."""

import re

from turtles.domain.end import End

#: How much of a text from a Pod reaches events, conditions and logs.
_TEXT = 1000
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")


class GuestEnded(Exception):
    """The VMI ends here."""

    def __init__(self, end: End) -> None:
        super().__init__(end.message)
        self.end = end


class LauncherNotReady(Exception):
    """libvirtd can't be reached (yet). The message says why."""


class LauncherBusy(LauncherNotReady):
    """libvirtd's socket is there but it doesn't answer, or not any more, at this moment."""


class LauncherGone(LauncherNotReady):
    """The Pod's folder or its first process doesn't exist any more."""


class LibvirtError(Exception):
    """libvirtd refused a call.

    ``code`` is libvirt's (``virErrorNumber``).
    """

    def __init__(self, message: str, code: int = -1) -> None:
        super().__init__(bounded(message))
        self.code = code


class HookError(Exception):
    """Hook sidecars can't be called, or what they make of the domain can't be used."""

    def __init__(self, message: str) -> None:
        super().__init__(bounded(message))


class OperationFailed(Exception):
    """What a user asked for isn't possible. ``code`` is the HTTP status that says so."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def bounded(text: str, limit: int = _TEXT) -> str:
    """Return a Pod's text for others to read: one line of at most *limit* characters."""
    line = _UNPRINTABLE.sub(" ", text[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"
