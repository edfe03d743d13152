# SPDX-License-Identifier: GPL-3.0-or-later
"""Places for work that takes long, of which nobody can take all."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Hashable


class Places:
    """Has everybody wait who has as many places as one may have. Everything happens on one event loop.

    :param most: places that one may have.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._places: dict[Hashable, asyncio.Semaphore] = {}
        self._wanted = Counter[Hashable]()

    @contextlib.asynccontextmanager
    async def take(self, whose: Hashable) -> AsyncIterator[None]:
        """Have a place for a while, as soon as there is one for this one."""
        places = self._places.setdefault(whose, asyncio.Semaphore(self._most))
        self._wanted[whose] += 1
        try:
            async with places:
                yield
        finally:
            self._wanted[whose] -= 1
            if not self._wanted[whose]:
                del self._wanted[whose], self._places[whose]
