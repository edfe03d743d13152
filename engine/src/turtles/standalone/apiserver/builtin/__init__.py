# SPDX-License-Identifier: GPL-3.0-or-later
"""Built-in kinds: their defaults, rules and columns."""
