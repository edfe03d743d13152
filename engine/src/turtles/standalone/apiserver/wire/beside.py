# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that takes long, done beside the event loop: reading and writing YAML, above all.

The interpreter runs one thread at a time, but changes between them every few milliseconds; so other clients wait for
no more than that. There is one thread for each kind of work: more would only take turns.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

#: From how many bytes on YAML is read and written beside the loop.
LONG = 16 * 1024

_READING = ThreadPoolExecutor(1, thread_name_prefix="yaml-reader")
_WRITING = ThreadPoolExecutor(1, thread_name_prefix="yaml-writer")


async def read(function: Callable[[], T]) -> T:
    """Return what a function returns that reads something long."""
    return await asyncio.get_running_loop().run_in_executor(_READING, function)


async def write(function: Callable[[], T]) -> T:
    """Return what a function returns that writes something long."""
    return await asyncio.get_running_loop().run_in_executor(_WRITING, function)
