# SPDX-License-Identifier: GPL-3.0-or-later
"""Verbs on a named object."""

from aiohttp import web

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.http.reading import answer_get
from turtles.standalone.apiserver.http.server import APIServer
from turtles.standalone.apiserver.http.writing import answer_delete, answer_patch, answer_update
from turtles.standalone.apiserver.wire.errors import method_not_allowed

#: Verbs by method.
VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_ANSWERS = {"GET": answer_get, "PUT": answer_update, "PATCH": answer_patch, "DELETE": answer_delete}


async def answer_named(server: APIServer, request: web.BaseRequest, context: Context) -> web.StreamResponse:
    """Answer a request on a named object.

    :raises StatusError: 405 for POST and other methods, and what the verb refuses with.
    """
    answer = _ANSWERS.get(request.method)
    if answer is None:
        raise method_not_allowed()
    return await answer(server, request, context)
