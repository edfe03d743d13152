# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits on how often something may happen: a token bucket, so that what is rare is never delayed."""

import time


class Bucket:
    """Holds up to *burst* tokens and gets *rate* new ones a second. Not for several threads at once."""

    def __init__(self, burst: float, rate: float) -> None:
        self._burst, self._rate = burst, rate
        self._tokens = burst
        self._filled = time.monotonic()

    def charge(self, tokens: float = 1.0) -> float:
        """Take tokens for what has happened; return the seconds in which nothing more may happen."""
        self._fill()
        self._tokens -= tokens
        return max(0.0, -self._tokens / self._rate)

    def ask(self) -> float:
        """Take one token if there is one and return 0; else return the seconds until there is."""
        self._fill()
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate

    def _fill(self) -> None:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
