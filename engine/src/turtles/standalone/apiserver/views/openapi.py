# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenAPI documents: what kubectl explains and validates by, and what tells clients that the server validates fields.

Definitions of built-in kinds are Kubernetes' own (types.py). Documents are made when they are asked for, kept
compressed, and sent so to clients that take it.
"""

import asyncio
import gzip
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from turtles.standalone.apiserver.builtin.registry import Registry
from turtles.standalone.apiserver.schema import types
from turtles.standalone.apiserver.schema.kinds import REVIEWS, Kind
from turtles.standalone.apiserver.views import discovery, negotiate, openapi_protobuf
from turtles.standalone.apiserver.wire.encoding import encode
from turtles.standalone.apiserver.wire.errors import Object, StatusError, path_not_found

_TITLE, _VERSION = "Kubernetes", f"v{types.KUBERNETES}.0"
_STRING = {"type": "string"}
_V2, _V3 = "#/definitions/", "#/components/schemas/"
_LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
#: Definitions that requests and answers of every group have.
_COMMON = tuple(
    f"io.k8s.apimachinery.pkg.apis.meta.v1.{name}"
    for name in (
        "APIGroup",
        "APIResourceList",
        "APIVersions",
        "DeleteOptions",
        "ObjectMeta",
        "Patch",
        "Status",
        "WatchEvent",
    )
)
#: Definitions of subresources' bodies, by the group and version in whose document they are.
_BODIES = {
    ("", "v1"): (
        "io.k8s.api.core.v1.Binding",
        "io.k8s.api.policy.v1.Eviction",
        "io.k8s.api.authentication.v1.TokenRequest",
    ),
}
_API_VERSION = (
    "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized "
    "schemas to the latest internal value, and may reject unrecognized values. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"
)
_KIND = (
    "Kind is a string value representing the REST resource this object represents. Servers may infer this from the "
    "endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"
)
_METADATA = (
    "Standard object's metadata. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)
#: What OpenAPI v2 has no words for; Kubernetes leaves it out of documents of that version, too.
_NOT_IN_V2 = ("nullable", "allOf", "anyOf", "oneOf", "not", "default")


def _gvk(kind: Kind) -> Object:
    return {"group": kind.group, "kind": kind.kind, "version": kind.version}


# -- custom resources


def _custom(kind: Kind, v2: bool) -> dict[str, Object]:
    """Return the definitions of a custom resource and its list."""
    schema = dict(kind.schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    if v2:
        schema = _plain_v2(schema)
    properties = {
        **schema.get("properties", {}),
        "apiVersion": {**_STRING, "description": _API_VERSION},
        "kind": {**_STRING, "description": _KIND},
        "metadata": _referred(types.META, _METADATA, v2),
    }
    name = types.custom_name(kind)
    prefix = _V2 if v2 else _V3
    listed = {
        "description": f"{kind.lists} is a list of {kind.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {**_STRING, "description": _API_VERSION},
            "kind": {**_STRING, "description": _KIND},
            "items": {"type": "array", "items": {"$ref": prefix + name}, "description": f"List of {kind.plural}."},
            "metadata": _referred(_LIST_META, "Standard list metadata.", v2),
        },
        "x-kubernetes-group-version-kind": [{**_gvk(kind), "kind": kind.lists}],
    }
    one = {**schema, "type": "object", "properties": properties, "x-kubernetes-group-version-kind": [_gvk(kind)]}
    return {name: one, f"{name.rpartition('.')[0]}.{kind.lists}": listed}


def _referred(name: str, description: str, v2: bool) -> Object:
    if v2:
        return {"$ref": _V2 + name, "description": description}
    return {"allOf": [{"$ref": _V3 + name}], "default": {}, "description": description}


def _plain_v2(schema: Mapping[str, Any]) -> Object:
    result: Object = {}
    for name, value in schema.items():
        if name in _NOT_IN_V2:
            continue
        if name == "properties":
            result[name] = {field: _plain_v2(inner) for field, inner in value.items()}
        elif name in ("items", "additionalProperties") and isinstance(value, Mapping):
            result[name] = _plain_v2(value)
        else:
            result[name] = value
    if schema.get("x-kubernetes-preserve-unknown-fields") and "properties" not in schema:
        # Clients take an object without properties for one that may have none.
        result.pop("type", None)
    return result


# -- built-in kinds


def _closure(definitions: Mapping[str, Any], names: Iterable[str]) -> dict[str, Object]:
    """Return definitions and all that they refer to."""
    wanted: dict[str, Object] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in wanted and name in definitions:
            wanted[name] = definitions[name]
            todo += _references(definitions[name])
    return dict(sorted(wanted.items()))


def _references(schema: Mapping[str, Any]) -> list[str]:
    names = []
    if isinstance(schema.get("$ref"), str):
        names.append(schema["$ref"].removeprefix(_V2))
    for inner in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, Mapping):
            names += _references(inner)
    return names


def _without_go(definitions: Mapping[str, Object]) -> Mapping[str, Object]:
    for definition in definitions.values():
        for schema in definition.get("properties", {}).values():
            schema.pop("x-go", None)
    return definitions


_ZEROS: dict[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False}


def _as_v3(schema: Mapping[str, Any]) -> Object:
    """Return a definition's schema as OpenAPI v3 has it."""
    result = {name: value for name, value in schema.items() if name not in ("$ref", "x-go")}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = {"$ref": _V3 + reference.removeprefix(_V2)}
        if schema.get("x-go") == "always":
            result["default"] = {}
        return {**result, "allOf": [target]} if result else target
    if schema.get("x-go") == "always" and schema.get("type") in _ZEROS:
        result.setdefault("default", _ZEROS[schema["type"]])
    if "properties" in schema:
        result["properties"] = {name: _as_v3(inner) for name, inner in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), Mapping):
            result[name] = _as_v3(schema[name])
    return result


