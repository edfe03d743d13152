# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""kubectl's streams with a virtual machine's Pod."""

from scenarios import shared, streams

globals().update(shared(streams))
