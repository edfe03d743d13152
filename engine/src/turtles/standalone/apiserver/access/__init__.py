# SPDX-License-Identifier: GPL-3.0-or-later
"""Who sends a request, and what they may do."""
