# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes over the wire: bodies, options, patches and errors, and requests to servers that this one asks."""
