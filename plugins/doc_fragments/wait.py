# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of waiting."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment."""

    DOCUMENTATION = r"""
options:
  wait:
    description: Whether the module waits until the state is reached. It watches rather than polls.
    type: bool
    default: true
  wait_timeout:
    description: Seconds after which waiting fails. The error says why.
    type: int
    default: 300
"""
