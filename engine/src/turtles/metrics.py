# SPDX-License-Identifier: GPL-3.0-or-later
"""What a metric is: its description, and its samples. Pure; `turtles.health` serves them.

Names, labels and meanings are KubeVirt's where it has them ("KubeVirt metrics", docs/observability/metrics.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"


class Description(NamedTuple):
    """A metric.

    :param kind: GAUGE; COUNTER, whose name ends in `_total`; or HISTOGRAM.
    """

    name: str
    doc: str
    kind: str = GAUGE


class Sample(NamedTuple):
    """One value. That of a histogram has the metric's name with `_bucket`, `_sum` or `_count`."""

    name: str
    labels: Mapping[str, str]
    value: float


class Source(NamedTuple):
    """Metrics that are computed together.

    :param samples: is called for each request.
    """

    descriptions: Sequence[Description]
    samples: Callable[[], Iterable[Sample]]
