# SPDX-License-Identifier: GPL-3.0-or-later
"""What tells a process from a later one with its number."""

from pathlib import Path

from turtles.clock import boot_id


def process_start(pid: int) -> str | None:
    """Return what tells this process from a later one with the same id: boot id and start time; None if it ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot_id()}/{fields[19]}"
