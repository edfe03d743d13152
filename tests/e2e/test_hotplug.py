# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Volumes that come to a running guest and leave it."""

from __future__ import annotations

from scenarios import hotplug, shared

globals().update(shared(hotplug))
