# SPDX-License-Identifier: GPL-3.0-or-later
"""DataVolume → PersistentVolumeClaim → importer's Pod → a disk."""
