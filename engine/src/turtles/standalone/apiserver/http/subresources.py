# SPDX-License-Identifier: GPL-3.0-or-later
"""Subresources."""

import copy

from aiohttp import web

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.access.node_authorizer import node_of, restrict_token
from turtles.standalone.apiserver.builtin import table
from turtles.standalone.apiserver.custom import scales
from turtles.standalone.apiserver.http.objects import VERBS, answer_named
from turtles.standalone.apiserver.http.reading import check_version
from turtles.standalone.apiserver.http.requests import body_of, patch_of, posted
from turtles.standalone.apiserver.http.responses import included, success, warnings_of
from turtles.standalone.apiserver.http.server import APIServer
from turtles.standalone.apiserver.resource.bind import bind
from turtles.standalone.apiserver.resource.evict import evict
from turtles.standalone.apiserver.resource.get import get, load
from turtles.standalone.apiserver.resource.patch import patch_document
from turtles.standalone.apiserver.resource.scale import apply_scale, get_scale, set_scale
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.views import discovery, negotiate
from turtles.standalone.apiserver.wire import bodies, patch
from turtles.standalone.apiserver.wire.errors import method_not_allowed, method_not_supported, not_found, path_not_found

_BINDING = Kind("", "v1", "Binding", "bindings")
_EVICTION = Kind("policy", "v1", "Eviction", "evictions")
_TOKEN_REQUEST = Kind("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests")


async def answer_subresource(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    """Answer a request on a subresource.

    :raises StatusError: 404 for one that the kind doesn't have, 405 for a method that it doesn't have, and what it
        refuses with.
    """
    kind, name = context.kind, context.subresource
    allowed = {one[0]: one[1] for one in discovery.subresources(kind)}
    if name not in allowed:
        raise not_found(kind.group, kind.plural, context.name) if kind.custom else path_not_found()
    verb = VERBS.get(request.method)
    if verb not in allowed[name]:
        raise method_not_supported(kind.group, kind.plural, verb) if kind.custom and verb else method_not_allowed()
    if name in ("status", "finalize"):
        return await answer_named(server, request, context)
    if name == "scale":
        return await _answer_scale(server, request, context)
    if name == "binding":
        await bind(server.resources, context, await posted(request, context.user, _BINDING))
        return success()
    if name == "eviction":
        await evict(server.resources, context, await posted(request, context.user, _EVICTION))
        return success()
    if name == "token":
        return await _answer_token(server, request, context)
    return await server.streams.answer(request, context, await load(server.resources, context))


async def _answer_token(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    body = await posted(request, context.user, _TOKEN_REQUEST)
    node = node_of(context.user)
    if node:
        restrict_token(server.store, node, context.namespace, context.name, body)
    return negotiate.json_response(server.tokens.request(context.namespace, context.name, body), 201)


async def _answer_scale(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    resources = server.resources
    if request.method in ("GET", "HEAD"):
        check_version(server, request)
        entry = get(resources, context)
    elif request.method == "PUT":
        body = await body_of(request, "Scale", context)
        entry = await set_scale(resources, context, lambda _: copy.deepcopy(body))
    elif request.content_type == patch.APPLY:
        entry = await apply_scale(resources, context, await patch_of(request, context))
    else:
        # Only custom resources have scales here, and these take no strategic merge patches.
        content_type, accepted = request.content_type, patch.types(custom=True)
        if content_type not in accepted:
            raise bodies.unknown_format(accepted)
        change = await patch_of(request, context)
        entry = await set_scale(
            resources, context, lambda scale: patch_document(content_type, scale, change), from_patch=True
        )
    scale, headers = await get_scale(resources, context, entry), warnings_of(context)
    wanted = negotiate.accept(request, negotiate.SHAPES)
    if wanted.shape == "Table":
        meta = {"resourceVersion": scale["metadata"]["resourceVersion"]}
        body = table.table(scales.kind_of(context.kind), [scale], meta, included(request, wanted))
        return negotiate.json_response(body, headers=headers)
    return negotiate.json_response(scale, headers=headers, as_yaml=wanted.yaml)
