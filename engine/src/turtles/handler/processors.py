# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's processors, and the NUMA nodes they belong to."""

from pathlib import Path

_NODES = Path("/sys/devices/system/node")


def parse_list(text: str) -> tuple[int, ...]:
    """Return the numbers in a list of the kernel's, such as 0-3,8."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(numbers)


def numa_nodes(nodes: Path = _NODES) -> dict[int, int]:
    """Return the NUMA node of each processor; all are of one where the kernel knows none."""
    return {
        processor: int(folder.name.removeprefix("node"))
        for folder in sorted(nodes.glob("node[0-9]*"))
        for processor in parse_list((folder / "cpulist").read_text())
    }
