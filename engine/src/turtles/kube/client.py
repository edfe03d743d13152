# SPDX-License-Identifier: GPL-3.0-or-later
"""A small, thread-safe client of the Kubernetes API: plain dicts in, plain dicts out.

The official client's generated methods are not used: they turn every answer into model objects, where controllers want
the JSON as it is, and know no custom resources.
"""

import os
from typing import Any

from turtles.api.objects import Object
from turtles.kube import kubeconfig
from turtles.kube.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Unauthorized,
    Unavailable,
)
from turtles.kube.resources import Resource
from turtles.kube.transport import Transport
from turtles.kube.watch import WatchStream

__all__ = [
    "JSON",
    "MERGE",
    "AlreadyExists",
    "ApiError",
    "BadRequest",
    "Client",
    "Conflict",
    "Forbidden",
    "Gone",
    "Invalid",
    "NotFound",
    "Unauthorized",
    "Unavailable",
]

#: Patch kinds: JSON merge patch (RFC 7386), a dict; JSON patch (RFC 6902), a list of operations.
MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"


class Client(Transport):
    """The API server as seen by one component; any number of threads may share it.

    Methods take the object's namespace before its name (None for cluster-scoped kinds) and raise
    :class:`ApiError` subclasses.
    """

    @classmethod
    def from_kubeconfig(cls, path: str | os.PathLike[str] | None = None, **options: Any) -> "Client":
        """Create a client from a kubeconfig file; None takes the Pod's service account, or the default kubeconfig.

        :param options: passed to the constructor.
        :raises turtles.kube.kubeconfig.ConfigError: the configuration cannot be used.
        """
        return cls(kubeconfig.load(path), **options)

    # Objects

    def get(self, resource: Resource, namespace: str | None, name: str, *, subresource: str | None = None) -> Object:
        """Return an object.

        :raises NotFound: there is none of that name.
        """
        return self.object("GET", resource.path(namespace, name, subresource))

    def find(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """Return an object; None if there is none of that name."""
        try:
            return self.get(resource, namespace, name)
        except NotFound:
            return None

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
    ) -> Object:
        """Return the List object of a namespace (None: of all), with all its pages joined.

        :param limit: objects per page; None asks for one page.
        """
        query: dict[str, str] = {}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        if limit:
            query["limit"] = str(limit)
        path = resource.path(namespace)
        result = self.object("GET", path, query=query)
        items = result.get("items")
        result["items"] = items = items if items is not None else []
        while token := (result.get("metadata") or {}).get("continue"):
            page = self.object("GET", path, query={**query, "continue": token})
            items.extend(page.get("items") or ())
            result["metadata"] = page.get("metadata") or {}
        for item in items:
            # Built-in kinds leave these out in lists; consumers should not have to care where an object came from.
            item.setdefault("kind", resource.kind)
            item.setdefault("apiVersion", resource.api_version)
        return result

    def create(
        self,
        resource: Resource,
        obj: Object,
        *,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
    ) -> Object:
        """Create an object (or POST to a subresource such as ``binding``, with ``name``) and return what was stored.

        :param namespace: defaults to the object's own.
        """
        namespace = namespace or (obj.get("metadata") or {}).get("namespace")
        return self.object("POST", resource.path(namespace, name, subresource), body=obj)

    def replace(self, resource: Resource, obj: Object, *, subresource: str | None = None) -> Object:
        """Replace an object by one of the same name; its resourceVersion, if any, is the precondition."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        return self.object("PUT", path, body=obj)

    def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        kind: str = MERGE,
        subresource: str | None = None,
    ) -> Object:
        """Patch an object and return what was stored.

        :param body: a dict for MERGE, a list of operations for JSON. A ``metadata.resourceVersion`` (MERGE) or a
            ``test`` operation (JSON) is the precondition: Conflict or Invalid when it fails.
        """
        return self.object("PATCH", resource.path(namespace, name, subresource), body=body, content_type=kind)

    def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period: int | None = None,
        propagation: str | None = None,
    ) -> Object:
        """Ask for an object's deletion; returns the object on its way out, or a Status.

        :param uid: precondition; Conflict if the name belongs to another object by now.
        :param grace_period: seconds; None leaves it to the object.
        :param propagation: Background, Foreground or Orphan.
        """
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if any(preconditions.values()):
            options["preconditions"] = {key: value for key, value in preconditions.items() if value}
        if grace_period is not None:
            options["gracePeriodSeconds"] = grace_period
        if propagation:
            options["propagationPolicy"] = propagation
        return self.object("DELETE", resource.path(namespace, name), body=options)

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        seconds: int = 300,
    ) -> WatchStream:
        """Open a watch on a connection of its own. Not retried: the caller knows whether to list again.

        :param resource_version: events after this one.
        :param seconds: the server is asked to end the watch after this time.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
        }
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        path = resource.path(namespace)
        # The server ends the watch itself; one that stays silent beyond that is gone.
        return WatchStream(self.stream(path, query, silence=seconds + 15))

    # Anything else the server serves

    def put_raw(self, path: str, body: Any = None) -> Any:
        """PUT a JSON body (or nothing) to a path, as the subresources of KubeVirt want it; returns decoded JSON."""
        return self.request("PUT", path, body=body)
