# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a Pod's containers don't run yet."""


class Waiting(Exception):
    """The Pod can't continue now.

    :param reason: reason of its containers' state ``waiting``.
    :param message: the state's message.
    :param again: seconds after which to try again; None if an event will say when.
    """

    def __init__(self, reason: str, message: str, again: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.again = reason, again
