# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a user gets wrong is said clearly, at once where it can be, and leaves nothing half made."""

from scenarios import bad_input, shared

globals().update(shared(bad_input))
