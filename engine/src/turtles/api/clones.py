# SPDX-License-Identifier: GPL-3.0-or-later
"""Clones of machines: phases, filters, names. All are KubeVirt's (KubeVirt API, group clone.kubevirt.io)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

GROUP = "clone.kubevirt.io"

#: Group and kind of what can be cloned; a copy is always a machine.
VM = ("kubevirt.io", "VirtualMachine")
SNAPSHOT = ("snapshot.kubevirt.io", "VirtualMachineSnapshot")

#: ``status.phase``.
SNAPSHOT_IN_PROGRESS, RESTORE_IN_PROGRESS = "SnapshotInProgress", "RestoreInProgress"
SUCCEEDED, FAILED = "Succeeded", "Failed"


def kept(values: Mapping[str, str], filters: Iterable[str]) -> dict[str, str]:
    """Return the labels or annotations that filters let through: all without filters.

    One that excludes a key counts more than one that includes it. Where all of them exclude, the rest is included.
    """
    excluding = [text[1:] for text in filters if text.startswith("!")]
    including = [text for text in filters if not text.startswith("!")] or ["*"]
    return {
        key: value
        for key, value in values.items()
        if any(_matches(key, text) for text in including) and not any(_matches(key, text) for text in excluding)
    }


def _matches(key: str, text: str) -> bool:
    return key.startswith(text[:-1]) if text.endswith("*") else key == text
