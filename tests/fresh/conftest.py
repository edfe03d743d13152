# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fresh machines, one per test; $DEBIAN chooses the release (bookworm or trixie), both by default."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from fresh_machine import Machine

RELEASES = ("bookworm", "trixie")
NETWORK = int(os.environ.get("TURTLES_FRESH_NETWORK", "77"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "release" in metafunc.fixturenames:
        chosen = os.environ.get("DEBIAN") or ",".join(RELEASES)
        metafunc.parametrize("release", chosen.split(","))


@pytest.fixture
def machine(release: str) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("a machine in namespaces needs root")
    if not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap is not installed")
    with Machine(release, NETWORK) as machine:
        yield machine
