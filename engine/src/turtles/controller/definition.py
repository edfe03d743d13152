# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose definition of DataVolumes is in force: this engine's, or upstream's, which then does all of the work."""

from __future__ import annotations

from collections.abc import Callable

from turtles.api import cdi
from turtles.api.kinds.data_volume import DATA_VOLUME
from turtles.kube.client import Client, NotFound
from turtles.kube.resources import CRD

#: Seconds for which it counts who owns the definition.
_SECONDS = 60.0


class Definition:
    """The CustomResourceDefinition of DataVolumes, which stands for all kinds of its group."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self._client, self._clock = client, clock
        self._known: tuple[float, bool] | None = None

    def is_ours(self) -> bool:
        """Say whether it is this engine's.

        :raises ApiError: the API server doesn't answer.
        """
        if self._known is None or self._clock() - self._known[0] > _SECONDS:
            try:
                found = self._client.get(CRD, None, DATA_VOLUME.crd_name)
            except NotFound:
                found = {"metadata": {}}
            ours = (found["metadata"].get("labels") or {}).get(cdi.MANAGED_BY) == cdi.ENGINE
            self._known = self._clock(), ours
        return self._known[1]
