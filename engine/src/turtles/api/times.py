# SPDX-License-Identifier: GPL-3.0-or-later
"""Points in time as the Kubernetes API writes them (metav1.Time): RFC 3339 in UTC, to the second."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """Format a time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now() -> str:
    """Return the current time, formatted."""
    return rfc3339(datetime.now(UTC))


def parse_time(text: str | None) -> datetime | None:
    """Read a timestamp; None where there is none or it isn't valid."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def rest_of(limit: float, since: datetime, now: datetime) -> float:
    """Return how many seconds are left of some that began at a timestamp; none if it is zero or less.

    Timestamps are of other clocks than ours, and clocks are set. One that is farther in the future than the limit says
    so, and nothing about how much is left: nothing waits for a clock to catch up.
    """
    passed = (now - since).total_seconds()
    return 0.0 if passed < -limit else min(limit, limit - passed)
