# SPDX-License-Identifier: GPL-3.0-or-later
"""The VMI as a file in a folder of the Pod, where the Pod may do what it likes."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turtles.domain import paths
from turtles.handler import delivery

pytestmark = pytest.mark.root

POD = "pod-uid"
VMI: dict[str, Any] = {
    "metadata": {"namespace": "default", "name": "testvm", "uid": "uid-1", "annotations": {"note": "x" * 300_000}},
    "spec": {"domain": {}, "volumes": [{"name": "seed", "cloudInitNoCloud": {"userData": "y" * 1_400_000}}]},
}


@pytest.fixture
def private(tmp_path: Path) -> Path:
    folder = Path(paths.host_path(str(tmp_path), POD, paths.PRIVATE_DIR))
    folder.mkdir(parents=True)
    os.chown(folder, 107, 107)
    return folder


def content(private: Path) -> Any:
    return json.loads((private / "vmi.json").read_bytes())


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_only_the_pod_s_user_may_read_it(private: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        delivery.deliver(str(tmp_path), POD, VMI)
    finally:
        os.umask(before)
    status = (private / "vmi.json").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (107, 107, 0o400)
    assert content(private)["spec"] == VMI["spec"]
    assert names(private) == ["vmi.json"]


def test_once_more_for_an_agent_that_was_restarted(private: Path, tmp_path: Path) -> None:
    delivery.deliver(str(tmp_path), POD, VMI)
    delivery.deliver(str(tmp_path), POD, VMI)
    assert content(private)["spec"] == VMI["spec"]
    assert names(private) == ["vmi.json"]


def symbolic_link(place: Path, elsewhere: Path) -> None:
    place.symlink_to(elsewhere)


def hard_link(place: Path, elsewhere: Path) -> None:
    place.hardlink_to(elsewhere)


def pipe(place: Path, elsewhere: Path) -> None:
    os.mkfifo(place)


@pytest.mark.parametrize("obstacle", [symbolic_link, hard_link, pipe])
def test_what_the_pod_put_in_its_place_is_replaced(
    private: Path, tmp_path: Path, obstacle: Callable[[Path, Path], None]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("the node's")
    obstacle(private / "vmi.json", elsewhere)
    delivery.deliver(str(tmp_path), POD, VMI)
    assert elsewhere.read_text() == "the node's"
    assert elsewhere.stat().st_uid == 0
    assert stat.S_ISREG((private / "vmi.json").lstat().st_mode)
    assert content(private)["spec"] == VMI["spec"]


def test_a_folder_in_its_place_is_an_error_that_leaves_nothing(private: Path, tmp_path: Path) -> None:
    (private / "vmi.json").mkdir()
    with pytest.raises(IsADirectoryError):
        delivery.deliver(str(tmp_path), POD, VMI)
    assert names(private) == ["vmi.json"]


def test_a_link_in_place_of_the_folder_is_not_followed(private: Path, tmp_path: Path) -> None:
    private.rmdir()
    (tmp_path / "elsewhere").mkdir()
    private.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError):
        delivery.deliver(str(tmp_path), POD, VMI)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_pod_without_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        delivery.deliver(str(tmp_path), POD, VMI)


def test_nobody_reads_it_before_it_is_complete(private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    rename = os.rename

    def look(*args: Any, **options: Any) -> None:
        (draft,) = private.iterdir()
        status = draft.stat()
        seen.append((status.st_uid, stat.S_IMODE(status.st_mode), json.loads(draft.read_bytes())["spec"]))
        rename(*args, **options)

    monkeypatch.setattr(delivery.os, "rename", look)
    delivery.deliver(str(tmp_path), POD, VMI)
    assert seen == [(107, 0o400, VMI["spec"])]
