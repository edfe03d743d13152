# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks for tests that make bridges on the machine: several runs of the tests side by side don't meet."""

import os

#: Each kind of test that has bridges; tests of several kinds run in one process.
KINDS = ("handler", "podrunner", "streams", "policy")


def subnet(kind: str) -> str:
    """Return a network of this process's own; 100.64.0.0/10 (RFC 6598) is in nobody's defaults."""
    number = os.getpid() % 4096 * 4 + KINDS.index(kind)
    return f"100.{64 + number // 256}.{number % 256}.0/24"
