# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides which image pulls run, for which Pods, and when they are cancelled.

Pods that want the same image with the same credentials share one pull. A pull that no Pod waits for any more is
cancelled. A namespace has a few of the places only, and of those who wait the namespace with the fewest pulls under way
is next: one tenant's slow or hostile registries don't keep the others from theirs.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

from turtles.standalone.podrunner.confined import Attempt

log = logging.getLogger(__name__)


@dataclass
class _Job:
    key: Hashable
    work: Callable[[Attempt], str]
    future: Future[str] = field(default_factory=Future)
    #: Namespace by uid of the Pods that wait.
    waiting: dict[str, str] = field(default_factory=dict)
    #: Once it runs:
    attempt: Attempt | None = None
    charged: str = ""
    thread: threading.Thread | None = None


class Pulls:
    """Runs pulls.

    :param attempt: creates the argument of a pull when it starts.
    :param parallel: how many run at the same time.
    :param per_namespace: how many of them for one namespace.
    """

    def __init__(self, attempt: Callable[[], Attempt], parallel: int, per_namespace: int) -> None:
        self._attempt, self._parallel, self._per_namespace = attempt, parallel, per_namespace
        self._lock = threading.Lock()
        #: Those that somebody waits for, in the order in which they were asked for.
        self._jobs: dict[Hashable, _Job] = {}
        #: Those that have a place: cancelled ones too, until they have ended.
        self._running: list[_Job] = []
        self._stopped = False

    def join(self, key: Hashable, uid: str, namespace: str, work: Callable[[Attempt], str]) -> Future[str]:
        """Let a Pod wait for a pull, starting it if necessary.

        :param key: what makes two pulls the same.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = _Job(key, work)
            job.waiting[uid] = namespace
            self._begin()
            return job.future

    def leave(self, uid: str, key: Hashable | None = None) -> None:
        """Stop a Pod's waiting: for one pull, or (None) for any."""
        with self._lock:
            for job in [job for job in self._jobs.values() if uid in job.waiting and key in (None, job.key)]:
                namespace = job.waiting.pop(uid)
                if not job.waiting:
                    self._cancel(job)
                elif job.charged == namespace and namespace not in job.waiting.values():
                    # It goes on for others, who have to stand for it.
                    job.charged = next(iter(job.waiting.values()))
            self._begin()

    def describe(self, key: Hashable, namespace: str) -> str:
        """Say what a pull waits for, "" if it runs."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.attempt is not None:
                return ""
            own = self._under_way()[namespace]
            return f"waiting for its turn: {len(self._running)} pulls are under way, {own} for this namespace"

    def stop(self, seconds: float = 5.0) -> None:
        """Cancel all pulls and wait until what they started has ended."""
        with self._lock:
            self._stopped = True
            for job in list(self._jobs.values()):
                self._cancel(job)
            threads = [job.thread for job in self._running if job.thread is not None]
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _cancel(self, job: _Job) -> None:
        # Whoever comes now gets another one.
        del self._jobs[job.key]
        if job.attempt is None:
            job.future.cancel()
        else:
            job.attempt.cancel()

    def _under_way(self) -> Counter[str]:
        return Counter(job.charged for job in self._running)

    def _begin(self) -> None:
        """Start waiting pulls while there are free slots; the lock is held."""
        while not self._stopped and len(self._running) < self._parallel:
            under_way = self._under_way()
            candidates = [
                (under_way[namespace], number, namespace, job)
                for number, job in enumerate(self._jobs.values())
                if job.attempt is None
                for namespace in sorted(set(job.waiting.values()))
                if under_way[namespace] < self._per_namespace
            ]
            if not candidates:
                return
            _, _, namespace, job = min(candidates, key=lambda candidate: candidate[:2])
            job.attempt, job.charged = self._attempt(), namespace
            job.future.set_running_or_notify_cancel()
            self._running.append(job)
            job.thread = threading.Thread(target=self._run, args=(job, job.attempt), name="pull")
            job.thread.start()

    def _run(self, job: _Job, attempt: Attempt) -> None:
        result, failure = "", None
        try:
            result = job.work(attempt)
        except BaseException as error:  # for those who wait
            failure = error
        with self._lock:
            self._running.remove(job)
            if self._jobs.get(job.key) is job:
                del self._jobs[job.key]
            self._begin()
        if failure is not None:
            job.future.set_exception(failure)
        else:
            job.future.set_result(result)
