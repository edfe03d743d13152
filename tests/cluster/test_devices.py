# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Devices of a virtual machine, as the guest sees them."""

from scenarios import devices, shared

globals().update(shared(devices))
