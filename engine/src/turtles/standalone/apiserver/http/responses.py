# SPDX-License-Identifier: GPL-3.0-or-later
"""Responses: objects in the form that a client wants, warnings, and what all responses of a kind have in common."""

import re
from collections.abc import Iterable

from aiohttp import web

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin import table
from turtles.standalone.apiserver.http.server import APIServer
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.views import negotiate
from turtles.standalone.apiserver.wire.encoding import decode
from turtles.standalone.apiserver.wire.errors import StatusError, bad_request, quote

#: Warnings with more characters than that are cut to so many each, and those beyond it are left out; sources:
#: truncateAtTotalRunes and truncateItemRunes of k8s.io/apiserver.
MAX_WARNINGS, MAX_WARNING = 4096, 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


async def show(
    server: APIServer, request: web.BaseRequest, context: Context, entry: Entry, code: int = 200
) -> web.Response:
    """Return a response with an object, in the form that the client wants.

    :param code: of the answer.
    :raises StatusError: 406 for a form that an object doesn't have, 500 if it can't be converted.
    """
    wanted = negotiate.accept(request, negotiate.SHAPES)
    negotiate.check_shape(wanted, context.kind, False)
    include = included(request, wanted)
    strategy = server.resources.strategy(context.kind)
    await strategy.convert_entries([entry], context.kind, again=True)
    raw = strategy.served(entry, context.kind)
    headers = warnings_of(context)
    if wanted.shape:
        obj = decode(raw)
        if wanted.shape == "Table":
            version = obj["metadata"].get("resourceVersion")
            meta = {"resourceVersion": version} if version else {}
            return negotiate.json_response(table.table(context.kind, [obj], meta, include), code, headers)
        return negotiate.json_response(table.partial(obj), code, headers)
    return negotiate.raw_response(raw, code, headers, wanted.yaml)


def included(request: web.BaseRequest, wanted: negotiate.Accept) -> str:
    """Return how much of an object a table's rows bring: Metadata, Object or None.

    :raises StatusError: 400 for anything else.
    """
    include = request.query.get("includeObject", "")
    if wanted.shape == "Table" and include not in ("", "Metadata", "Object", "None"):
        text = f"includeObject: Invalid value: {quote(include)}: must be 'Metadata', 'Object', 'None', or empty"
        raise bad_request(f"Unable to convert to Table as requested: {text}")
    return include or "Metadata"


def warnings_of(context: Context) -> dict[str, str]:
    """Return the header that tells a client of a request's warnings."""
    return warning_header(context.warnings)


def warning_header(texts: Iterable[str]) -> dict[str, str]:
    """Return the header with warnings, none where there are none."""
    warnings = list(dict.fromkeys(texts))
    if not warnings:
        return {}
    if sum(map(len, warnings)) > MAX_WARNINGS:
        cut, warnings = [one[:MAX_WARNING] for one in warnings], []
        while cut and sum(map(len, warnings)) < MAX_WARNINGS:
            warnings.append(cut.pop(0))
    # A header has no control characters: the answer could not be sent, though the write is done.
    plain = (_CONTROL.sub(" ", one) for one in warnings)
    quoted = (one.replace("\\", "\\\\").replace('"', '\\"') for one in plain)
    return {"Warning": ", ".join(f'299 - "{one}"' for one in quoted)}


def success() -> web.Response:
    """Return the response to what created something that isn't shown."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    return negotiate.json_response(status, 201)


def failure(error: StatusError, headers: dict[str, str] | None = None) -> web.Response:
    """Return the response to a request that failed."""
    return negotiate.json_response(error.status(), error.code, headers)
