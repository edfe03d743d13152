# SPDX-License-Identifier: GPL-3.0-or-later
"""DataSources: what they lead to, and whether it can be copied."""
