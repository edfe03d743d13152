# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The integration targets that need no guest, as ansible-test runs them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cluster import Cluster

SCRIPT = Path(__file__).parents[2] / "scripts/integration.sh"


def test_quick_targets(cluster: Cluster):
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "TURTLES_TEST_IMAGE": cluster.image}
    done = subprocess.run([SCRIPT, "kubevirt/quick/"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
