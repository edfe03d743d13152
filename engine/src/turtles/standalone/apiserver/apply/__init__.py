# SPDX-License-Identifier: GPL-3.0-or-later
"""Who owns which field, and merging by it."""
