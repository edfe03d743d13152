# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the time goes when a virtual machine starts: what all components logged about it, in one table or picture."""
