# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs beside a guest in its Pod."""

from __future__ import annotations

from scenarios import shared, sidecars

globals().update(shared(sidecars))
