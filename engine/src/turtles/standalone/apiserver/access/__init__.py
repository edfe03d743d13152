# SPDX-License-Identifier: GPL-3.0-or-later
"""Who sends a request, what they want, and whether they may."""
