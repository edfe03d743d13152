# SPDX-License-Identifier: GPL-3.0-or-later
"""The process of a Pod that serves the content of claims to those who have a token."""
