# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The standalone API server, beside the recording of a real kube-apiserver or a running one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import corpus
from callback import callback
from play import Server
from recording import Recording
from servers import standalone
from stage import Stage


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The standalone server and the recording."""
    folder = tmp_path_factory.mktemp("parity")
    with standalone(folder) as ours, callback(folder) as hooks:
        yield Stage(ours, hooks, Recording.load())


@pytest.fixture(scope="session")
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The standalone server and a running kube-apiserver: $KUBECONFIG's, or that of the tests' own control plane."""
    own = "KUBECONFIG" not in os.environ
    kubeconfig = request.getfixturevalue("control_plane").kubeconfig if own else Path(os.environ["KUBECONFIG"])
    folder = tmp_path_factory.mktemp("parity-live")
    real = Server("real", kubeconfig)
    # Nobody but the tests' own cluster, or one on this machine, is given a way to call back.
    reachable = own or real.way_back.startswith("127.")
    with standalone(folder) as ours, callback(folder, real.way_back if reachable else "127.0.0.1") as hooks:
        yield Stage(ours, hooks, real, reachable)
    real.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the requests of the corpus that nobody compared for want of a recording."""
    missing = Recording.load().missing(corpus.load())
    if missing:
        terminalreporter.write_line(
            f"{len(missing)} requests have no recording; make test-parity-live compares them: "
            + ", ".join(one.id for one in missing)
        )
