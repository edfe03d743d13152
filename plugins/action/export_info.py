# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin of the module export_info."""

from __future__ import annotations

from ..plugin_utils._in_process import InProcessAction as ActionModule

__all__ = ["ActionModule"]
