# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs on objects of any kind."""
