# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The same virtual machine through kubectl, the modules and the inventory."""

from scenarios import shared, users_tools

globals().update(shared(users_tools))
