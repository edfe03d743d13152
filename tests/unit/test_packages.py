# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian packages that tests of parts need before any role has installed them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_tests_of_the_launcher_have_what_launchers_have():
    launcher = yaml.safe_load((ROOT / "roles/launcher/defaults/main.yml").read_text())["launcher_packages"]
    tests = re.findall(r"^(\S+) \[test ", (ROOT / "bindep.txt").read_text(), re.MULTILINE)
    assert set(launcher) <= set(tests)
