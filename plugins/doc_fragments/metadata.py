# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options that describe the declared object itself."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment."""

    DOCUMENTATION = r"""
options:
  labels:
    description:
      - Labels of the object itself, for selecting it. Others that it has are kept; one with the value V(null) is
        removed.
    type: dict
  annotations:
    description: Annotations of the object itself. Others that it has are kept; one with the value V(null) is removed.
    type: dict
"""
