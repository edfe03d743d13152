# SPDX-License-Identifier: GPL-3.0-or-later
"""Worker threads that empty a work queue with a reconcile function."""

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import TypeVar

from turtles.kube.client import ApiError, Conflict, Invalid
from turtles.kube.queue import WorkQueue

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

#: A reconcile that takes longer than this is worth a line in the log, seconds.
_SLOW = 1.0


def run_workers(
    queue: WorkQueue[K],
    reconcile: Callable[[K], float | None],
    workers: int,
    name: str,
    *,
    gate: threading.Event | None = None,
) -> list[threading.Thread]:
    """Start threads that reconcile keys until the queue is closed.

    :param reconcile: brings one object closer to what is wanted. Returns seconds after which to look again, or None.
        Whatever it raises puts the key back with a growing pause.
    :param workers: number of threads; one key is never worked on by two of them.
    :param gate: keys are only worked on while this is set.
    """

    def work() -> None:
        while (key := queue.get()) is not None:
            if gate is not None:
                gate.wait()
            started = time.monotonic()
            try:
                again = reconcile(key)
            except Exception as error:
                pause = queue.add_rate_limited(key)
                extra = {"queue": name, "key": _text(key), "retry_in": round(pause, 3)}
                # Somebody else wrote first, or a patch's test failed: normal, and solved by looking again.
                if isinstance(error, Conflict | Invalid) and pause < 1.0:
                    log.debug("reconciling again: %s", error, extra=extra)
                elif isinstance(error, ApiError):
                    log.warning("reconciling again: %s", error, extra=extra)
                else:
                    log.exception("reconcile failed: %s", error, extra=extra)
            else:
                queue.forget(key)
                if again is not None:
                    queue.add_after(key, again)
            finally:
                queue.done(key)
            if (took := time.monotonic() - started) > _SLOW:
                log.info("slow reconcile", extra={"queue": name, "key": _text(key), "seconds": round(took, 3)})

    threads = [threading.Thread(target=work, name=f"{name}-{number}", daemon=True) for number in range(workers)]
    for thread in threads:
        thread.start()
    return threads


def _text(key: Hashable) -> str:
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
