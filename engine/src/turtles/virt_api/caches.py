# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects that admission looks at while it sets defaults in others, such as presets, kept by watches."""

from __future__ import annotations

from collections.abc import Sequence

from turtles.api.kinds import read_by_others
from turtles.api.objects import Object
from turtles.kube.client import Client
from turtles.kube.informer import Informer
from turtles.kube.kubevirt import RESOURCES
from turtles.virt_api.status import Failure


class Caches:
    """A copy of all objects of the kinds that `Kind.reads` names anywhere. The informers have to be started."""

    def __init__(self, client: Client) -> None:
        self._caches = {kind.kind: Informer(client, RESOURCES[kind.kind]) for kind in read_by_others()}

    @property
    def informers(self) -> Sequence[Informer]:
        """The informers that keep the copies."""
        return list(self._caches.values())

    def objects(self, kind: str, namespace: str) -> Sequence[Object]:
        """Return the objects of a kind in a namespace.

        :raises Failure: 503 while they haven't been read: what they ask for mustn't be passed over.
        """
        cache = self._caches[kind]
        if not cache.synced:
            raise Failure(503, f"virt-api has not loaded the {kind}s yet; try again")
        return cache.list(namespace)
