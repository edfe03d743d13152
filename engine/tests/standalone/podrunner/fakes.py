# SPDX-License-Identifier: GPL-3.0-or-later
"""An API server in a dict, for the parts that only need get, patch, create and delete."""

import copy
import threading
import uuid

from turtles.kube.client import AlreadyExists, Client, Conflict, NotFound
from turtles.kube.informer import Informer


def merge(target, patch):
    """Apply a merge patch (RFC 7386)."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)


class FakeClient:
    """Stores objects by (plural, namespace, name) and tells informers of changes."""

    url = "fake"
    #: What a Pod's deletion is stamped with.
    deleted_at = "2999-01-01T00:00:00Z"
    #: Kinds whose objects stay until their finalizers are gone; others don't wait for them.
    finalized = ()

    def __init__(self):
        self.objects = {}
        self.version = 0
        self.lock = threading.RLock()
        self.informers = []
        self.patches = []
        self.bindings = []

    def informer(self, resource):
        """Return an Informer that sees this server's changes at once."""
        informer = Informer(self, resource)
        informer.start = lambda: None
        informer._synced.set()
        self.informers.append(informer)
        return informer

    def add(self, resource, obj):
        """Create an object as a user would."""
        return self.create(resource, obj)

    def get(self, resource, namespace, name, subresource=None):
        with self.lock:
            try:
                return copy.deepcopy(self.objects[resource.plural, namespace or "", name])
            except KeyError:
                raise NotFound(404, "NotFound", f"{resource.plural} {name!r} not found") from None

    find = Client.find

    def create(self, resource, obj, *, namespace=None, name=None, subresource=None):
        with self.lock:
            if subresource == "binding":
                self.bindings.append((namespace, name, obj["target"]["name"]))
                pod = self.get(resource, namespace, name)
                pod["spec"]["nodeName"] = obj["target"]["name"]
                return self._store(resource, pod)
            obj = copy.deepcopy(obj)
            metadata = obj["metadata"]
            if (resource.plural, metadata.get("namespace") or "", metadata["name"]) in self.objects:
                raise AlreadyExists(409, "AlreadyExists", "exists")
            metadata.setdefault("uid", str(uuid.uuid4()))
            obj.setdefault("kind", resource.kind)
            obj.setdefault("apiVersion", resource.api_version)
            return self._store(resource, obj)

    def patch(self, resource, namespace, name, body, *, kind=None, subresource=None):
        with self.lock:
            obj = self.get(resource, namespace, name)
            wanted = (body.get("metadata") or {}).get("resourceVersion")
            if wanted not in (None, obj["metadata"]["resourceVersion"]):
                raise Conflict(409, "Conflict", "changed")
            self.patches.append((resource.plural, name, body))
            merge(obj, body)
            return self._store(resource, obj)

    def delete(self, resource, namespace, name, *, uid=None, grace_period=None, **_):
        with self.lock:
            obj = self.get(resource, namespace, name)
            if grace_period != 0 and resource.plural == "pods":
                obj["metadata"]["deletionTimestamp"] = self.deleted_at
                obj["metadata"]["deletionGracePeriodSeconds"] = grace_period
                return self._store(resource, obj)
            if resource in self.finalized and obj["metadata"].get("finalizers"):
                obj["metadata"]["deletionTimestamp"] = self.deleted_at
                return self._store(resource, obj)
            del self.objects[resource.plural, namespace or "", name]
            self._tell(resource, "DELETED", obj)
            return obj

    def _store(self, resource, obj):
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        metadata = obj["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers") and resource.plural != "pods":
            self.objects.pop((resource.plural, metadata.get("namespace") or "", metadata["name"]), None)
            self._tell(resource, "DELETED", obj)
            return obj
        self.objects[resource.plural, metadata.get("namespace") or "", metadata["name"]] = obj
        self._tell(resource, "MODIFIED", obj)
        return copy.deepcopy(obj)

    def _tell(self, resource, kind, obj):
        for informer in self.informers:
            if informer.resource == resource:
                informer._take(kind, copy.deepcopy(obj))


class FakeRecorder:
    """Keeps events."""

    def __init__(self):
        self.events = []

    def event(self, obj, kind, reason, message):
        self.events.append((kind, reason, message))
