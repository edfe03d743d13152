# SPDX-License-Identifier: GPL-3.0-or-later
"""Lengths of time as Kubernetes' API has them (metav1.Duration): what Go's time.ParseDuration reads, such as 1h30m."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

#: durationpy knows days and longer, too, which Go and therefore other programs don't.
_GO = re.compile(r"[0-9.hmsunµμ+-]+")


class DurationError(ValueError):
    """The text isn't a duration; the message says how one looks."""


def parse(text: Any) -> timedelta:
    """Read a duration.

    :raises DurationError: it isn't one.
    """
    # Manifests are rendered where the engine's libraries aren't installed; they need the kinds, and no durations
    import durationpy

    try:
        if isinstance(text, str) and _GO.fullmatch(text):
            duration: timedelta = durationpy.from_str(text)
            return duration
    except (durationpy.DurationError, OverflowError) as error:
        raise DurationError(f"{text!r} is not a duration: {error}; one looks like 24h or 1h30m") from error
    raise DurationError(f"{text!r} is not a duration; one looks like 24h or 1h30m")
