# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs targets of the Makefile, all of them even if some fail, and says at the end what became of each.

    scripts/steps.py [--jobs N] TARGET... [--beside TARGET]...

With --jobs that many run side by side, in the order given; the output of each is then shown when it has ended.
What is to run --beside the last one begins with it, has a lower priority, and is shown after it.
$STEPS_REPORT names a file that gets the closing lines too, for a caller that runs several of these.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait


class Step:
    """A target, and what became of it."""

    def __init__(self, target: str) -> None:
        """Make it; it hasn't run."""
        self.target = target
        self.outcome = "not run"
        self.seconds: float | None = None
        self._output: bytes | None = None

    def run(self, *, capture: bool, beside: bool = False) -> None:
        """Run it.

        :param capture: keep its output for :meth:`show`.
        :param beside: run it with a lower priority.
        """
        if _INTERRUPTED.is_set():
            return
        started = time.monotonic()
        if not capture:
            print(f"=== {self.target}", flush=True)
        # MAKEFLAGS has the variables that were given on the command line, such as ARGS.
        done = subprocess.run(
            [*(["nice"] if beside else []), os.environ.get("MAKE", "make"), "--no-print-directory", self.target],
            check=False,
            stdout=subprocess.PIPE if capture else None,
            stderr=subprocess.STDOUT if capture else None,
        )
        self._output = done.stdout
        self.seconds = time.monotonic() - started
        self.outcome = "passed" if done.returncode == 0 else "interrupted" if _INTERRUPTED.is_set() else "failed"

    def show(self) -> None:
        """Print what was kept."""
        if self._output is not None:
            with _PRINTING:
                print(f"=== {self.target}", flush=True)
                sys.stdout.buffer.write(self._output)
                sys.stdout.flush()

    def __str__(self) -> str:
        """Return its line of the closing report."""
        seconds = "" if self.seconds is None else f"{int(self.seconds) // 60:4d}:{int(self.seconds) % 60:02d}"
        return f"{self.outcome:12} {self.target:20} {seconds}".rstrip()


_PRINTING = threading.Lock()
_INTERRUPTED = threading.Event()


def _run(steps: list[Step], beside: list[Step], jobs: int) -> None:
    """Run steps, so many at a time, and others one after another beside the last of them."""

    def run(step: Step) -> None:
        step.run(capture=jobs > 1)
        step.show()

    with ThreadPoolExecutor(1) as background, ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(run, step) for step in steps[:-1]]
        if beside:
            wait(running)
        others = [background.submit(step.run, capture=True, beside=True) for step in beside]
        running.append(pool.submit(run, steps[-1]))
        for done in running:
            done.result()
        for step, done in zip(beside, others, strict=True):
            done.result()
            step.show()


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1, help="how many run side by side (default: %(default)s)")
    parser.add_argument("--beside", action="append", default=[], metavar="TARGET", help="run this beside the last one")
    parser.add_argument("targets", nargs="+", metavar="TARGET")
    options = parser.parse_args()
    steps = [Step(target) for target in options.targets]
    beside = [Step(target) for target in options.beside]
    # The terminal interrupts the targets too, which need time to clean up. Those that are left aren't begun.
    signal.signal(signal.SIGINT, lambda *_: _INTERRUPTED.set())
    _run(steps, beside, options.jobs)
    steps += beside
    report = "\n".join(map(str, steps))
    print(f"=== what ran, and for how long\n{report}", flush=True)
    if os.environ.get("STEPS_REPORT"):
        with open(os.environ["STEPS_REPORT"], "a") as file:
            print(report, file=file)
    return 130 if _INTERRUPTED.is_set() else int(any(step.outcome != "passed" for step in steps))


if __name__ == "__main__":
    sys.exit(main())
