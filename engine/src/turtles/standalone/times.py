# SPDX-License-Identifier: GPL-3.0-or-later
"""Points in time as the Kubernetes API writes them (metav1.Time): RFC 3339 in UTC, to the second."""

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """Format a time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now() -> str:
    """Return the current time, formatted."""
    return rfc3339(datetime.now(UTC))
