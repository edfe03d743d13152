# SPDX-License-Identifier: GPL-3.0-or-later
"""Health and figures of a component over HTTP."""

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from turtles.health import HealthServer


class Rig:
    def __init__(self) -> None:
        self.ready = False
        self.server = HealthServer("127.0.0.1", 0, lambda: self.ready, lambda: {"kubevirt_things_total": 3})

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def rig() -> Iterator[Rig]:
    found = Rig()
    yield found
    found.server.close()


def test_alive_before_it_is_ready(rig: Rig) -> None:
    assert rig.get("/livez") == (200, "ok")
    assert rig.get("/readyz")[0] == 503
    rig.ready = True
    assert rig.get("/readyz") == (200, "ok")
    assert rig.get("/other")[0] == 404


def test_figures_in_prometheus_text_format(rig: Rig) -> None:
    code, text = rig.get("/metrics")
    assert code == 200
    assert "# TYPE kubevirt_things_total counter\nkubevirt_things_total 3\n" in text
    resident = next(line for line in text.splitlines() if line.startswith("process_resident_memory_bytes "))
    assert float(resident.split()[1]) > 1e6
