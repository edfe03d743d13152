# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request says: bodies, options, selectors."""

import contextlib
from collections.abc import Callable
from typing import Any

from aiohttp import web

from turtles.standalone.apiserver.access.auth import User
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.apply import managed
from turtles.standalone.apiserver.http.paths import ResourcePath
from turtles.standalone.apiserver.http.server import APIServer
from turtles.standalone.apiserver.resource.body import report_body
from turtles.standalone.apiserver.schema.decode import check_options, duplicates
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.schema.selectors import parse_fields, parse_labels
from turtles.standalone.apiserver.views import negotiate
from turtles.standalone.apiserver.views.watch import Selection
from turtles.standalone.apiserver.wire import beside, bodies, options, patch
from turtles.standalone.apiserver.wire.errors import Object, bad_request, quote
from turtles.standalone.apiserver.wire.options import DeleteOptions


def context_of(server: APIServer, request: web.BaseRequest, user: User, kind: Kind, parts: ResourcePath) -> Context:
    """Return what a request on a resource wants, as far as storing is concerned.

    :param parts: the request's path.
    :raises StatusError: 400 and 422 for parameters that a write can't have.
    """
    asked = options.write_options(request)
    context = Context(
        kind,
        user,
        parts.namespace,
        parts.name,
        parts.subresource,
        asked.dry_run,
        asked.field_validation,
        _manager(request, asked.field_manager),
        asked.force,
    )
    # They go with the answer even where the request fails.
    request["warnings"] = context.warnings
    context.annotations = server.audit.annotations(request)
    if kind.deprecated:
        context.warnings.append(kind.deprecated)
    return context


def _manager(request: web.BaseRequest, asked: str) -> str:
    """Return who a write is by: who the client says, or what its User-Agent tells."""
    if request.method == "PATCH" and request.content_type == patch.APPLY:
        return asked
    return managed.manager_of(asked, request.headers.get("User-Agent", ""))


async def body_of(request: web.BaseRequest, kind: str, context: Context | None = None) -> Any:
    """Return an object that a client sent, decoded.

    :param kind: which kind is expected, for messages.
    :param context: gets the fields that the body has twice; None if nobody wants to know.
    :raises StatusError: 400 for what can't be decoded, 408 and 413 as for :func:`negotiate.read_body`, 415 for a media
        type that isn't read.
    """
    raw = await negotiate.read_body(request)
    media_type = media_type_of(request)

    def read() -> Any:
        data = bodies.read(raw, media_type, kind)
        _find_duplicates(raw, data, media_type, context)
        return data

    return await _read(raw, media_type, read)


async def _read(raw: bytes, media_type: str, read: Callable[[], Any]) -> Any:
    """Return what a function reads in a body, which is called beside all else if that takes long."""
    return await beside.read(read) if bodies.is_yaml(media_type) and len(raw) > beside.LONG else read()


async def posted(request: web.BaseRequest, user: User, kind: Kind) -> Any:
    """Return what a client posted to a review or a subresource, whose fields are validated as an object's are.

    :param kind: what is expected.
    :raises StatusError: 400 for unknown fields and those that are there twice, where the client wants to hear of them.
    """
    asked = options.write_options(request)
    context = Context(kind, user, field_validation=asked.field_validation)
    context.warnings = request.setdefault("warnings", context.warnings)
    body = await body_of(request, kind.kind, context)
    report_body(context, body)
    return body


async def patch_of(request: web.BaseRequest, context: Context | None = None) -> Any:
    """Return a patch that a client sent, decoded; which type it has is the Content-Type's matter.

    :param context: gets the fields that the body has twice; None if nobody wants to know.
    :raises StatusError: 400 for what can't be decoded, 408 and 413 as for :func:`negotiate.read_body`.
    """
    raw = await negotiate.read_body(request)
    media_type = media_type_of(request)

    def read() -> Any:
        data = bodies.parse_yaml(raw) if media_type == patch.APPLY else bodies.parse_json(raw)
        _find_duplicates(raw, data, media_type, context)
        return data

    try:
        return await _read(raw, media_type, read)
    except bodies.Unreadable as error:
        text = str(error).removeprefix("couldn't get version/kind; json parse error: ")
        if media_type == patch.APPLY:
            raise bad_request(f"error decoding YAML: {text}") from None
        if media_type in (patch.JSON, patch.MERGE):
            text = f"error decoding patch: {text}"
        raise bad_request(text) from None


def _find_duplicates(raw: bytes, data: Any, media_type: str, context: Context | None) -> None:
    """Note which fields a body has twice, where the client wants to know."""
    if context is None or context.field_validation == "Ignore":
        return
    twice: list[str] = []
    places: dict[str, int] = {}
    # Protobuf has none, and JSON is read much faster than other YAML.
    with contextlib.suppress(ValueError):
        twice, places = duplicates(raw, data)
        if not twice and media_type != patch.JSON:
            return
    if bodies.is_yaml(media_type):
        context.repeated = bodies.repeated_keys(raw)
    elif media_type == patch.JSON:
        context.operations = patch.surplus(data, twice)
    else:
        context.duplicates, context.places = twice, places


def media_type_of(request: web.BaseRequest) -> str:
    """Return the media type of a request's body; '' when the client says nothing of it."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


async def delete_options(request: web.BaseRequest, context: Context) -> DeleteOptions:
    """Return the options of a deletion, from its body or its query; note in the context if it is a dry run.

    :raises StatusError: 400 and 422 for options that a deletion can't have.
    """
    raw = await negotiate.read_body(request)
    if raw:
        media_type = media_type_of(request)
        body = await _read(raw, media_type, lambda: bodies.read(raw, media_type, ""))
        if body.get("kind") in (None, "", "DeleteOptions"):
            check_options(body, "DeleteOptions")
        # A body says it all: the query counts without one only.
        wanted = DeleteOptions.parse(body)
        context.dry_run = bool(body.get("dryRun"))
        return wanted
    query: Object = {}
    if request.query.get("propagationPolicy"):
        query["propagationPolicy"] = request.query["propagationPolicy"]
    if request.query.get("gracePeriodSeconds"):
        query["gracePeriodSeconds"] = options.number(request, "gracePeriodSeconds")
    if "orphanDependents" in request.query:
        query["orphanDependents"] = options.flag(request, "orphanDependents")
    return DeleteOptions.parse(query)


def selection_of(server: APIServer, request: web.BaseRequest, context: Context) -> Selection:
    """Return which objects a client selects.

    :raises StatusError: 400 for a selector that can't be parsed and for a field that can't be selected by.
    """
    fields = parse_fields(request.query.get("fieldSelector", ""))
    known = ("metadata.name", "metadata.namespace", *context.kind.fields)
    for path, _, _ in fields:
        if path not in known:
            if context.kind.fields or context.kind.custom:
                raise bad_request(f"field label not supported: {path}")
            names = ", ".join(quote(one) for one in known)
            raise bad_request(f"{quote(path)} is not a known field selector: only {names}")
    labels = parse_labels(request.query.get("labelSelector", ""))
    return Selection(context.namespace, labels, fields, server.resources.strategy(context.kind).viewed(context.kind))


def version_of(request: web.BaseRequest) -> int:
    """Return the resourceVersion that a read names, 0 for none.

    :raises StatusError: 400 for one that is no number.
    """
    text = request.query.get("resourceVersion", "")
    try:
        version = int(text) if text else 0
    except ValueError:
        version = -1
    if version < 0:
        raise bad_request(
            f"invalid resource version: resourceVersion: Invalid value: {quote(text)}: "
            f"strconv.ParseUint: parsing {quote(text)}: invalid syntax"
        )
    return version
