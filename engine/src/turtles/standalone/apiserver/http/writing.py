# SPDX-License-Identifier: GPL-3.0-or-later
"""Create, update, patch, apply and delete."""

from aiohttp import web

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.access.rbac import Attributes
from turtles.standalone.apiserver.http.requests import body_of, delete_options, patch_of, selection_of
from turtles.standalone.apiserver.http.responses import show
from turtles.standalone.apiserver.http.server import APIServer
from turtles.standalone.apiserver.resource.apply import apply
from turtles.standalone.apiserver.resource.create import create, create_by_update
from turtles.standalone.apiserver.resource.delete import delete
from turtles.standalone.apiserver.resource.delete_collection import delete_collection
from turtles.standalone.apiserver.resource.patch import patch_object
from turtles.standalone.apiserver.resource.update import update
from turtles.standalone.apiserver.views import negotiate
from turtles.standalone.apiserver.wire import patch
from turtles.standalone.apiserver.wire.errors import Object, StatusError, method_not_allowed


async def answer_create(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    """Create the object that a client sent."""
    entry = await create(server.resources, context, await body_of(request, context.kind.kind, context))
    return await show(server, request, context, entry, 201)


async def answer_update(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    """Replace an object by the one that a client sent; create what doesn't exist, where the kind has that.

    :raises StatusError: 403 for a creation without the right to create, and as for :func:`update`.
    """
    body = await body_of(request, context.kind.kind, context)
    if context.kind.upsert and not context.subresource and server.store.get(context.key) is None:
        _authorize_creation(server, context)
        return await show(server, request, context, await create_by_update(server.resources, context, body), 201)
    return await show(server, request, context, await update(server.resources, context, body))


async def answer_patch(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    """Patch an object, or apply a configuration.

    :raises StatusError: 415 for another type than the four of patches, and as for :func:`patch_object` and
        :func:`apply`.
    """
    content_type = request.content_type
    if content_type == patch.APPLY:
        if server.store.get(context.key) is None:
            _authorize_creation(server, context)
        entry, created = await apply(server.resources, context, await patch_of(request, context))
        return await show(server, request, context, entry, 201 if created else 200)
    if content_type not in (patch.JSON, patch.MERGE, patch.STRATEGIC):
        raise StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    entry = await patch_object(server.resources, context, content_type, await patch_of(request, context))
    return await show(server, request, context, entry)


def _authorize_creation(server: APIServer, context: Context) -> None:
    """Check the right that a write of what doesn't exist needs beside its own."""
    kind = context.kind
    wanted = Attributes("create", kind.group, kind.version, kind.plural, "", context.namespace, context.name)
    server.authorizer.check(context.user, wanted)


async def answer_delete(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    """Delete an object; answer with what is left of it, or with a Status if nothing is.

    :raises StatusError: as for :func:`delete`.
    """
    kind = context.kind
    entry, gone = await delete(server.resources, context, await delete_options(request, context))
    if not gone or server.resources.strategy(kind).returns_deleted:
        try:
            return await show(server, request, context, entry)
        except StatusError as error:
            # What can't be converted is deleted all the same, and only can't be shown.
            if error.code != 500:
                raise
    details: Object = {"name": context.name}
    if kind.group:
        details["group"] = kind.group
    details["kind"], details["uid"] = kind.plural, entry.metadata.uid
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return negotiate.json_response(status)


async def answer_delete_collection(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    """Delete every object that a client selects; answer with a list of them as they were.

    :raises StatusError: 405 for kinds that don't have this verb and for all namespaces at once, and as for
        :func:`delete_collection`.
    """
    kind, strategy = context.kind, server.resources.strategy(context.kind)
    if "deletecollection" not in kind.verbs or (kind.namespaced and not context.namespace):
        raise method_not_allowed()
    selection = selection_of(server, request, context)
    entries = await delete_collection(server.resources, context, selection, await delete_options(request, context))
    await strategy.convert_entries(entries, kind)
    items = [strategy.served(entry, kind) for entry in entries]
    return negotiate.raw_response(negotiate.list_body(kind, {"resourceVersion": str(server.store.version)}, items))
