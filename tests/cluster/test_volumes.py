# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What guests see of their volumes."""

from __future__ import annotations

from scenarios import shared, volumes

globals().update(shared(volumes))
