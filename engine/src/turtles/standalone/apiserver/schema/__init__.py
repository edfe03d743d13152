# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kind is, and what its objects may hold."""
