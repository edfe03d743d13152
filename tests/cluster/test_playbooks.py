# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Users' playbooks, which are the same everywhere."""

from scenarios import playbooks, shared

globals().update(shared(playbooks))