def _v3_definition(name: str, schema: Mapping[str, Any]) -> Object:
    described = {"description": schema["description"]} if "description" in schema else {}
    if name.endswith(".intstr.IntOrString"):
        return {**described, "oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}
    if name.endswith(".resource.Quantity"):
        return {**described, "oneOf": [{"type": "string"}, {"type": "number"}]}
    return _as_v3(schema)


# -- paths


def _parameter(name: str, kind: str = "string", where: str = "query", v2: bool = False) -> Object:
    parameter: Object = {"name": name, "in": where}
    parameter |= {"type": kind, "uniqueItems": True} if v2 else {"schema": {"type": kind, "uniqueItems": True}}
    if where == "path":
        parameter["required"] = True
    return parameter


_PATCHES = ("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml")
_STRATEGIC = "application/strategic-merge-patch+json"


def _operation(kind: Kind, action: str, v2: bool) -> Object:
    name = types.definition_name(kind)
    operation: Object = {
        "operationId": f"{action}{kind.group.title().replace('.', '')}{kind.version.title()}{kind.kind}",
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(kind),
    }
    types_in = (*_PATCHES, *(() if kind.custom else (_STRATEGIC,))) if action == "patch" else ("*/*",)
    if v2:
        operation["responses"]["200"]["schema"] = {"$ref": _V2 + name}
        operation["consumes"] = list(types_in)
    else:
        operation["responses"]["200"]["content"] = {"application/json": {"schema": {"$ref": _V3 + name}}}
    if action in ("post", "put", "patch"):
        names = ["dryRun", "fieldManager", "fieldValidation"]
        operation["parameters"] = [_parameter(one, v2=v2) for one in names]
        if action == "patch":
            operation["parameters"].append(_parameter("force", "boolean", v2=v2))
        patch = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
        body = {"$ref": (_V2 if v2 else _V3) + (name if action != "patch" else patch)}
        if v2:
            operation["parameters"].append({"name": "body", "in": "body", "required": True, "schema": body})
        else:
            operation["requestBody"] = {"content": {one: {"schema": body} for one in types_in}, "required": True}
    return operation


def _paths(kinds: Iterable[Kind], v2: bool) -> dict[str, Object]:
    paths: dict[str, Object] = {}
    for kind in kinds:
        root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        base = f"{root}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
        inner = [_parameter("namespace", where="path", v2=v2)] if kind.namespaced else []
        named = [_parameter("name", where="path", v2=v2), *inner]
        paths[base] = {
            "get": _operation(kind, "list", v2),
            "post": _operation(kind, "post", v2),
            "parameters": inner,
        }
        for path, actions in (
            (f"{base}/{{name}}", ("get", "put", "patch", "delete")),
            *(
                (f"{base}/{{name}}/{sub[0]}", ("get", "put", "patch"))
                for sub in discovery.subresources(kind)
                if sub[0] == "status"
            ),
        ):
            paths[path] = {**{action: _operation(kind, action, v2) for action in actions}, "parameters": named}
    return paths


# -- documents


def _definition_names(kinds: Iterable[Kind]) -> list[str]:
    names = list(_COMMON)
    for kind in kinds:
        names.append(types.definition_name(kind))
        names.append(types.builtin_name(kind.group, kind.version, kind.lists))
    return names


def _info() -> Object:
    return {"title": _TITLE, "version": _VERSION}


def document_v2(kinds: list[Kind]) -> Object:
    """Return the OpenAPI v2 document of all served kinds."""
    builtin = [kind for kind in kinds if not kind.custom]
    names = [*_definition_names(builtin), *(name for bodies in _BODIES.values() for name in bodies)]
    names += [types.builtin_name(one.group, one.version, one.kind) for one in REVIEWS]
    names.append("io.k8s.api.autoscaling.v1.Scale")
    definitions = dict(_without_go(_closure(types.documents(), names)))
    for kind in kinds:
        if kind.custom:
            definitions.update(_custom(kind, v2=True))
    return {"swagger": "2.0", "info": _info(), "paths": _paths(kinds, True), "definitions": definitions}


def document_v3(kinds: list[Kind], group: str, version: str) -> Object:
    """Return the OpenAPI v3 document of a group's version."""
    builtin = [kind for kind in kinds if not kind.custom]
    names = [*_definition_names(builtin), *_BODIES.get((group, version), ())]
    reviews = ((one.group, one.version, one.kind) for one in REVIEWS)
    names += [types.builtin_name(*one) for one in reviews if one[:2] == (group, version)]
    schemas = {name: _v3_definition(name, one) for name, one in _closure(types.documents(), names).items()}
    for kind in kinds:
        if kind.custom:
            schemas.update(_custom(kind, v2=False))
    paths = _paths(kinds, False)
    return {"openapi": "3.0.0", "info": _info(), "paths": paths, "components": {"schemas": schemas}}


class OpenAPI:
    """Answers /openapi."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        #: Document and form -> what it was made of, and itself, compressed.
        self._kept: dict[str, tuple[str, bytes]] = {}

    async def answer(self, request: web.BaseRequest, path: str) -> web.Response:
        """Answer /openapi/v2, /openapi/v3 and /openapi/v3/GROUPVERSION.

        :raises StatusError: 404 for a group and version that there isn't, 406 for a media type that it doesn't have.
        """
        if path == "/openapi/v2":
            return await self._v2(request)
        negotiate.accept(request)
        if path == "/openapi/v3":
            return negotiate.json_response({"paths": self._index()})
        name = path.removeprefix("/openapi/v3/")
        where = self._names().get(name)
        if where is None:
            raise path_not_found()
        kinds = self._kinds(*where)
        return await self._document(request, path, _made_of(kinds), lambda: encode(document_v3(kinds, *where)))

    async def _v2(self, request: web.BaseRequest) -> web.Response:
        header = request.headers.get("Accept", "*/*")
        kinds = self._registry.all()
        state = _made_of(kinds)
        if "proto-openapi" in header:
            return await self._document(
                request,
                "v2.pb",
                state,
                lambda: openapi_protobuf.encode(document_v2(kinds)),
                openapi_protobuf.MEDIA_TYPE,
            )
        if "json" not in header and "*/*" not in header:
            raise StatusError(406, "NotAcceptable", "only the following media types are accepted: application/json", {})
        return await self._document(request, "v2", state, lambda: encode(document_v2(kinds)))

    async def _document(
        self, request: web.BaseRequest, name: str, state: str, make: Any, media_type: str = "application/json"
    ) -> web.Response:
        etag = f'"{state}"'
        headers = {"ETag": etag, "Vary": "Accept-Encoding, Accept", "Cache-Control": "no-cache, private"}
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        cached = self._kept.get(name)
        if cached is None or cached[0] != state:
            # Some tenths of a second, in which others are to be answered.
            packed = await asyncio.to_thread(lambda: gzip.compress(make(), 6, mtime=0))
            cached = self._kept[name] = (state, packed)
        body = cached[1]
        if negotiate.takes_gzip(request):
            headers["Content-Encoding"] = "gzip"
        else:
            body = gzip.decompress(body)
        return web.Response(body=body, content_type=media_type, headers=headers)

    def _kinds(self, group: str, version: str) -> list[Kind]:
        return [kind for kind in self._registry.all() if (kind.group, kind.version) == (group, version)]

    def _names(self) -> dict[str, tuple[str, str]]:
        names = {}
        for group, versions in self._registry.groups().items():
            for version in versions:
                names[f"apis/{group}/{version}" if group else f"api/{version}"] = (group, version)
        return names

    def _index(self) -> Object:
        return {
            name: {"serverRelativeURL": f"/openapi/v3/{name}?hash={_made_of(self._kinds(*where))}"}
            for name, where in self._names().items()
        }


def _made_of(kinds: Iterable[Kind]) -> str:
    """Return what tells a document from one of other kinds or schemas."""
    parts: list[Any] = [types.fingerprint()]
    parts += [(one.group, one.version, one.kind, one.plural, one.status, one.schema) for one in kinds]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest().upper()
