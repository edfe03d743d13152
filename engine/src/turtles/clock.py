# SPDX-License-Identifier: GPL-3.0-or-later
"""Moments from which durations are measured, also across a restart of the process that noted them.

The time of day can be set: by an administrator, by NTP, after a suspend. Deadlines must not depend on it. The
kernel's CLOCK_MONOTONIC runs evenly, stands still while the machine is suspended, and is the same for all processes,
but begins again with each boot: a moment is kept together with the boot it belongs to.
"""

import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """Return what names this boot of the machine (random(4))."""
    return _BOOT_ID.read_text().strip()


def stamp(moment: float) -> dict[str, Any]:
    """Return a moment of ``time.monotonic`` as JSON data that another process understands."""
    return {"monotonic": moment, "boot_id": boot_id()}


def moment(stamp: Mapping[str, Any] | None) -> float | None:
    """Return the moment of a stamp; None if there is none, or if the machine was booted since."""
    if stamp is None or stamp.get("boot_id") != boot_id():
        return None
    return float(stamp["monotonic"])


def moment_of_unix_time(seconds: float) -> float:
    """Return the moment of a Unix time as well as the clocks of now can tell; none is in the future."""
    return time.monotonic() - max(0.0, time.time() - seconds)
