# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers of the server itself."""
