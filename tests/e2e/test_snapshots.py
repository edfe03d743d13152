# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Snapshots of machines, and what becomes of those that are restored."""

from __future__ import annotations

from scenarios import shared, snapshots

globals().update(shared(snapshots))
