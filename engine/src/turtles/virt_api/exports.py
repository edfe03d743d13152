# SPDX-License-Identifier: GPL-3.0-or-later
"""The export proxy: passes requests of users who have a token on to the server of an export.

Paths are those of KubeVirt's proxy. The server judges the token; this one only refuses who sends none.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs, web

from turtles.api import exports
from turtles.api.objects import Object, own
from turtles.api.phases import phase_of
from turtles.kube.client import Client
from turtles.kube.kubevirt import EXPORT
from turtles.kube.resources import POD
from turtles.virt_api.nodes import Nodes
from turtles.virt_api.pod_servers import CHUNK, certificate_of, context_of, session, url_of
from turtles.virt_api.status import Failure

log = logging.getLogger(__name__)

#: What of a request and of an answer is passed on.
_ASKED = (exports.TOKEN_HEADER, hdrs.RANGE, hdrs.IF_RANGE, hdrs.ACCEPT)
_ANSWERED = (
    hdrs.ACCEPT_RANGES,
    hdrs.CONTENT_LENGTH,
    hdrs.CONTENT_RANGE,
    hdrs.CONTENT_TYPE,
    hdrs.ETAG,
    hdrs.LOCATION,
)


class ExportProxy:
    """Passes requests on."""

    def __init__(self, client: Client, nodes: Nodes) -> None:
        """Make it.

        :param nodes: has the certificate that identifies virt-api.
        """
        self._client, self._nodes = client, nodes

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Serve KubeVirt's paths."""
        versions = "|".join(exports.VERSIONS)
        prefix = f"/api/{exports.GROUP}/{{version:{versions}}}/namespaces/{{namespace}}"
        # GET serves HEAD as well
        router.add_get(f"{prefix}/{exports.PLURAL}/{{name}}/{{rest:.*}}", self._get)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        info = request.match_info
        try:
            if not {exports.TOKEN_HEADER} & {*map(str.lower, request.headers), *request.query}:
                raise Failure(401, f"send the token of the export in the header {exports.TOKEN_HEADER}")
            pod, context = await asyncio.to_thread(self._look, info["namespace"], info["name"])
            return await self._pass_on(request, pod, context)
        except Failure as error:
            # What a user reads is the text of the answer, whatever the client
            return web.Response(status=error.code, text=f"{error.message}\n")

    def _look(self, namespace: str, name: str) -> tuple[Object, ssl.SSLContext]:
        called = f"{exports.KIND} {namespace}/{name}"
        export = self._client.find(EXPORT, namespace, name)
        if export is None:
            raise Failure(404, f"{called} not found")
        pod = own(export, self._client.find(POD, namespace, exports.name_of(export)))
        certificate = certificate_of(pod, exports.CERTIFICATE) if pod is not None else None
        if pod is None or certificate is None or phase_of(export) != exports.READY:
            raise Failure(503, f"{called} is not ready: its status says why")
        return pod, context_of(self._nodes, certificate, f"the server of {called}")

    async def _pass_on(self, request: web.Request, pod: Object, context: ssl.SSLContext) -> web.StreamResponse:
        path = quote(request.match_info["rest"], safe="/")
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        url = f"{url_of(pod, exports.PORT)}/{path}{query}"
        headers = {name: request.headers[name] for name in _ASKED if name in request.headers}
        answer: web.StreamResponse | None = None
        try:
            async with (
                session() as client,
                client.request(request.method, url, headers=headers, ssl=context, allow_redirects=False) as upstream,
            ):
                passed = {name: upstream.headers[name] for name in _ANSWERED if name in upstream.headers}
                answer = web.StreamResponse(status=upstream.status, headers=passed)
                await answer.prepare(request)
                if request.method != hdrs.METH_HEAD:
                    async for piece in upstream.content.iter_chunked(CHUNK):
                        await answer.write(piece)
                    await answer.write_eof()
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("a download was interrupted: %r", error, extra={"pod": pod["metadata"]["name"]})
            if answer is None:
                raise Failure(503, f"the export server isn't responding ({error}); try again") from error
            # Without its proper end, so that nobody takes it for all that there is
            if request.transport is not None:
                request.transport.abort()
            return answer
