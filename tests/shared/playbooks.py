# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Running the collection as its users do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path


def playbook(name: str, *arguments: str, folder: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a playbook with this Python's ansible-core in a folder; its output is shown where it fails."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), name, *arguments],
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert not check or done.returncode == 0, f"{name} failed:\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return done


def recap(output: str, host: str = "localhost") -> dict[str, int]:
    """The counts of the play's recap for a host."""
    line = re.search(rf"^{re.escape(host)}\s+:(.*)$", output, re.MULTILINE)
    assert line, output
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line[1])}
