# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects, their history, and the files that hold them."""
