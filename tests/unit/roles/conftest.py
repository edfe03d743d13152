# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lets the tests import the programs that roles copy to machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

for role in ("engine", "engine_image", "guest_image"):
    sys.path.insert(0, str(Path(__file__).parents[3] / "roles" / role / "files"))


@pytest.fixture
def run_play(collections: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs a play on this machine, as root of nothing; what ansible-playbook printed."""

    def run(play: dict[str, Any], *options: str, failing: bool = False, path: str = "", **variables: Any) -> str:
        (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, **play}]))
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "play.yml", "-e", json.dumps(variables)]
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_NOCOLOR": "1"}
        environment["PATH"] = f"{path}:{environment['PATH']}"
        done = subprocess.run(
            [*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) == failing, done.stdout + done.stderr
        return done.stdout

    return run
