# SPDX-License-Identifier: GPL-3.0-or-later
"""``/metrics``: the server's own metrics in Prometheus' text format, under the names that kube-apiserver gives them."""

import os
import resource
import time
from collections import Counter
from collections.abc import Sequence

from turtles.standalone.apiserver.http.limits import Limits
from turtles.standalone.apiserver.storage.store import Store

MEDIA_TYPE = "text/plain"
_STARTED = time.time()


class Metrics:
    """Counts answers."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: Counter[tuple[str, str]] = Counter()

    def count(self, verb: str, what: str, code: int, seconds: float | None) -> None:
        """Count an answer.

        :param what: the resource, '' for another path.
        :param seconds: how long it took; None for one that lasts as long as its client wants.
        """
        self._requests[verb, what, code] += 1
        if seconds is not None:
            # Microseconds: a Counter's values are integers.
            self._seconds[verb, what] += int(seconds * 1e6)

    def text(self, store: Store, limits: Limits) -> str:
        """Return all metrics."""
        lines: list[str] = []

        def family(name: str, kind: str, about: str, values: Sequence[tuple[str, float]]) -> None:
            lines.append(f"# HELP {name} {about}")
            lines.append(f"# TYPE {name} {kind}")
            lines.extend(f"{name}{{{labels}}} {value:.15g}" if labels else f"{name} {value:.15g}"
                         for labels, value in values)  # fmt: skip

        family(
            "apiserver_request_total", "counter", "Responses, by verb, resource and status.",
            [(f'verb="{verb.upper()}",resource="{what}",code="{code}"', count)
             for (verb, what, code), count in sorted(self._requests.items())],
        )  # fmt: skip
        family(
            "apiserver_request_duration_seconds_sum", "counter", "Response times in seconds, without watches.",
            [(f'verb="{verb.upper()}",resource="{what}"', micro / 1e6)
             for (verb, what), micro in sorted(self._seconds.items())],
        )  # fmt: skip
        inflight = [(f'request_kind="{kind or "readOnly"}"', limits.inflight[kind]) for kind in ("", "mutating")]
        family("apiserver_current_inflight_requests", "gauge", "Requests in progress.", inflight)
        family(
            "apiserver_longrunning_requests",
            "gauge",
            "Watches and other long-running requests.",
            [("", limits.long_running)],
        )
        family(
            "apiserver_storage_objects", "gauge", "Objects, by resource.",
            [(f'resource="{_resource(name)}"', len(store.table(name).entries)) for name in sorted(store.resources())],
        )  # fmt: skip
        family("apiserver_storage_size_bytes", "gauge", "Size of the database on disk in bytes.", [("", store.size())])
        usage = resource.getrusage(resource.RUSAGE_SELF)
        family("process_cpu_seconds_total", "counter", "Processor time.", [("", usage.ru_utime + usage.ru_stime)])
        family("process_resident_memory_bytes", "gauge", "Memory in use.", [("", _resident())])
        family("process_start_time_seconds", "gauge", "When the process started.", [("", _STARTED)])
        return "\n".join(lines) + "\n"


def _resource(name: str) -> str:
    group, _, plural = name.partition("/")
    return f"{plural}.{group}" if group else plural


def _resident() -> int:
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
