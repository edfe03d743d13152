# SPDX-License-Identifier: GPL-3.0-or-later
"""How long instances and migrations take from one phase to the next, as histograms."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from turtles.api.objects import Object
from turtles.api.phases import is_final, phase_of
from turtles.api.times import parse_time
from turtles.metrics import HISTOGRAM, Description, Sample, Source

_FROM_CREATION = "kubevirt_vmi_phase_transition_time_from_creation_seconds"
_FROM_DELETION = "kubevirt_vmi_phase_transition_time_from_deletion_seconds"
_OF_MIGRATION = "kubevirt_vmi_migration_phase_transition_time_from_creation_seconds"
_BETWEEN = "kubevirt_vmi_phase_transition_time_seconds"
#: Upper bounds, seconds.
_BUCKETS = (0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600)

_DESCRIPTIONS = (
    Description(_FROM_CREATION, "Histogram of VM phase transitions duration from creation time in seconds.", HISTOGRAM),
    Description(_FROM_DELETION, "Histogram of VM phase transitions duration from deletion time in seconds.", HISTOGRAM),
    Description(_BETWEEN, "Histogram of VM phase transitions duration between different phases in seconds.", HISTOGRAM),
    Description(
        _OF_MIGRATION,
        "Histogram of VM migration phase transitions duration from creation time in seconds.",
        HISTOGRAM,
    ),
)


class _Histogram:
    def __init__(self) -> None:
        self.counts, self.sum = [0] * (len(_BUCKETS) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(_BUCKETS, value)] += 1
        self.sum += value

    def samples(self, name: str, labels: Mapping[str, str]) -> Iterator[Sample]:
        total = 0
        for bound, count in zip((*_BUCKETS, "+Inf"), self.counts, strict=True):
            total += count
            yield Sample(f"{name}_bucket", {**labels, "le": str(bound)}, float(total))
        yield Sample(f"{name}_count", labels, float(total))
        yield Sample(f"{name}_sum", labels, self.sum)


class Transitions:
    """Watches instances and migrations."""

    def __init__(self) -> None:
        self._histograms: dict[tuple[str, tuple[tuple[str, str], ...]], _Histogram] = {}
        self._lock = threading.Lock()

    @property
    def source(self) -> Source:
        """The histograms."""
        return Source(_DESCRIPTIONS, self._samples)

    def observe(self, old: Object | None, new: Object | None) -> None:
        """Take note of an instance's change, as an informer tells it."""
        if old is None or new is None or phase_of(old) == phase_of(new):
            return
        phase, before, moments = phase_of(new), phase_of(old), _moments(new)
        metadata = new["metadata"]
        since = parse_time(metadata.get("creationTimestamp"))
        self._add(_FROM_CREATION, {"phase": phase}, since, moments.get(phase))
        self._add(_BETWEEN, {"phase": phase, "last_phase": before}, moments.get(before), moments.get(phase))
        if is_final(new):
            since = parse_time(metadata.get("deletionTimestamp"))
            self._add(_FROM_DELETION, {"phase": phase}, since, moments.get(phase))

    def observe_migration(self, old: Object | None, new: Object | None) -> None:
        """Take note of a migration's change, as an informer tells it."""
        if old is None or new is None or phase_of(old) == phase_of(new):
            return
        since = parse_time(new["metadata"].get("creationTimestamp"))
        self._add(_OF_MIGRATION, {"phase": phase_of(new)}, since, _moments(new).get(phase_of(new)))

    def _add(self, name: str, labels: Mapping[str, str], since: Any, moment: Any) -> None:
        if since is None or moment is None or moment < since:
            return
        with self._lock:
            histogram = self._histograms.setdefault((name, tuple(labels.items())), _Histogram())
            histogram.add((moment - since).total_seconds())

    def _samples(self) -> Iterator[Sample]:
        with self._lock:
            return iter(
                [
                    sample
                    for (name, labels), histogram in sorted(self._histograms.items())
                    for sample in histogram.samples(name, dict(labels))
                ]
            )


def _moments(obj: Object) -> dict[str, datetime | None]:
    """Return when each phase began."""
    return {
        each["phase"]: parse_time(each.get("phaseTransitionTimestamp"))
        for each in (obj.get("status") or {}).get("phaseTransitionTimestamps") or ()
    }
