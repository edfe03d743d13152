# SPDX-License-Identifier: GPL-3.0-or-later
"""From a resource path to the verb that it asks for."""

from typing import Any

from aiohttp import web

from turtles.standalone.apiserver.access import reviews
from turtles.standalone.apiserver.access.auth import User
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.http.objects import answer_named
from turtles.standalone.apiserver.http.paths import ResourcePath
from turtles.standalone.apiserver.http.reading import answer_list, answer_watch
from turtles.standalone.apiserver.http.requests import context_of, posted
from turtles.standalone.apiserver.http.responses import success
from turtles.standalone.apiserver.http.server import APIServer
from turtles.standalone.apiserver.http.subresources import answer_subresource
from turtles.standalone.apiserver.http.writing import answer_create, answer_delete_collection
from turtles.standalone.apiserver.resource.bind import bind
from turtles.standalone.apiserver.schema.kinds import REVIEWS, Kind, Review
from turtles.standalone.apiserver.views import negotiate
from turtles.standalone.apiserver.wire import options
from turtles.standalone.apiserver.wire.errors import bad_request, method_not_allowed, path_not_found


async def answer_resource(
    server: APIServer, request: web.BaseRequest, user: User, parts: ResourcePath
) -> web.StreamResponse:
    """Answer a request on a resource or a review, once the user may make it.

    :raises StatusError: 404 for a resource that there isn't, 405 for a method that it doesn't have, 406 for a form that
        it doesn't have, and what the verb refuses with.
    """
    review = review_of(parts.group, parts.version, parts.plural)
    if review is not None:
        if request.method != "POST" or parts.name or parts.watched:
            raise method_not_allowed()
        body = await posted(request, user, Kind(review.group, review.version, review.kind, review.plural))
        if review.kind == "Binding":
            return await _bind(server, request, user, parts, body)
        answer = reviews.answer(review, body, user, parts.namespace, server.authenticator, server.authorizer)
        return negotiate.json_response(answer, 201)
    kind = server.registry.find(parts.group, parts.version, parts.plural)
    if kind is None or (parts.namespace and not kind.namespaced):
        raise path_not_found()
    if request.method == "HEAD":
        raise method_not_allowed()
    watch = parts.watched or (request.method == "GET" and not parts.name and options.flag(request, "watch"))
    negotiate.accept(request, negotiate.SHAPES, watch=watch)
    context = context_of(server, request, user, kind, parts)
    if parts.watched:
        return await _answer_watch_path(server, request, context)
    if parts.subresource:
        return await answer_subresource(server, request, context)
    if parts.name:
        if kind.namespaced and not parts.namespace:
            raise path_not_found()
        return await answer_named(server, request, context)
    if request.method in ("GET", "HEAD"):
        if options.flag(request, "watch"):
            return await answer_watch(server, request, context)
        return await answer_list(server, request, context)
    if request.method == "POST":
        if kind.namespaced and not parts.namespace:
            raise method_not_allowed()
        return await answer_create(server, request, context)
    if request.method == "DELETE":
        return await answer_delete_collection(server, request, context)
    raise method_not_allowed()


async def _answer_watch_path(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    """Answer a request on a path below watch/, which may name an object."""
    if request.method != "GET":
        raise method_not_allowed()
    if context.subresource or (context.name and context.kind.namespaced and not context.namespace):
        raise path_not_found()
    return await answer_watch(server, request, context)


async def _bind(
    server: APIServer, request: web.BaseRequest, user: User, parts: ResourcePath, body: Any
) -> web.StreamResponse:
    """Bind the Pod that a Binding names, as the Pod's own subresource does."""
    pods = server.registry.find("", "v1", "pods")
    metadata = body.get("metadata") if isinstance(body, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if pods is None or not parts.namespace:
        raise method_not_allowed()
    if not isinstance(name, str) or not name:
        raise bad_request("a Binding must name its Pod in metadata.name")
    path = ResourcePath("", "v1", ["namespaces", parts.namespace, "pods", name])
    context = context_of(server, request, user, pods, path)
    await bind(server.resources, context, body)
    return success()


def review_of(group: str, version: str, plural: str) -> Review | None:
    """Return the review behind a path's group, version and resource."""
    for review in REVIEWS:
        if (review.group, review.version, review.plural) == (group, version, plural):
            return review
    return None
