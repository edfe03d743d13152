# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The life of a virtual machine, seen from the API and from inside the guest."""

from scenarios import lifecycle, shared

globals().update(shared(lifecycle))
