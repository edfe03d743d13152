# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The option that leaves fields out of results."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment."""

    DOCUMENTATION = r"""
options:
  hidden_fields:
    description:
      - Fields that are left out of the returned objects and of the diff, as names joined by dots. Names that contain
        dots, and numbers of list entries, are in brackets, as in V(metadata.annotations[example.com/note]).
      - An empty list shows everything.
    type: list
    elements: str
    default: ['metadata.annotations[kubemacpool.io/transaction-timestamp]', metadata.managedFields]
"""
