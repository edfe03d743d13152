# SPDX-License-Identifier: GPL-3.0-or-later
"""Custom resources: their strategy, conversion and scales."""
