# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tests that every engine must pass, wherever it is installed.

A suite takes in a module of them with ``globals().update(shared(lifecycle))``, brings the fixture `cluster` (an
:class:`engine.Engine`), and has tests of its own for what is special where it runs.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any


def shared(scenarios: ModuleType) -> dict[str, Any]:
    """A module's tests and fixtures by name, for pytest to find in the module that takes them in."""
    return {name: value for name, value in vars(scenarios).items() if not name.startswith("_")}
