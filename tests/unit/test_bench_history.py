# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What benchmarks say of earlier runs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench/history.py"


@pytest.fixture
def record(tmp_path):
    spec = importlib.util.spec_from_file_location("history", BENCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path / "history.jsonl"

    def record(benchmark="vm", options=None, more_is_better=(), **figures):
        return module.record(benchmark, options or {"many": 12}, figures, more_is_better=more_is_better, path=path)

    record.path = path
    return record


def test_what_got_worse_is_told(record, capsys):
    assert record(start=1.5, memory=10, rate=100) == []
    assert capsys.readouterr().out == ""
    assert record(start=1.6, memory=12, rate=80, more_is_better=["rate"]) == ["memory", "rate"]
    out = capsys.readouterr().out
    assert "memory 12.00, was 10.00" in out
    assert "rate 80.00, was 100.00" in out
    assert "start" not in out
    # The last run counts, better ones are never told
    assert record(start=1.2, memory=12.5, rate=200, more_is_better=["rate"]) == []
    assert "nothing got worse by more than 10%" in capsys.readouterr().out


def test_only_the_like_is_compared(record):
    record(start=1)
    assert record(start=2, options={"many": 20}) == []
    assert record("api", start=3) == []
    assert record(start=2) == ["start"]


def test_the_last_runs_are_kept(record):
    record("api", start=1)
    for number in range(15):
        record(start=number + 1)
    kept = [json.loads(line) for line in record.path.read_text().splitlines()]
    assert [run["figures"]["start"] for run in kept if run["benchmark"] == "vm"] == list(range(6, 16))
    assert [run["benchmark"] for run in kept].count("api") == 1
    assert set(kept[-1]) == {"benchmark", "commit", "date", "options", "figures"}
