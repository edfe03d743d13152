# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides which image pulls run, for which Pods, and when they are cancelled.

Pods that want the same image with the same credentials share one pull. A pull that no Pod waits for any more is
cancelled.

Slow or hostile registries of some namespaces don't keep the others from theirs. A namespace has a few of the places
only. Of those who wait, the namespace with the fewest pulls under way is next, of several the one whose last turn is
the longest ago. When all places are taken, a pull that has had its place for longer than a lease gives way to a
namespace that has less, and begins again later. The older half of the pulls never gives way, so long ones end, too.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
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
    #: While it runs, the namespace whose place it has, and the end of its lease (monotonic):
    attempt: Attempt | None = None
    charged: str = ""
    lease_end: float = 0.0
    thread: threading.Thread | None = None
    alarm: threading.Timer | None = None


class Pulls:
    """Runs pulls.

    :param attempt: creates the argument of a pull when it starts.
    :param parallel: how many run at the same time.
    :param per_namespace: how many of them for one namespace.
    :param lease: how many seconds a pull keeps its place when others need it.
    """

    def __init__(self, attempt: Callable[[], Attempt], parallel: int, per_namespace: int, lease: float = 60.0) -> None:
        self._attempt, self._parallel, self._per_namespace, self._lease = attempt, parallel, per_namespace, lease
        self._lock = threading.Lock()
        #: Those that somebody waits for, in the order in which they were asked for.
        self._jobs: dict[Hashable, _Job] = {}
        #: Those that have a place, in the order in which they got it: cancelled ones too, until they have ended.
        self._running: list[_Job] = []
        #: Namespaces with jobs that had a turn; the last one is the latest.
        self._turns: list[str] = []
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
        """Start waiting pulls while there are free places, or let others give way to them; the lock is held."""
        while not self._stopped and (candidates := list(self._candidates())):
            _, _, _, namespace, job = min(candidates, key=lambda candidate: candidate[:3])
            if len(self._running) < self._parallel:
                self._start(job, namespace)
            else:
                self._preempt(namespace)
                return

    def _candidates(self) -> Iterator[tuple[int, int, int, str, _Job]]:
        """Yield waiting pulls with the namespaces that may start them; those with the lowest numbers are next."""
        under_way = self._under_way()
        present = {namespace for job in self._jobs.values() for namespace in job.waiting.values()}
        self._turns = [namespace for namespace in self._turns if namespace in present]
        turns = {namespace: number for number, namespace in enumerate(self._turns)}
        for number, job in enumerate(self._jobs.values()):
            for namespace in sorted(set(job.waiting.values())):
                if job.attempt is None and under_way[namespace] < self._per_namespace:
                    yield under_way[namespace], turns.get(namespace, -1), number, namespace, job

    def _start(self, job: _Job, namespace: str) -> None:
        self._turns = [*(other for other in self._turns if other != namespace), namespace]
        job.attempt, job.charged, job.lease_end = self._attempt(), namespace, time.monotonic() + self._lease
        self._running.append(job)
        job.thread = threading.Thread(target=self._run, args=(job, job.attempt), name="pull")
        job.thread.start()
        job.alarm = threading.Timer(self._lease, self._look_again)
        job.alarm.daemon = True
        job.alarm.start()

    def _look_again(self) -> None:
        with self._lock:
            self._begin()

    def _preempt(self, namespace: str) -> None:
        """Cancel a pull whose lease is over, if that makes things fairer for a namespace."""
        if any(job.attempt is not None and job.attempt.cancelled for job in self._running):
            return  # a place is about to be free
        under_way, now = self._under_way(), time.monotonic()
        own = under_way[namespace]
        # With one pull each, namespaces take turns; with more, nobody gains by changing places.
        enough = 1 if own == 0 else own + 2
        victims = [
            job
            for job in self._running[(self._parallel + 1) // 2 :]
            if job.lease_end <= now and under_way[job.charged] >= enough
        ]
        if victims:
            # Of those who have most, the one that loses the least work.
            job = max(victims, key=lambda job: (under_way[job.charged], job.lease_end))
            log.info("a pull gives way", extra={"of": job.charged, "to": namespace})
            assert job.attempt is not None
            job.attempt.cancel()

    def _run(self, job: _Job, attempt: Attempt) -> None:
        result, failure = "", None
        try:
            result = job.work(attempt)
        except BaseException as error:  # for those who wait
            failure = error
        with self._lock:
            self._running.remove(job)
            if job.alarm is not None:
                job.alarm.cancel()
            is_wanted = self._jobs.get(job.key) is job
            if is_wanted:
                del self._jobs[job.key]
            gave_way = is_wanted and failure is not None and attempt.cancelled
            if gave_way:
                # At the end of those who wait.
                job.attempt, job.charged = None, ""
                self._jobs[job.key] = job
            self._begin()
        if gave_way:
            return
        if failure is not None:
            job.future.set_exception(failure)
        else:
            job.future.set_result(result)
