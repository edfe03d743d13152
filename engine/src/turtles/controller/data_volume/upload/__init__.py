# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploads: a claim that a client fills, and the Pod that takes what it sends."""
