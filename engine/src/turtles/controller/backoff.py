# SPDX-License-Identifier: GPL-3.0-or-later
"""Pauses between migrations that the engine begins by itself. Pure.

After one that failed there is a pause, which doubles with each that follows (KubeVirt user guide, "Node maintenance",
"Updating workloads").
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from turtles.api import migrations
from turtles.api.objects import Object, annotations_of, get
from turtles.api.phases import phase_of
from turtles.api.times import parse_time, rest_of

#: Of migrations that the engine began: the node that is left, or that its guest is to get a new launcher.
EVACUATION, WORKLOAD_UPDATE = "kubevirt.io/evacuationMigration", "kubevirt.io/workloadUpdateMigration"
#: Shortest and longest pause after a migration that failed, seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 20.0, 640.0


def pause_after(own: Sequence[Object], now: datetime) -> float:
    """Return how many seconds to wait before the next attempt.

    :param own: the machine's migrations, which have all ended.
    """
    ended = sorted(own, key=lambda each: str(each["metadata"].get("creationTimestamp")), reverse=True)
    failures = 0
    for migration in ended:
        if phase_of(migration) != migrations.FAILED or not _is_automatic(migration):
            break
        failures += 1
    if not failures:
        return 0.0
    transitions = get(ended[0], "status", "phaseTransitionTimestamps") or [{}]
    last = parse_time(transitions[-1].get("phaseTransitionTimestamp")) or now
    return max(0.0, rest_of(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (failures - 1)), last, now))


def _is_automatic(migration: Object) -> bool:
    annotations = annotations_of(migration)
    return EVACUATION in annotations or WORKLOAD_UPDATE in annotations
