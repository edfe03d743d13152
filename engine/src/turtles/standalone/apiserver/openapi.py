# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenAPI documents: what kubectl explain reads and what tells clients that the server validates fields itself."""

import copy
import hashlib
from typing import Any

from aiohttp import web

from turtles.standalone.apiserver import discovery, negotiate
from turtles.standalone.apiserver.errors import Object, StatusError, path_not_found
from turtles.standalone.apiserver.kinds import Kind
from turtles.standalone.apiserver.registry import Registry
from turtles.standalone.apiserver.store import encode

_TITLE, _VERSION = "Kubernetes", "v1.32.0"
# kubectl before 1.24 doesn't apply anything without version 2 in protobuf (gnostic's OpenAPIv2.proto). What it names it
# checks before it sends; it leaves the rest to the server, which checks everything anyway. So this one names no kinds.
_V2_PROTOBUF_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_V2_INFO = b"\x0a%c%s\x12%c%s" % (len(_TITLE), _TITLE.encode(), len(_VERSION), _VERSION.encode())
_V2_PROTOBUF = b"\x0a\x032.0\x12%c%s" % (len(_V2_INFO), _V2_INFO)
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_STRING = {"type": "string"}
_MAP = {"type": "object", "additionalProperties": {"type": "string", "default": ""}}
_OBJECT_META: Object = {
    "description": "ObjectMeta is metadata that all persisted resources must have.",
    "type": "object",
    "properties": {
        "name": {**_STRING, "description": "Name must be unique within a namespace."},
        "generateName": {**_STRING, "description": "Prefix of a name that the server completes."},
        "namespace": {**_STRING, "description": "Namespace defines the space within which each name must be unique."},
        "labels": {**_MAP, "description": "Map of string keys and values to organize and select objects."},
        "annotations": {**_MAP, "description": "Unstructured key value map stored with the object."},
        "uid": {**_STRING, "description": "Unique in time and space; set by the server."},
        "resourceVersion": {**_STRING, "description": "Opaque version of the object; set by the server."},
        "generation": {"type": "integer", "format": "int64", "description": "Counts changes of the desired state."},
        "creationTimestamp": {**_STRING, "format": "date-time", "description": "When the object was created."},
        "deletionTimestamp": {**_STRING, "format": "date-time", "description": "When the object is to be gone."},
        "deletionGracePeriodSeconds": {"type": "integer", "format": "int64"},
        "finalizers": {"type": "array", "items": _STRING, "description": "Must be empty before the object goes."},
        "ownerReferences": {
            "type": "array",
            "items": {"type": "object"},
            "description": "Objects this one depends on.",
        },
        "managedFields": {"type": "array", "items": {"type": "object"}},
    },
}


def _name(kind: Kind) -> str:
    reverse = ".".join(reversed(kind.group.split("."))) if kind.group else "io.k8s.api.core"
    return f"{reverse}.{kind.version}.{kind.kind}"


def _schema(kind: Kind, prefix: str) -> Object:
    schema: Object = copy.deepcopy(kind.schema) if kind.schema is not None else {"type": "object"}
    properties = schema.setdefault("properties", {})
    text = "APIVersion defines the versioned schema of this representation of an object."
    properties["apiVersion"] = {**_STRING, "description": text}
    properties["kind"] = {**_STRING, "description": "Kind is the REST resource this object represents."}
    properties["metadata"] = {"description": "Standard object's metadata.", "allOf": [{"$ref": prefix + _META}]}
    if kind.schema is None:
        schema["x-kubernetes-preserve-unknown-fields"] = True
    schema["x-kubernetes-group-version-kind"] = [_gvk(kind)]
    return schema


def _gvk(kind: Kind) -> Object:
    return {"group": kind.group, "kind": kind.kind, "version": kind.version}


def _parameter(name: str, kind: str = "string", where: str = "query") -> Object:
    parameter: Object = {"name": name, "in": where, "schema": {"type": kind, "uniqueItems": True}}
    if where == "path":
        parameter["required"] = True
    return parameter


