# SPDX-License-Identifier: GPL-3.0-or-later
"""For how long the nodes' agents are silent, by the clock of this process.

Heartbeats are stamped by the nodes' clocks, and clocks are set. What counts is when a stamp was seen to change here, as
leader election judges a lease. Only a stamp that was there before this process is taken at its word.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from turtles.api import labels
from turtles.api.objects import Object, annotations_of
from turtles.api.times import parse_time


def silent_for(node: Object, now: datetime) -> float | None:
    """Return the seconds since the node agent's last heartbeat, by its stamp; None where there never was one."""
    beat = parse_time(annotations_of(node).get(labels.NODE_HEARTBEAT))
    return (now - beat).total_seconds() if beat else None


class Heartbeats:
    """When each node's agent was heard."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[str, float]] = {}

    def observe(self, old: Object | None, new: Object | None) -> None:
        """Take note of a node's change; a handler for an informer."""
        if new is not None:
            self.silence(new, datetime.now(UTC))
        elif old is not None:
            self._heard.pop(old["metadata"]["name"], None)

    def silence(self, node: Object, now: datetime) -> float | None:
        """Return the seconds since the node agent was last heard; None where it never was."""
        first = silent_for(node, now)
        if first is None:
            return None
        name, stamp = node["metadata"]["name"], node["metadata"]["annotations"][labels.NODE_HEARTBEAT]
        moment = self._clock()
        known = self._heard.get(name)
        if known is None or known[0] != stamp:
            known = self._heard[name] = stamp, moment - max(0.0, first) if known is None else moment
        return moment - known[1]
