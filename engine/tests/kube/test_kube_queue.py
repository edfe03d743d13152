# SPDX-License-Identifier: GPL-3.0-or-later
import threading
import time

from turtles.kube.client import Conflict
from turtles.kube.controller import run_workers
from turtles.kube.queue import WorkQueue


def test_a_key_waits_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert [queue.get(), queue.get(), len(queue)] == ["a", "b", 0]


def test_a_key_added_while_worked_on_runs_again_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert queue.get() == "a"


def test_delays_end_in_order() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("late", 0.05)
    queue.add_after("early", 0.02)
    queue.add_after("early", 60)
    started = time.monotonic()
    assert [queue.get(), queue.get()] == ["early", "late"]
    assert 0.04 < time.monotonic() - started < 30


def test_failures_back_off_until_forgotten() -> None:
    queue: WorkQueue[str] = WorkQueue(first_delay=0.001, longest_delay=0.004)
    assert [queue.add_rate_limited("a") for _ in range(4)] == [0.001, 0.002, 0.004, 0.004]
    assert queue.failures("a") == 4
    queue.forget("a")
    assert queue.add_rate_limited("a") == 0.001


def test_closing_sends_workers_home() -> None:
    queue: WorkQueue[str] = WorkQueue()
    threads = run_workers(queue, lambda key: None, 2, "t")
    queue.close()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    queue.add("a")
    assert len(queue) == 0


def test_workers_retry_what_fails_and_look_again_when_told() -> None:
    queue: WorkQueue[str] = WorkQueue()
    runs: dict[str, int] = {}
    done = threading.Event()

    def reconcile(key: str) -> float | None:
        runs[key] = runs.get(key, 0) + 1
        if key == "failing" and runs[key] < 3:
            raise Conflict(409, "Conflict", "again") if runs[key] == 1 else RuntimeError("broken")
        if runs.get("failing") == 3 and runs.get("again", 0) >= 3:
            done.set()
        return 0.001 if key == "again" else None

    run_workers(queue, reconcile, 2, "t")
    queue.add("failing")
    queue.add("again")
    assert done.wait(60)
    queue.close()


def test_a_closed_gate_holds_workers_back() -> None:
    queue: WorkQueue[str] = WorkQueue()
    gate, ran = threading.Event(), threading.Event()
    run_workers(queue, lambda key: ran.set(), 1, "t", gate=gate)
    queue.add("a")
    assert not ran.wait(0.05)
    gate.set()
    assert ran.wait(30)
    queue.close()