def _operation(kind: Kind, action: str, prefix: str) -> Object:
    answer = {"application/json": {"schema": {"$ref": prefix + _name(kind)}}}
    operation: Object = {
        "operationId": f"{action}{kind.kind}{kind.version}",
        "responses": {"200": {"description": "OK", "content": answer}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(kind),
    }
    if action in ("post", "put", "patch"):
        names = ("dryRun", "fieldManager", "fieldValidation")
        operation["parameters"] = [_parameter(name) for name in names]
        body = {"schema": {"$ref": prefix + _name(kind)}} if action != "patch" else {"schema": {"type": "object"}}
        types = ("application/json",) if action != "patch" else (
            "application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml",
            *(() if kind.custom else ("application/strategic-merge-patch+json",)),
        )  # fmt: skip
        operation["requestBody"] = {"content": dict.fromkeys(types, body)}
    return operation


class OpenAPI:
    """Makes the documents, and keeps them until the kinds change."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._generation = -1
        self._documents: dict[str, tuple[bytes, str]] = {}

    async def answer(self, request: web.BaseRequest, path: str) -> web.Response:
        """Answer /openapi/v2, /openapi/v3 and /openapi/v3/GROUPVERSION."""
        if self._generation != self._registry.generation:
            self._documents.clear()
            self._generation = self._registry.generation
        if path == "/openapi/v2":
            return self._v2(request)
        negotiate.accept(request)
        if path == "/openapi/v3":
            return negotiate.json_response({"paths": self._index()})
        name = path.removeprefix("/openapi/v3/")
        raw, etag = self._document(name)
        return negotiate.raw_response(raw, headers={"ETag": f'"{etag}"', "Vary": "Accept"})

    def _v2(self, request: web.BaseRequest) -> web.Response:
        header = request.headers.get("Accept", "*/*")
        if "proto-openapi" in header:
            return web.Response(body=_V2_PROTOBUF, content_type=_V2_PROTOBUF_TYPE)
        if "json" not in header and "*/*" not in header:
            raise StatusError(406, "NotAcceptable", "only the following media types are accepted: application/json", {})
        definitions: Object = {_META: _OBJECT_META}
        for kind in self._registry.all():
            definitions[_name(kind)] = _schema(kind, "#/definitions/")
        info = {"title": _TITLE, "version": _VERSION}
        return negotiate.json_response({"swagger": "2.0", "info": info, "paths": {}, "definitions": definitions})

    def _names(self) -> dict[str, tuple[str, str]]:
        found = {}
        for group, versions in self._registry.groups().items():
            for version in versions:
                found[f"apis/{group}/{version}" if group else f"api/{version}"] = (group, version)
        return found

    def _index(self) -> Object:
        return {
            name: {"serverRelativeURL": f"/openapi/v3/{name}?hash={self._document(name)[1]}"} for name in self._names()
        }

    def _document(self, name: str) -> tuple[bytes, str]:
        found = self._documents.get(name)
        if found is None:
            where = self._names().get(name)
            if where is None:
                raise path_not_found()
            raw = encode(self._make(name, *where))
            digest = hashlib.sha256(raw).hexdigest().upper()
            found = self._documents[name] = (raw, digest)
        return found

    def _make(self, name: str, group: str, version: str) -> Object:
        prefix = "#/components/schemas/"
        schemas: Object = {_META: _OBJECT_META}
        paths: dict[str, Any] = {}
        for kind in self._registry.all():
            if (kind.group, kind.version) != (group, version):
                continue
            schemas[_name(kind)] = _schema(kind, prefix)
            base = f"/{name}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"/{name}/{kind.plural}"
            inner = [_parameter("namespace", where="path")] if kind.namespaced else []
            named = [_parameter("name", where="path"), *inner]
            paths[base] = {
                "get": _operation(kind, "list", prefix), "post": _operation(kind, "post", prefix), "parameters": inner,
            }  # fmt: skip
            actions = ("get", "put", "patch", "delete")
            paths[f"{base}/{{name}}"] = {
                **{action: _operation(kind, action, prefix) for action in actions}, "parameters": named,
            }  # fmt: skip
            for sub in discovery.subresources(kind):
                if sub[0] == "status":
                    paths[f"{base}/{{name}}/status"] = {
                        **{action: _operation(kind, action, prefix) for action in ("get", "put", "patch")},
                        "parameters": named,
                    }
        info = {"title": _TITLE, "version": _VERSION}
        return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}
