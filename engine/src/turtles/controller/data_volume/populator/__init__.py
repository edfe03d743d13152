# SPDX-License-Identifier: GPL-3.0-or-later
"""Claim with a dataSourceRef → DataVolume of PVC' → volume that is handed over."""
