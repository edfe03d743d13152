# SPDX-License-Identifier: GPL-3.0-or-later
import json
import time
from pathlib import Path

import pytest

from turtles import clock
from turtles.domain.network import PodInterface
from turtles.handler.state import State, Store

FULL = State(
    pod_uid="pod-1",
    pod_interfaces={
        "eth0": PodInterface("eth0", "02:00:00:00:00:01", (("10.0.0.2", 24), ("fd00::2", 64)), "10.0.0.1", 1400),
        "pod1": PodInterface("pod1", "02:00:00:00:00:02", (), None, 1500, (("192.0.2.0/24", "10.0.0.9"),)),
    },
    started=True,
    shutdown_at=12.5,
    stopped=1,
)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    Store(tmp_path).save("uid-1", FULL)
    store = Store(tmp_path)
    assert store.load("uid-1") == FULL
    assert store.uids() == ["uid-1"]
    store.drop("uid-1")
    store.drop("uid-1")
    assert store.load("uid-1") == State()
    assert store.uids() == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"unknown": 1}', '{"pod_interface": {"name": "eth0"}}'])
def test_garbage_counts_as_absent(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    store.save("uid-1", FULL)
    (tmp_path / "vmis/uid-1.json").write_text(text)
    assert store.load("uid-1") == State()


def test_a_shutdown_is_dated_by_the_clock_that_nobody_sets(tmp_path: Path) -> None:
    """A guest's grace period runs on where another agent takes over, whatever the time of day is by then."""
    store = Store(tmp_path)
    moment = time.monotonic() - 5
    store.save("uid-1", State(shutdown_at=moment))
    kept = json.loads((tmp_path / "vmis/uid-1.json").read_text())
    assert kept["shutdown"] == {"monotonic": moment, "boot_id": clock.boot_id()}
    assert Store(tmp_path).load("uid-1").shutdown_at == moment


def test_after_a_boot_nobody_has_been_asked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save("uid-1", FULL)
    path = tmp_path / "vmis/uid-1.json"
    path.write_text(path.read_text().replace(clock.boot_id(), "0c5a6ad1-0000-4000-8000-000000000000"))
    loaded = store.load("uid-1")
    assert (loaded.shutdown_at, loaded.started) == (None, True)


@pytest.mark.parametrize(("ago", "elapsed"), [(20, 20), (-7200, 0)])
def test_a_file_of_an_earlier_version_has_unix_time(tmp_path: Path, ago: float, elapsed: float) -> None:
    """One that is in the future, since the clock was set back, doesn't make a guest wait until then."""
    store = Store(tmp_path)
    old = {"pod_uid": "p", "pod_interface": None, "started": True, "shutdown_at": time.time() - ago, "stopped": None}
    (tmp_path / "vmis/uid-1.json").write_text(json.dumps(old))
    state = store.load("uid-1")
    assert state.started
    assert state.shutdown_at is not None
    assert time.monotonic() - state.shutdown_at == pytest.approx(elapsed, abs=1)


def test_a_uid_is_never_a_path(tmp_path: Path) -> None:
    Store(tmp_path / "state").save("../../escaped", FULL)
    assert not (tmp_path / "escaped.json").exists()
