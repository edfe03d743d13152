# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What earlier runs of the benchmarks found: kept beside this file, one run a line, so that a regression shows."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HISTORY = Path(__file__).with_name("history.jsonl")
#: Runs of each benchmark that are kept.
KEPT = 10
#: By how much a figure may be worse than the last one before it is told.
TOLERANCE = 0.1


def record(
    benchmark: str,
    options: Mapping[str, Any],
    figures: Mapping[str, float],
    *,
    more_is_better: Collection[str] = (),
    path: Path = HISTORY,
) -> list[str]:
    """Keep a run, and print what got worse since the last one with the same options.

    :param figures: what doesn't depend on the machine: ratios to a peer of the same run, memory, requests. Less is
        better, unless named in *more_is_better*.
    :returns: the figures that got worse.
    """
    runs = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    own = [run for run in runs if run["benchmark"] == benchmark]
    like = [run for run in own if run["options"] == dict(options)]
    worse = []
    if like:
        last = like[-1]
        for name, value in figures.items():
            before = last["figures"].get(name)
            if not before or not value:
                continue
            change = before / value if name in more_is_better else value / before
            if change > 1 + TOLERANCE:
                print(f"worse than at {last['commit']} ({last['date']}): {name} {value:.2f}, was {before:.2f}")
                worse.append(name)
        if not worse:
            print(f"nothing got worse by more than {TOLERANCE:.0%} since {last['commit']} ({last['date']})")
    run = {
        "benchmark": benchmark,
        "commit": _commit(path.parent),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "options": dict(options),
        "figures": {name: round(value, 3) for name, value in figures.items()},
    }
    gone = own[: len(own) + 1 - KEPT] if len(own) >= KEPT else []
    lines = [json.dumps(each) for each in [*(each for each in runs if each not in gone), run]]
    path.write_text("".join(f"{line}\n" for line in lines))
    # Benchmarks run as root in somebody's checkout
    owner = path.parent.stat()
    os.chown(path, owner.st_uid, owner.st_gid)
    return worse


def _commit(folder: Path) -> str:
    # Root is allowed to look into the checkout of somebody else
    command = ["git", "-c", "safe.directory=*", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
