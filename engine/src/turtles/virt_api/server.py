# SPDX-License-Identifier: GPL-3.0-or-later
"""virt-api's HTTPS server: webhooks, discovery and subresources."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from aiohttp import web

from turtles import endpoint
from turtles.api import uploads
from turtles.api.kind import SUBRESOURCES_GROUP, SUBRESOURCES_VERSIONS, Kind
from turtles.kube.client import ApiError, Client
from turtles.places import Places
from turtles.virt_api import authentication, discovery, status, streams, subresources
from turtles.virt_api.admission import Admission
from turtles.virt_api.authentication import FrontProxy, User
from turtles.virt_api.connections import Connections
from turtles.virt_api.exports import ExportProxy
from turtles.virt_api.nodes import Nodes
from turtles.virt_api.status import Failure
from turtles.virt_api.upload_tokens import Tokens
from turtles.virt_api.uploads import UploadProxy

log = logging.getLogger(__name__)

_MAX_BODY = 16 * 2**20
#: Seconds in which it has to be there.
_BODY_SECONDS = 30.0
#: Seconds that a connection may go without a complete head of a request.
_IDLE_SECONDS = 90.0
#: Requests at once, and those of one namespace: they wait for others, above all for nodes.
_THREADS, _OF_NAMESPACE = 64, 16
#: Seconds given to requests that are being answered when the server stops.
_SHUTDOWN = 5.0
_VERBS = {"GET": "get", "PUT": "update", "POST": "create", "PATCH": "patch", "DELETE": "delete"}

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def new_context() -> ssl.SSLContext:
    """Return the server's TLS context. It requests client certificates, but doesn't require them, for webhooks."""
    context = endpoint.server_context()
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


class Server:
    """The server's handlers. ``ready`` says whether clients are served yet."""

    def __init__(
        self,
        client: Client,
        admission: Admission,
        context: ssl.SSLContext,
        ready: Callable[[], bool],
        nodes: Nodes | None = None,
        namespace: str = "kubevirt",
    ) -> None:
        self._client = client
        self._admission = admission
        self._context = context
        self._ready = ready
        self._front_proxy = FrontProxy()
        nodes = nodes or Nodes(client)
        self._handlers = subresources.handlers(client, nodes, lambda: admission.configuration)
        self._streams = streams.handlers(client, nodes)
        self._tokens = Tokens(client, namespace)
        self._uploads = UploadProxy(client, self._tokens, nodes)
        self._exports = ExportProxy(client, nodes)
        self.connections = Connections()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="request")
        self._places = Places(_OF_NAMESPACE)

    def trust(self, front_proxy: FrontProxy) -> None:
        """Set which front proxies are trusted, from the next request on."""
        if front_proxy.pem and front_proxy.authorities != self._front_proxy.authorities:
            self._context.load_verify_locations(cadata=front_proxy.pem)
        self._front_proxy = front_proxy

    def runner(self) -> web.AppRunner:
        """Return what runs the application, and ends connections whose clients don't go on."""
        return web.AppRunner(
            self.application(), access_log=None, shutdown_timeout=_SHUTDOWN, keepalive_timeout=_IDLE_SECONDS
        )

    def application(self) -> web.Application:
        """Return the application that serves all paths."""
        application = web.Application(client_max_size=_MAX_BODY, middlewares=[self.connections.middleware, _failures])
        router = application.router
        for path in self._admission.reviews:
            router.add_post(path, self._review)
        router.add_get("/healthz", self._healthz)
        router.add_get("/readyz", self._healthz)
        router.add_get("/apis", _document(discovery.groups))
        router.add_get("/openapi/v2", _document(discovery.openapi_v2))
        router.add_get("/openapi/v3", _document(discovery.openapi_v3))
        group = f"/apis/{SUBRESOURCES_GROUP}"
        router.add_get(group, _document(discovery.group))
        for version in SUBRESOURCES_VERSIONS:
            router.add_get(f"{group}/{version}", _document(discovery.resources, version))
            router.add_get(f"{group}/{version}/version", _document(discovery.version))
            router.add_get(f"{group}/{version}/guestfs", _document(discovery.guestfs))
            router.add_get(f"{group}/{version}/healthz", self._healthz)
        group_of_uploads = f"/apis/{uploads.GROUP}"
        router.add_get(group_of_uploads, _document(discovery.group, uploads.GROUP))
        router.add_get(f"{group_of_uploads}/{uploads.VERSION}", _document(discovery.upload_resources))
        router.add_post(
            f"{group_of_uploads}/{uploads.VERSION}/namespaces/{{namespace}}/{uploads.PLURAL}", self._request_token
        )
        self._uploads.add_to(router)
        self._exports.add_to(router)
        router.add_route("*", group + "/{version}/namespaces/{namespace}/{operation}", self._operation)
        router.add_route("*", group + "/{version}/namespaces/{namespace}/{resource}/{name}/{sub:.+}", self._subresource)
        return application

    async def _review(self, request: web.Request) -> web.Response:
        try:
            body = _decode(await _body(request))
        except (msgspec.DecodeError, RecursionError):
            raise Failure(400, "the body is not JSON") from None
        if request.path in self._admission.slow:
            return _json(await asyncio.to_thread(self._admission.review, request.path, body))
        return _json(self._admission.review(request.path, body))

    async def _healthz(self, request: web.Request) -> web.Response:
        if not self._ready():
            return web.Response(status=503, text="not registered with the API server yet")
        return web.Response(text="ok")

    async def _subresource(self, request: web.Request) -> web.StreamResponse:
        info = request.match_info
        version, resource, name, sub = info["version"], info["resource"], info["name"], info["sub"]
        known = discovery.find(resource, sub)
        if version not in SUBRESOURCES_VERSIONS or known is None:
            raise Failure(404, status.NO_SUCH_PATH)
        kind, subresource, path = known
        verb = _VERBS.get(request.method, "")
        if verb != subresource.verb:
            raise Failure(405, f"{request.method} is not supported on {resource}/{sub}")
        user = self._authenticate(request)
        await self._authorize(user, verb, version, info["namespace"], kind, name, subresource.name)
        facts = {"namespace": info["namespace"], "object": name, "user": user.name}
        if subresource.stream:
            log.info("%s", sub, extra=facts)
            return await self._streams[subresource.handler](request, info["namespace"], name, path)
        options = _options(await _body(request))
        answer = await self._handle(subresource.handler, info["namespace"], name, options)
        log.info("%s", sub, extra=facts)
        return _json(answer or {}, subresource.code) if subresource.body else web.Response(status=subresource.code)

    async def _request_token(self, request: web.Request) -> web.StreamResponse:
        user, namespace = self._authenticate(request), request.match_info["namespace"]
        if not await asyncio.to_thread(
            authentication.may,
            self._client,
            user,
            "create",
            uploads.VERSION,
            namespace,
            uploads.PLURAL,
            "",
            "",
            uploads.GROUP,
        ):
            message = (
                f'{uploads.PLURAL}.{uploads.GROUP} is forbidden: User "{user.name}" cannot create resource '
                f'"{uploads.PLURAL}" in API group "{uploads.GROUP}" in the namespace "{namespace}"'
            )
            raise Failure(403, message)
        body = _options(await _body(request))
        return _json(await asyncio.to_thread(self._tokens.request, namespace, body), 201)

    async def _operation(self, request: web.Request) -> web.Response:
        info = request.match_info
        version, namespace, operation = info["version"], info["namespace"], info["operation"]
        known = discovery.NAMESPACE_OPERATIONS.get(operation)
        if version not in SUBRESOURCES_VERSIONS or known is None:
            raise Failure(404, status.NO_SUCH_PATH)
        _, subresource = known
        verb = _VERBS.get(request.method, "")
        if verb != subresource.verb:
            raise Failure(405, f"{request.method} is not supported on {operation}")
        user = self._authenticate(request)
        if not await asyncio.to_thread(
            authentication.may, self._client, user, verb, version, namespace, operation, "", ""
        ):
            message = (
                f'{operation}.{SUBRESOURCES_GROUP} is forbidden: User "{user.name}" cannot {verb} resource '
                f'"{operation}" in API group "{SUBRESOURCES_GROUP}" in the namespace "{namespace}"'
            )
            raise Failure(403, message)
        body = _options(await _body(request))
        answer = await self._handle(subresource.handler, namespace, "", body)
        return _json(answer or {}, subresource.code)

    async def _handle(self, handler: str, namespace: str, name: str, options: dict[str, Any]) -> Any:
        """Return what a handler does, which may have to wait for a node, and that for a guest that says nothing."""
        async with self._places.take(namespace):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._handlers[handler], namespace, name, options)

    def _authenticate(self, request: web.Request) -> User:
        transport = request.transport
        certificate = authentication.peer_certificate(transport.get_extra_info("ssl_object") if transport else None)
        user = self._front_proxy.user(request.headers.items()) if self._front_proxy.trusts(certificate) else None
        if user is None:
            raise Failure(401, "Unauthorized")
        return user

    async def _authorize(
        self, user: User, verb: str, version: str, namespace: str, kind: Kind, name: str, sub: str
    ) -> None:
        allowed = await asyncio.to_thread(
            authentication.may, self._client, user, verb, version, namespace, kind.plural, name, sub
        )
        if not allowed:
            message = (
                f'{kind.plural}.{SUBRESOURCES_GROUP} "{name}" is forbidden: User "{user.name}" cannot {verb} resource '
                f'"{kind.plural}/{sub}" in API group "{SUBRESOURCES_GROUP}" in the namespace "{namespace}"'
            )
            raise Failure(403, message, kind, name)


