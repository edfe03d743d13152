# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules as crontab(5) has them, in UTC; cronsim knows what they mean."""

from __future__ import annotations

from datetime import UTC, datetime

#: Names for schedules (crontab(5), and those of Kubernetes' CronJobs).
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class ScheduleError(ValueError):
    """It isn't a schedule, or its time never comes."""


def next_time(schedule: str, after: datetime) -> datetime:
    """Return when a schedule's time comes next.

    :raises ScheduleError: never.
    """
    # Not from the start: what makes the definitions of kinds runs where the engine's packages aren't
    from cronsim import CronSim, CronSimError

    words = _NAMED.get(schedule.strip(), schedule)
    try:
        if len(words.split()) != 5:
            raise ScheduleError(f"{schedule!r} doesn't have the five fields of a schedule, such as '30 3 * * *'")
        return next(CronSim(" ".join(words.split()), after.astimezone(UTC)))
    except (CronSimError, StopIteration) as error:
        raise ScheduleError(f"{schedule!r} is not a schedule: {error or 'its time never comes'}") from error
