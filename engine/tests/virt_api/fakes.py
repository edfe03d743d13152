# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that keeps objects in memory, as far as virt-api uses one."""

from __future__ import annotations

import copy
from typing import Any

from turtles.api.objects import Object
from turtles.kube.client import AlreadyExists, Client, Conflict, NotFound
from turtles.kube.resources import Resource


class FakeClient:
    """Objects by path. `patches` holds what was patched; `conflicts` makes that many writes fail first."""

    def __init__(self, *objects: tuple[Resource, Object]) -> None:
        self.objects: dict[str, Object] = {}
        self.patches: list[tuple[str, Object, dict[str, str] | None]] = []
        self.conflicts = 0
        self.version = 100
        self.reviews: list[Object] = []
        self.allowed = True
        for resource, obj in objects:
            self._store(resource, obj)

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        try:
            return copy.deepcopy(self.objects[resource.path(namespace, name)])
        except KeyError:
            raise NotFound(404, "NotFound", f"{resource.plural} {name} not found") from None

    def find(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        return Client.find(self, resource, namespace, name)  # type: ignore[arg-type]

    def create(self, resource: Resource, obj: Object) -> Object:
        if resource.plural == "subjectaccessreviews":
            self.reviews.append(obj["spec"])
            return {**obj, "status": {"allowed": self.allowed}}
        if resource.path(obj["metadata"].get("namespace"), obj["metadata"]["name"]) in self.objects:
            raise AlreadyExists(409, "AlreadyExists", "it is there")
        return self._store(resource, obj)

    def replace(self, resource: Resource, obj: Object) -> Object:
        stored = self.get(resource, obj["metadata"].get("namespace"), obj["metadata"]["name"])
        if stored["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "somebody was quicker")
        return self._store(resource, obj)

    def request(self, method: str, path: str, *, query: Any = None, body: Any = None, content_type: str = "") -> Any:
        assert method == "PATCH"
        assert content_type == "application/merge-patch+json"
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict(409, "Conflict", "somebody was quicker")
        self.patches.append((path, body, query))
        return {}

    def patch(self, resource: Resource, namespace: str | None, name: str, body: Any, *, kind: str = "") -> Object:
        self.patches.append((resource.path(namespace, name), body, None))
        return {}

    def list(self, resource: Resource, namespace: str | None = None, **_: Any) -> Object:
        return {"items": [], "metadata": {"resourceVersion": "1"}}

    def _store(self, resource: Resource, obj: Object) -> Object:
        self.version += 1
        obj = copy.deepcopy(obj)
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.objects[resource.path(obj["metadata"].get("namespace"), obj["metadata"]["name"])] = obj
        return copy.deepcopy(obj)


class FakeNodes:
    """Nodes that do what they are asked for. `calls` holds what; `answers` what they return, by operation."""

    def __init__(self, **answers: Any) -> None:
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.answers = answers

    def call(self, vmi: Object, operation: str, options: dict[str, Any] | None = None) -> Any:
        self.calls.append((vmi["metadata"]["name"], operation, options or {}))
        return self.answers.get(operation)