@web.middleware
async def _failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn an exception of a handler into a Status."""
    try:
        return await handler(request)
    except Failure as error:
        return _json(error.as_status(), error.code)
    except web.HTTPException as error:
        message = status.NO_SUCH_PATH if error.status == 404 else error.reason
        return _json(status.failure(error.status, message), error.status)
    except ApiError as error:
        log.warning("the API server didn't answer: %s", error, extra={"path": request.path})
        return _json(status.failure(503, f"the API server didn't answer: {error.message}"), 503)
    except Exception:
        log.exception("request failed", extra={"path": request.path})
        return _json(status.failure(500, "internal error in virt-api; see its log"), 500)


def _document(make: Callable[..., dict[str, Any]], *arguments: str) -> Handler:
    body = _encode(make(*arguments))

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    return handler


def _json(value: dict[str, Any], code: int = 200) -> web.Response:
    return web.Response(body=_encode(value), status=code, content_type="application/json")


async def _body(request: web.Request) -> bytes:
    """Return a request's body, unless it takes longer than any that is meant."""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise Failure(408, f"the request's body was not there after {_BODY_SECONDS:g} seconds") from None


def _options(body: bytes) -> dict[str, Any]:
    """Read a request's options. virtctl sends no Content-Type, and no body where there are none."""
    if not body.strip():
        return {}
    try:
        options = _decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Failure(400, f"Can not unmarshal Request body to struct, error: {error}") from None
    if not isinstance(options, dict):
        raise Failure(400, "Can not unmarshal Request body to struct, error: it is not an object")
    return options
