# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What users do with guests that run, on a cluster."""

from scenarios import guests, shared

globals().update(shared(guests))
