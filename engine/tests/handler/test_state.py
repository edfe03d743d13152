# SPDX-License-Identifier: GPL-3.0-or-later
from pathlib import Path

import pytest

from turtles.domain.network import PodInterface
from turtles.handler.state import State, Store

FULL = State(
    pod_uid="pod-1",
    pod_interface=PodInterface("eth0", "02:00:00:00:00:01", (("10.0.0.2", 24), ("fd00::2", 64)), "10.0.0.1", 1400),
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


def test_a_uid_is_never_a_path(tmp_path: Path) -> None:
    Store(tmp_path / "state").save("../../escaped", FULL)
    assert not (tmp_path / "escaped.json").exists()
