# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of machines and how they are restored: the group snapshot.kubevirt.io.

Names, rules and messages are those of the KubeVirt API and of its user guide, "Snapshot Restore API".
"""

from turtles.api.kinds.snapshot.content import CONTENT
from turtles.api.kinds.snapshot.restore import RESTORE
from turtles.api.kinds.snapshot.snapshot import SNAPSHOT

__all__ = ("CONTENT", "KINDS", "RESTORE", "SNAPSHOT")

KINDS = (SNAPSHOT, CONTENT, RESTORE)
