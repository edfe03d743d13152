# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that are read by name, as they are stored now."""

from __future__ import annotations

from turtles.api.kind import Missing
from turtles.api.objects import Object
from turtles.kube.client import Client, NotFound
from turtles.kube.kubevirt import RESOURCES
from turtles.kube.resources import CONTROLLERREVISION, PVC, VOLUMESNAPSHOT

_RESOURCES = {**RESOURCES, **{each.kind: each for each in (CONTROLLERREVISION, PVC, VOLUMESNAPSHOT)}}


class Lookup:
    """Reads objects from the API server: a copy kept by a watch may not have what was created a moment ago."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, kind: str, namespace: str, name: str) -> Object:
        """Return an object.

        :param namespace: empty for kinds without.
        :raises Missing: there is none of that name.
        :raises ApiError: the API server doesn't answer.
        """
        try:
            return self._client.get(_RESOURCES[kind], namespace or None, name)
        except NotFound as error:
            raise Missing(error.message) from error
