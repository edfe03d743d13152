# SPDX-License-Identifier: GPL-3.0-or-later
"""Running machines get the launcher of a new version, or a larger Pod."""
