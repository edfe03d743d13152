# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what the node agent has seen of a VMI to its status and events, and to the log."""

import logging
from collections.abc import Mapping
from typing import Any

from turtles.api import times
from turtles.api.objects import Object
from turtles.api.phases import phase_of
from turtles.domain import report
from turtles.domain.end import End
from turtles.domain.report import Event, Observation
from turtles.handler.cluster import Cluster
from turtles.handler.guest import Guest
from turtles.log import about

log = logging.getLogger(__name__)


class Reporter:
    """Reports about VMIs. Nothing is written that is there already."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def event(self, vmi: Object, event: Event) -> None:
        """Record an event."""
        self._cluster.event(vmi, event.type, event.reason, event.message)

    def observed(self, vmi: Object, guest: Guest, seen: Observation) -> None:
        """Report the state of a guest that hasn't ended."""
        status = report.observed(vmi, seen, guest.info, times.now(), guest.credentials)
        self._patch(vmi, status)
        for event in report.events(vmi["status"], status):
            self.event(vmi, event)

    def ended(self, vmi: Object, guest: Guest, end: End) -> None:
        """Report that a VMI ends."""
        self._patch(vmi, report.ended(vmi, end, times.now()))
        self.event(vmi, Event(end.event_type, end.reason, end.message))
        log.info("guest ended", extra={"vmi": str(guest), "uid": guest.uid, "phase": end.phase, "why": end.message})

    def attempt_failed(self, vmi: Object, message: str) -> None:
        """Report that an attempt failed; another one follows."""
        self.event(vmi, Event("Warning", "SyncFailed", f"{message} (trying again)"))
        self._patch(vmi, report.attempt_failed(vmi, message, times.now()))

    def unresponsive(self, vmi: Object, guest: Guest, message: str) -> None:
        """Report that it is unknown whether the guest runs."""
        if self._patch(vmi, report.unresponsive(vmi, message, times.now())):
            log.warning("the launcher does not answer: %s", message, extra={"vmi": str(guest)})

    def _patch(self, vmi: Object, status: Mapping[str, Any]) -> bool:
        """Write the changes of a status; return whether there were any."""
        changes = report.changes(vmi["status"], status)
        if changes:
            self._cluster.patch(vmi, changes)
            if status.get("phase") != phase_of(vmi):
                log.info("phase changed", extra=about("vmi", vmi, phase=status.get("phase")))
        return bool(changes)
