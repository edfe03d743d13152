# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Instance types and preferences, with real guests."""

from scenarios import shared, sizes

globals().update(shared(sizes))
