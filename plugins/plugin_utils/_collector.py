# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Python's collector of reference cycles, which is in the way where much data is made that has none."""

from __future__ import annotations

import contextlib
import gc


@contextlib.contextmanager
def paused():
    """Leave cycles alone meanwhile, in all threads.

    Reading JSON makes many objects and no cycles, but each few hundred of them have the collector look at them again,
    which takes two thirds of the time in a process with as many objects as Ansible's.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
