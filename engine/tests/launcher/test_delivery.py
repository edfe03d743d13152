# SPDX-License-Identifier: GPL-3.0-or-later
"""What the launcher takes for its VMI. (How it waits for it is in test_pod.)"""

import select
from pathlib import Path

import pytest

from turtles.domain import handover
from turtles.launcher import inotify
from turtles.launcher.delivery import Delivery
from turtles.launcher.errors import LaunchError

from .conftest import VMI_UID, make_vmi


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vmi.json"


def expect(path: Path) -> Delivery:
    return Delivery("default", "testvm", VMI_UID, path)


def put(path: Path, data: bytes) -> None:
    draft = path.with_name("draft")
    draft.write_bytes(data)
    draft.rename(path)


def test_it_tells_when_there_is_something_and_takes_it_away(path):
    expected = expect(path)
    assert expected.take() is None
    path.with_name("other").touch()
    assert not select.select([expected.fileno()], [], [], 0)[0]
    put(path, handover.launcher_view(make_vmi()))
    assert select.select([expected.fileno()], [], [], 10)[0]
    assert expected.take() == make_vmi()
    assert not path.exists()
    assert not select.select([expected.fileno()], [], [], 0)[0]
    expected.close()
    expected.close()


def test_what_came_before_anybody_waited(path):
    put(path, handover.launcher_view(make_vmi()))
    expected = expect(path)
    assert expected.take() == make_vmi()
    expected.close()


def test_something_else(path):
    expected = expect(path)
    put(path, b"{}")
    with pytest.raises(LaunchError, match="the node agent delivered no VirtualMachineInstance"):
        expected.take()
    vmi = make_vmi()
    vmi["metadata"]["uid"] = "another"
    put(path, handover.launcher_view(vmi))
    with pytest.raises(LaunchError, match=r"the node agent delivered default/testvm \(another\) instead of default/"):
        expected.take()
    expected.close()


def test_what_cannot_be_read(path):
    path.mkdir()
    expected = expect(path)
    with pytest.raises(LaunchError, match=r"can't be read: .*Is a directory"):
        expected.take()
    expected.close()


def test_without_inotify(path, monkeypatch):
    """A user may have 128 instances; a node may have more launchers that wait."""

    class Refusing:
        def inotify_init1(self, flags: int) -> int:
            return -1

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(inotify, "_LIBC", Refusing())
    expected = expect(path)
    assert expected.fileno() is None
    assert expected.take() is None
    put(path, handover.launcher_view(make_vmi()))
    assert expected.take() == make_vmi()
    expected.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
