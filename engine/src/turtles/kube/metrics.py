# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of what all components have: requests to the API server, and work queues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from turtles.kube.client import Client
from turtles.kube.queue import WorkQueue
from turtles.metrics import COUNTER, Description, Sample, Source

_REQUESTS = "kubevirt_rest_client_requests_total"
_ADDS, _DEPTH = "kubevirt_workqueue_adds_total", "kubevirt_workqueue_depth"
_RETRIES = "kubevirt_workqueue_retries_total"


def of_client(client: Client) -> Source:
    """Return the metrics of the requests to the API server."""
    host = urlsplit(client.url).netloc

    def samples() -> Iterator[Sample]:
        for (method, code), count in sorted(dict(client.answers).items()):
            yield Sample(_REQUESTS, {"code": str(code), "method": method, "host": host}, float(count))

    doc = "Number of HTTP requests, partitioned by status code, method, and host."
    return Source((Description(_REQUESTS, doc, COUNTER),), samples)


def of_queues(queues: Sequence[WorkQueue[Any]]) -> Source:
    """Return the metrics of work queues."""

    def samples() -> Iterator[Sample]:
        for queue in queues:
            labels = {"name": queue.name}
            yield Sample(_ADDS, labels, float(queue.adds))
            yield Sample(_DEPTH, labels, float(len(queue)))
            yield Sample(_RETRIES, labels, float(queue.retries))

    return Source(
        (
            Description(_ADDS, "Total number of adds handled by workqueue.", COUNTER),
            Description(_DEPTH, "Current depth of workqueue."),
            Description(_RETRIES, "Total number of retries handled by workqueue.", COUNTER),
        ),
        samples,
    )
