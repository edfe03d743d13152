# SPDX-License-Identifier: GPL-3.0-or-later
"""Get, list and watch."""

from dataclasses import replace

from aiohttp import web

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin import table
from turtles.standalone.apiserver.custom.conversion import by_webhook
from turtles.standalone.apiserver.http.requests import selection_of, version_of
from turtles.standalone.apiserver.http.responses import included, show, warnings_of
from turtles.standalone.apiserver.http.server import APIServer
from turtles.standalone.apiserver.resource.get import get
from turtles.standalone.apiserver.resource.list import list_page, prepare
from turtles.standalone.apiserver.views import negotiate
from turtles.standalone.apiserver.views.watch import Selection, Watcher, WatchOptions, make_frame, stream
from turtles.standalone.apiserver.wire import options
from turtles.standalone.apiserver.wire.encoding import decode, encode
from turtles.standalone.apiserver.wire.errors import Object, StatusError, bad_request, expired, too_large_version


async def answer_get(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    """Answer with an object.

    :raises StatusError: 404 if it isn't there, 400 for a version that is none, 504 for one of the future.
    """
    check_version(server, request)
    return await show(server, request, context, get(server.resources, context))


async def answer_list(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    """Answer with a list, or a page of one: whole objects, their metadata, or rows of a table.

    :raises StatusError: 400 for parameters that are wrong or contradict each other, 406 for a form that a list doesn't
        have, 410 for a page that is too old to go on from.
    """
    kind, strategy = context.kind, server.resources.strategy(context.kind)
    wanted = negotiate.accept(request, negotiate.SHAPES)
    negotiate.check_shape(wanted, kind, True)
    include = included(request, wanted)
    options.check_list(request)
    version = check_version(server, request)
    token = request.query.get("continue", "")
    if token and version:
        raise bad_request("specifying resource version is not allowed when using continue")
    selection, limit = selection_of(server, request, context), options.number(request, "limit")
    exact = version if request.query.get("resourceVersionMatch") == "Exact" else 0
    page = await list_page(server.resources, kind, selection, limit, token, exact)
    meta: Object = {"resourceVersion": str(page.version)}
    if page.token:
        meta["continue"] = page.token
    if page.remaining is not None:
        meta["remainingItemCount"] = page.remaining
    await strategy.convert_entries(page.entries, kind, again=True)
    served = [strategy.served(entry, kind) for entry in page.entries]
    headers = warnings_of(context)
    if wanted.shape == "Table":
        body = table.table(kind, [decode(one) for one in served], meta, include)
        return negotiate.json_response(body, headers=headers, as_yaml=wanted.yaml)
    if wanted.shape == "PartialObjectMetadataList":
        partials = [table.partial(decode(one)) for one in served]
        body = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        return negotiate.json_response({**body, "items": partials}, headers=headers, as_yaml=wanted.yaml)
    # Lists of custom resources always have it, empty on the last page.
    raw = negotiate.list_body(kind, {"continue": "", **meta} if kind.custom else meta, served)
    return negotiate.raw_response(raw, 200, headers, wanted.yaml)


#: Seconds that a watch may be asked to last.
_LONGEST_WATCH = 24 * 3600


async def answer_watch(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    """Answer with a watch."""
    kind, strategy = context.kind, server.resources.strategy(context.kind)
    wanted = negotiate.accept(request, negotiate.SHAPES)
    include = included(request, wanted)
    selection = _named(context, selection_of(server, request, context))
    version = version_of(request)
    shown = negotiate.form(kind, wanted, include, strategy.served)
    if by_webhook(kind):
        shown = replace(shown, prepare=lambda entries: strategy.convert_entries(entries, kind))
    options.check_watch(request)
    initial_events = options.flag(request, "sendInitialEvents")
    bookmarks = options.flag(request, "allowWatchBookmarks")
    timeout = options.number(request, "timeoutSeconds")
    asked = WatchOptions(bookmarks=bookmarks, initial_events=initial_events)
    if timeout:
        asked.timeout = float(min(timeout, _LONGEST_WATCH))
    watcher = Watcher(server.store, kind.resource, selection, shown)
    if version > server.store.version:
        return _ended(too_large_version(version, server.store.version))
    initial = []
    await prepare(server.resources, kind, selection)
    # No await between reading the state and listening: nothing can happen in between.
    if version == 0 or initial_events:
        if "sendInitialEvents" not in request.query or initial_events:
            initial = [one for one in server.store.entries(kind.resource, selection.namespace) if selection(one)]
        watcher.start()
    else:
        try:
            watcher.start(server.store.since(kind.resource, version))
        except LookupError:
            return _ended(expired(version, server.store.compacted))
    server.audit.started(request)
    headers = warnings_of(context)
    return await stream(request, server.store, watcher, initial, shown, asked, server.store.version, headers)


def _named(context: Context, selection: Selection) -> Selection:
    """Return what a watch selects whose path may name an object."""
    if not context.name:
        return selection
    if selection.fields and selection.name != context.name:
        raise bad_request("fieldSelector metadata.name doesn't match requested name")
    return replace(selection, fields=[*selection.fields, ("metadata.name", True, context.name)])


def check_version(server: APIServer, request: web.BaseRequest) -> int:
    """Return the resourceVersion that a read names, 0 for none.

    :raises StatusError: 504 for one that is newer than all that the server has.
    """
    version = version_of(request)
    if version > server.store.version:
        raise too_large_version(version, server.store.version)
    return version


def _ended(error: StatusError) -> web.Response:
    """Return the response to a watch that ends before it begins."""
    response = web.Response(content_type="application/json")
    response.body = make_frame("ERROR", encode(error.status()))
    return response
