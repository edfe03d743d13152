# SPDX-License-Identifier: GPL-3.0-or-later
"""A work queue for controllers: a key waits at most once, is worked on by one worker at a time, and may be delayed.

The rules are those of client-go's workqueue: a key added while it is being worked on runs again afterwards; failures
back off exponentially per key.
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: First and longest pause of :meth:`WorkQueue.add_rate_limited`, seconds.
FIRST_DELAY, LONGEST_DELAY = 0.005, 60.0


class WorkQueue(Generic[K]):
    """Keys to reconcile; any thread may add, workers call :meth:`get` and :meth:`done`."""

    def __init__(
        self, name: str = "", *, first_delay: float = FIRST_DELAY, longest_delay: float = LONGEST_DELAY
    ) -> None:
        """Create an empty queue.

        :param name: for logs.
        :param first_delay: pause after a key's first failure, seconds; doubles with each further one.
        :param longest_delay: where the doubling ends, seconds.
        """
        self.name = name
        self._first_delay, self._longest_delay = first_delay, longest_delay
        self._condition = threading.Condition()
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        self._active: set[K] = set()
        self._delayed: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._sequence = 0
        self._failures: dict[K, int] = {}
        self._closed = False
        #: How many keys have been added so far, and how many of them again after a failure.
        self.adds = self.retries = 0

    def add(self, key: K) -> None:
        """Queue a key to be worked on as soon as possible."""
        with self._condition:
            self._add(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Queue a key to be worked on after a while; of several delays of one key the shortest counts."""
        if seconds <= 0:
            self.add(key)
            return
        with self._condition:
            due = time.monotonic() + seconds
            if self._closed or self._due.get(key, due + 1) <= due:
                return
            self._due[key] = due
            self._sequence += 1
            heapq.heappush(self._delayed, (due, self._sequence, key))
            self._condition.notify()

    def add_rate_limited(self, key: K) -> float:
        """Queue a key again after a failure; return the pause in seconds."""
        with self._condition:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            self.retries += 1
        seconds: float = min(self._first_delay * 2 ** min(failures, 30), self._longest_delay)
        self.add_after(key, seconds)
        return seconds

    def forget(self, key: K) -> None:
        """Forget a key's failures, as its work succeeded: the next one starts again with the shortest pause."""
        with self._condition:
            self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """Return how often the key has failed since the last :meth:`forget`."""
        with self._condition:
            return self._failures.get(key, 0)

    def get(self) -> K | None:
        """Wait for the next key; None means that the queue is closed. Call :meth:`done` with what it returns."""
        with self._condition:
            while True:
                now = time.monotonic()
                while self._delayed and self._delayed[0][0] <= now:
                    due, _, key = heapq.heappop(self._delayed)
                    if self._due.get(key) == due:
                        del self._due[key]
                        self._add(key)
                if self._closed:
                    return None
                if self._ready:
                    key = self._ready.popleft()
                    self._dirty.discard(key)
                    self._active.add(key)
                    return key
                self._condition.wait(self._delayed[0][0] - now if self._delayed else None)

    def done(self, key: K) -> None:
        """Mark a key's work as finished; it runs again if it was added in the meantime."""
        with self._condition:
            self._active.discard(key)
            if key in self._dirty:
                self._ready.append(key)
                self._condition.notify()

    def close(self) -> None:
        """Stop all workers; waiting keys are dropped."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def __len__(self) -> int:
        """Return how many keys wait, without the delayed ones."""
        with self._condition:
            return len(self._ready)

    def _add(self, key: K) -> None:
        if self._closed or key in self._dirty:
            return
        self._dirty.add(key)
        self.adds += 1
        if key not in self._active:
            self._ready.append(key)
            self._condition.notify()
