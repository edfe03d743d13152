# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes of controllers, which their caches show at once."""

from collections.abc import Sequence

from turtles.api.changes import json_diff, merge_diff
from turtles.api.objects import Object
from turtles.kube.client import JSON, AlreadyExists, Client, NotFound
from turtles.kube.informer import Informer


class Writer:
    """Creates, changes and deletes objects, and has the cache of their resource show what was stored.

    Whatever is written to or deleted is the very object that was seen: another one that has its name by now stays as
    it is. All methods raise :class:`turtles.kube.client.ApiError` if the server refuses.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, cache: Informer, obj: Object) -> Object:
        """Create an object, and return it as it was stored."""
        stored = self._client.create(cache.resource, obj)
        cache.observe(stored)
        return stored

    def create_or_get(self, cache: Informer, obj: Object) -> Object:
        """Create an object, or return the one that has its name."""
        try:
            return self.create(cache, obj)
        except AlreadyExists:
            metadata = obj["metadata"]
            stored = self._client.get(cache.resource, metadata.get("namespace"), metadata["name"])
            cache.observe(stored)
            return stored

    def replace(self, cache: Informer, obj: Object) -> Object:
        """Replace the object of a name, and return it as it was stored.

        :raises Conflict: it isn't the one, or isn't in the version, that is written.
        """
        stored = self._client.replace(cache.resource, obj)
        cache.observe(stored)
        return stored

    def patch(
        self, cache: Informer, seen: Object, patch: Object, *, subresource: str | None = None, unchanged: bool = True
    ) -> Object:
        """Merge a patch (RFC 7386) into an object, and return it as it is then.

        :param unchanged: fail with Conflict if anybody has changed the object since.
        :raises NotFound: it is gone.
        """
        metadata = seen["metadata"]
        guard = {key: metadata[key] for key in (("uid", "resourceVersion") if unchanged else ("uid",))}
        body = {**patch, "metadata": {**patch.get("metadata", {}), **guard}}
        stored = self._client.patch(
            cache.resource, metadata.get("namespace"), metadata["name"], body, subresource=subresource
        )
        cache.observe(stored)
        return stored

    def store_status(self, cache: Informer, seen: Object, status: Object) -> Object:
        """Bring an unchanged object's status up to date, and return the object; the same one if there is no difference.

        :raises NotFound: it is gone.
        """
        patch = merge_diff(seen.get("status") or {}, status)
        return self.patch(cache, seen, {"status": patch}, subresource="status") if patch else seen

    def apply(
        self, cache: Informer, seen: Object, operations: Sequence[Object], *, subresource: str | None = None
    ) -> Object:
        """Apply a JSON patch (RFC 6902) to an object, and return it as it is then.

        :raises Invalid: a test failed.
        :raises NotFound: it is gone.
        """
        metadata = seen["metadata"]
        test = {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]}
        stored = self._client.patch(
            cache.resource,
            metadata.get("namespace"),
            metadata["name"],
            [test, *operations],
            kind=JSON,
            subresource=subresource,
        )
        cache.observe(stored)
        return stored

    def store_members(self, cache: Informer, seen: Object, wanted: Object, paths: Sequence[Sequence[str]]) -> Object:
        """Bring some members of an object up to date, and return the object; others may have changed since.

        :param paths: as for :func:`turtles.api.changes.json_diff`.
        :raises Invalid: somebody has changed the same members.
        :raises NotFound: it is gone.
        """
        operations = json_diff(seen, wanted, paths)
        return self.apply(cache, seen, operations) if operations else seen

    def add(self, cache: Informer, wanted: Object) -> Object | None:
        """Create an object; None if its name is taken, by what the cache doesn't have yet or by somebody else's."""
        try:
            return self.create(cache, wanted)
        except AlreadyExists:
            return None

    def delete(
        self,
        cache: Informer,
        seen: Object,
        *,
        unchanged: bool = False,
        grace_period: int | None = None,
        propagation: str | None = None,
    ) -> bool:
        """Delete an object; return False if it is gone already.

        :param unchanged: fail with Conflict if anybody has changed the object since.
        :param grace_period: and :param propagation: as for :meth:`turtles.kube.client.Client.delete`.
        """
        metadata = seen["metadata"]
        try:
            answer = self._client.delete(
                cache.resource,
                metadata.get("namespace"),
                metadata["name"],
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"] if unchanged else None,
                grace_period=grace_period,
                propagation=propagation,
            )
        except NotFound:
            return False
        if answer.get("kind") == cache.resource.kind:
            cache.observe(answer)
        return True
