# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the content of a DataVolume onto its claim, in a Pod of its own: unprivileged, without access to the API."""
