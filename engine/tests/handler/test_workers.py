# SPDX-License-Identifier: GPL-3.0-or-later
import threading
import time

from turtles.handler.rate import Bucket
from turtles.handler.workers import Workers
from turtles.kube.queue import WorkQueue


def test_those_that_are_held_up_are_not_missed() -> None:
    queue: WorkQueue[str] = WorkQueue()
    release, done = threading.Event(), threading.Event()

    def reconcile(key: str) -> None:
        if key == "last":
            done.set()
        else:
            release.wait(60)

    workers = Workers(queue, reconcile, 2, "test")
    try:
        for number in range(14):
            queue.add(f"silent {number}")
        queue.add("last")
        assert done.wait(60)
        assert len(workers.threads) <= 2 + 14
    finally:
        release.set()
        queue.close()
        for thread in workers.threads:
            thread.join(60)


def test_quick_work_needs_no_more_threads() -> None:
    queue: WorkQueue[int] = WorkQueue()
    left = threading.Semaphore(0)
    workers = Workers(queue, lambda key: left.release(), 2, "test")
    for number in range(200):
        queue.add(number)
    for _ in range(200):
        assert left.acquire(timeout=60)
    assert len(workers.threads) == 2
    queue.close()


def test_what_is_rare_is_never_delayed() -> None:
    bucket = Bucket(3, 20)
    assert [bucket.ask() for _ in range(3)] == [0, 0, 0]
    wait = bucket.ask()
    assert 0 < wait <= 0.05
    time.sleep(wait)
    assert bucket.ask() == 0
    assert Bucket(10, 100).charge(60) > 0.4
