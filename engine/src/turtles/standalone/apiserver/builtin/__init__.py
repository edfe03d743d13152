# SPDX-License-Identifier: GPL-3.0-or-later
"""Built-in kinds: a strategy each, and the registry of all kinds that are served."""
