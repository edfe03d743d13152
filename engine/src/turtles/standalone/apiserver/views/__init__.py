# SPDX-License-Identifier: GPL-3.0-or-later
"""The forms in which objects and kinds are shown: lists, watches, discovery, OpenAPI."""
