# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Both API servers, side by side: kube-apiserver (or $KUBECONFIG's) and the standalone one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from callback import callback
from play import Server
from servers import standalone
from stage import Stage

pytest.register_assert_rewrite("compare", "stage")


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The two servers, and what they answered so far."""
    own = "KUBECONFIG" not in os.environ
    kubeconfig = request.getfixturevalue("control_plane").kubeconfig if own else Path(os.environ["KUBECONFIG"])
    folder = tmp_path_factory.mktemp("parity")
    real = Server("real", kubeconfig)
    # Nobody but the tests' own cluster, or one on this machine, is given a way to call back.
    reachable = own or real.way_back.startswith("127.")
    with standalone(folder) as ours, callback(folder, real.way_back if reachable else "127.0.0.1") as hooks:
        yield Stage(real, ours, hooks, reachable)
    real.close()
