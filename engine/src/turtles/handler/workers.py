# SPDX-License-Identifier: GPL-3.0-or-later
"""Worker threads, with substitutes for those that wait for a Pod.

Each VMI is worked on by one thread at a time. A Pod that answers late, or never, holds that thread up; so it gets a
substitute. A node has never more threads than its number of workers and of Pods that hold one up at once.
"""

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from turtles.kube.controller import run_workers
from turtles.kube.queue import WorkQueue

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

#: Seconds after which a worker counts as held up.
PATIENCE = 0.5


class Workers(Generic[K]):
    """Reconciles the keys of a queue until that is closed."""

    def __init__(self, queue: WorkQueue[K], reconcile: Callable[[K], float | None], workers: int, name: str) -> None:
        """Start the workers.

        :param reconcile: as :func:`turtles.kube.controller.run_workers` has it.
        :param workers: how many there are for keys that don't block.
        """
        self._queue, self._reconcile, self._workers, self._name = queue, reconcile, workers, name
        self._since: dict[K, float] = {}
        self._busy = threading.Condition()
        self.threads = run_workers(queue, self._work, workers, name)
        threading.Thread(target=self._watch, name=f"{name}-substitutes", daemon=True).start()

    def _work(self, key: K) -> float | None:
        with self._busy:
            if not self._since:
                self._busy.notify()
            self._since[key] = time.monotonic()
        try:
            return self._reconcile(key)
        finally:
            with self._busy:
                del self._since[key]

    def _watch(self) -> None:
        while True:
            with self._busy:
                now = time.monotonic()
                waits = [since + PATIENCE - now for since in self._since.values()]
                held_up = sum(wait <= 0 for wait in waits)
                missing = self._workers + held_up - len(self.threads)
                if missing <= 0:
                    self._busy.wait(min((wait for wait in waits if wait > 0), default=PATIENCE if waits else None))
                    continue
            log.info("workers are blocked", extra={"held_up": held_up, "queue": self._name})
            self.threads += run_workers(self._queue, self._work, missing, f"{self._name}-{len(self.threads)}")
