# SPDX-License-Identifier: GPL-3.0-or-later
"""Where requests come in: who sends them, whether they may, and what answers them."""

import asyncio
import logging
import time

from aiohttp import web

from turtles.standalone.apiserver.access.auth import UNKNOWN, User
from turtles.standalone.apiserver.access.impersonation import impersonated
from turtles.standalone.apiserver.access.rbac import Attributes
from turtles.standalone.apiserver.http.index import answer_plain, nothing
from turtles.standalone.apiserver.http.limits import is_long
from turtles.standalone.apiserver.http.objects import VERBS
from turtles.standalone.apiserver.http.paths import ResourcePath, split_path
from turtles.standalone.apiserver.http.resources import answer_resource, review_of
from turtles.standalone.apiserver.http.responses import failure, warning_header
from turtles.standalone.apiserver.http.server import APIServer
from turtles.standalone.apiserver.schema.selectors import parse_fields
from turtles.standalone.apiserver.views import negotiate
from turtles.standalone.apiserver.views.watch import Selection
from turtles.standalone.apiserver.wire import options
from turtles.standalone.apiserver.wire.errors import StatusError, bad_request, internal

log = logging.getLogger(__name__)

_VERBS = (*VERBS.values(), "list", "watch", "deletecollection")
#: Where a request keeps what it wants, and whether it goes on for as long as its client wants.
_WANTED, _LONG = "wanted", "long"


async def handle(server: APIServer, request: web.BaseRequest) -> web.StreamResponse:
    """Answer a request; every error becomes a Status."""
    before = time.monotonic()
    response = await _answered(server, request)
    wanted: Attributes | None = request.get(_WANTED)
    # A watch's answer is a line for each event, and OpenAPI's one of many megabytes.
    is_watch = wanted is not None and wanted.verb == "watch"
    if not is_watch and not request.path.startswith("/openapi/") and negotiate.wants_pretty(request):
        negotiate.prettify(response)
    if wanted is not None:
        seconds = None if request.get(_LONG) else time.monotonic() - before
        verb = wanted.verb if wanted.verb in _VERBS else "other"
        # Names that clients make up would be metrics without end.
        known = is_known(server, wanted.group, wanted.version, wanted.resource)
        server.metrics.count(verb, wanted.resource if known else "", response.status, seconds)
    server.audit.completed(request, response)
    await negotiate.write_yaml(response)
    return response


async def _answered(server: APIServer, request: web.BaseRequest) -> web.StreamResponse:
    try:
        response = await _answer(server, request)
        if not response.prepared and "Warning" not in response.headers:
            response.headers.update(warning_header(request.get("warnings") or ()))
        return response
    except StatusError as error:
        # Clients repeat a request with this header, whatever its method.
        again = (error.details or {}).get("retryAfterSeconds")
        headers = {"Retry-After": str(again)} if again else {}
        headers |= warning_header(request.get("warnings") or ())
        response = failure(error, headers)
        if error.code == 408 or (error.code == 413 and "body" not in request):
            # What still comes is the rest of a body, not a request.
            response.force_close()
        return response
    except (asyncio.CancelledError, ConnectionError):
        raise
    except web.HTTPBadRequest as error:  # a handshake of a WebSocket that is none
        return failure(bad_request(error.text or "the request is not valid"))
    except RecursionError:
        return failure(bad_request("the request's body is nested too deeply"))
    except Exception:
        log.exception("request failed", extra={"method": request.method, "path": request.path})
        return failure(internal("an unexpected error; the server's log has more"))


async def _answer(server: APIServer, request: web.BaseRequest) -> web.StreamResponse:
    try:
        sender = server.authenticator.authenticate(request)
    except StatusError:
        # Attempts with wrong tokens belong in the audit log.
        wanted = request[_WANTED] = Attributes(request.method.lower(), path=request.path)
        server.audit.received(request, UNKNOWN, UNKNOWN, wanted)
        raise
    user = impersonated(request, sender, server.authorizer)
    path = request.path
    parts = split_path(request.rel_url.raw_path)
    service = server.aggregator.service(parts.group, parts.version) if parts is not None else None
    # Only those who may look learn what doesn't exist.
    wanted = Attributes(request.method.lower(), path=path) if parts is None else _attributes(request, parts)
    request[_WANTED] = wanted
    server.audit.received(request, sender, user, wanted)
    _authorize(server, request, user, wanted)
    upgrade = bool(request.headers.get("Upgrade"))
    # What an aggregated server does with a connection may last; a built-in resource says so by itself.
    long = request[_LONG] = is_long(wanted) or (service is not None and upgrade)
    if request.can_read_body and not (long and upgrade):
        # Before a place is taken, which a slow client could hold.
        await negotiate.read_body(request)
    with server.limits.seat(user, wanted, long):
        if parts is None:
            return await answer_plain(server, request, user, path.rstrip("/") or "/")
        if service is not None:
            return await server.aggregator.proxy(request, user, service)
        if not is_known(server, parts.group, parts.version, parts.plural):
            return nothing(server, path.strip("/").split("/"))
        return await answer_resource(server, request, user, parts)


def _authorize(server: APIServer, request: web.BaseRequest, user: User, wanted: Attributes) -> None:
    try:
        server.authorizer.check(user, wanted)
    except StatusError as error:
        server.audit.decided(request, error)
        raise
    server.audit.decided(request, None)


def is_known(server: APIServer, group: str, version: str, plural: str) -> bool:
    """Whether the server itself serves a resource, or a review: no service behind it has to be asked."""
    if server.registry.find(group, version, plural) is not None:
        return True
    return review_of(group, version, plural) is not None


def _attributes(request: web.BaseRequest, parts: ResourcePath) -> Attributes:
    verb = VERBS.get(request.method, "")
    if parts.watched:
        verb = "watch"
    elif verb == "get" and not parts.name:
        verb = "watch" if options.flag(request, "watch") else "list"
    elif verb == "delete" and not parts.name:
        verb = "deletecollection"
    namespace = parts.namespace
    if not namespace and parts.group == "" and parts.plural == "namespaces":
        namespace = parts.name
    name, node = parts.name, ""
    if not name and verb in ("list", "watch", "deletecollection"):
        # A field selector on the name makes a list one of a named object, which a rule's resourceNames allow.
        terms = parse_fields(request.query.get("fieldSelector", ""))
        name = Selection(fields=terms).name
        node = next((value for path, equal, value in terms if path == "spec.nodeName" and equal), "")
    return Attributes(verb, parts.group, parts.version, parts.plural, parts.subresource, namespace, name, node=node)
