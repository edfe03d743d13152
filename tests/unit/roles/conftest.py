# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lets the tests import the programs that roles copy to machines."""

from __future__ import annotations

import sys
from pathlib import Path

for role in ("engine", "engine_image", "guest_image"):
    sys.path.insert(0, str(Path(__file__).parents[3] / "roles" / role / "files"))
