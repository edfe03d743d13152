# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path
from typing import Any

from turtles.handler.errors import LauncherBusy, LibvirtError
from turtles.handler.guest import Guests
from turtles.handler.metrics import of_guests, version
from turtles.handler.state import Store


class Launcher:
    """Plays a launcher: gives statistics, or raises."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def statistics(self, name: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"cpu.time": self.answer * 10**9} if self.answer else None


def test_what_cant_be_asked_is_left_out(tmp_path: Path) -> None:
    guests = Guests(Store(tmp_path))
    source = of_guests(guests, "n", lambda key: {"metadata": {"namespace": key[0], "name": key[1]}, "spec": {}})
    assert list(source.samples()) == []
    for number, answer in enumerate((3, LauncherBusy("busy"), LibvirtError("refused"), OSError("gone"), None, 5)):
        guests.track(("ns", f"web{number}"), f"uid{number}").launcher = Launcher(answer)  # type: ignore[assignment]
    guests.track(("ns", "starting"), "uid")
    assert {sample.labels["name"]: sample.value for sample in source.samples()} == {"web0": 3.0, "web5": 5.0}


def test_instances_that_are_gone_are_left_out(tmp_path: Path) -> None:
    guests = Guests(Store(tmp_path))
    guests.track(("ns", "web"), "uid").launcher = Launcher(1)  # type: ignore[assignment]
    assert list(of_guests(guests, "n", lambda key: None).samples()) == []


def test_version() -> None:
    ((name, labels, value),) = version().samples()
    assert (name, value) == ("kubevirt_info", 1.0)
    assert labels["kubeversion"].startswith("v")
