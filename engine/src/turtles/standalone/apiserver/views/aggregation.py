# SPDX-License-Identifier: GPL-3.0-or-later
"""The aggregation layer: groups that another server answers, as APIServices name them.

The server behind learns the user from X-Remote-User, X-Remote-Group, X-Remote-Uid and X-Remote-Extra-…, and believes it
because the request comes with the front proxy's client certificate ("Configure the Aggregation Layer" of the
Kubernetes documentation).
"""

import asyncio
import base64
import contextlib
import contextvars
import http
import logging
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from turtles.standalone.apiserver.access import impersonation
from turtles.standalone.apiserver.access.auth import BEARER, User, is_websocket
from turtles.standalone.apiserver.schema.kinds import REGISTRATION
from turtles.standalone.apiserver.schema.status import is_true
from turtles.standalone.apiserver.storage.entries import Event
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.views import negotiate
from turtles.standalone.apiserver.wire.backend import MAX_ANSWER, read_limited
from turtles.standalone.apiserver.wire.encoding import decode
from turtles.standalone.apiserver.wire.endpoints import Endpoint, PinnedResolver, resolve
from turtles.standalone.apiserver.wire.errors import Object, StatusError

log = logging.getLogger(__name__)
RESOURCE = f"{REGISTRATION}/apiservices"
_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "authorization",
}
DISCOVERY_SECONDS = 5.0
#: Seconds of silence after which a service is given up, except in a watch.
READ_SECONDS = 60.0
_LIMIT = 32 * 1024 * 1024
#: What a server answered instead of upgrading; each request's own.
_refusal: contextvars.ContextVar[bytes] = contextvars.ContextVar("refusal", default=b"")


@dataclass(frozen=True)
class Service:
    """An APIService that a Service of the cluster answers."""

    name: str
    group: str
    version: str
    namespace: str
    service: str
    port: int
    ca_bundle: str
    insecure: bool
    #: Whether its condition Available is True: until then, nothing is passed on.
    available: bool


class Aggregator:
    """Passes requests on."""

    def __init__(self, store: Store, pki: Path) -> None:
        self._store, self._pki = store, pki
        self._services: dict[tuple[str, str], Service] | None = None
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}
        self._sessions: dict[Endpoint, aiohttp.ClientSession] = {}
        self._discovered: dict[tuple[str, str], tuple[float, Object]] = {}
        store.observe(self._on_event)

    def _on_event(self, event: Event) -> None:
        if event.entry.key.resource in (RESOURCE, "/endpoints"):
            self._services = None
            self._discovered.clear()

    async def close(self) -> None:
        """Close connections."""
        for session in self._sessions.values():
            await session.close()

    def services(self) -> dict[tuple[str, str], Service]:
        """Return the services by group and version."""
        if self._services is None:
            self._services = {}
            for entry in self._store.entries(RESOURCE):
                obj = entry.object()
                spec = obj.get("spec") or {}
                service = spec.get("service")
                if service:
                    key = (spec.get("group", ""), spec.get("version", ""))
                    self._services[key] = Service(
                        entry.key.name,
                        *key,
                        service["namespace"],
                        service["name"],
                        service.get("port", 443),
                        spec.get("caBundle") or "",
                        bool(spec.get("insecureSkipTLSVerify")),
                        is_true(obj, "Available"),
                    )
        return self._services

    def service(self, group: str, version: str) -> Service | None:
        """Return the service that answers for a group and version, None for the server itself."""
        return self.services().get((group, version))

    def _context(self, service: Service) -> ssl.SSLContext:
        key = (service.ca_bundle, service.insecure)
        context = self._contexts.get(key)
        if context is None:
            try:
                data = base64.b64decode(service.ca_bundle).decode() if service.ca_bundle else None
                context = ssl.create_default_context(cadata=data)
            except (ValueError, ssl.SSLError):
                text = "unable to load root certificates: unable to parse bytes as PEM block"
                raise _unavailable(f"error trying to reach service: {text}") from None
            if service.insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.load_cert_chain(self._pki / "front-proxy-client.crt", self._pki / "front-proxy-client.key")
            self._contexts[key] = context
        return context

    def _target(self, service: Service) -> tuple[aiohttp.ClientSession, str]:
        endpoint = resolve(self._store, service.namespace, service.service, service.port)
        if endpoint is None:
            raise _unavailable(f'no endpoints available for service "{service.namespace}/{service.service}"', True)
        session = self._sessions.get(endpoint)
        if session is None or session.closed:
            connector = aiohttp.TCPConnector(resolver=PinnedResolver(endpoint), limit=0)
            session = self._sessions[endpoint] = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=10),
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[_remember_refusals()],
            )
        return session, f"https://{service.service}.{service.namespace}.svc:{endpoint.port}"

    def _headers(self, request: web.BaseRequest | None, user: User) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict()
        for name, value in request.headers.items() if request is not None else ():
            # Only this server may say who the user is.
            if name.lower() not in _HOP and not name.lower().startswith(("x-remote-", impersonation.PREFIX)):
                headers.add(name, value)
        headers["X-Remote-User"] = user.name
        for group in user.groups:
            headers.add("X-Remote-Group", group)
        if user.uid:
            headers["X-Remote-Uid"] = user.uid
        for name, values in user.extra:
            for value in values:
                headers.add(f"X-Remote-Extra-{quote(name, safe='')}", value)
        if request is not None and request.remote:
            headers["X-Forwarded-For"] = request.remote
        return headers

    async def proxy(self, request: web.BaseRequest, user: User, service: Service) -> web.StreamResponse:
        """Pass a request on and its answer back; websockets too.

        :raises StatusError: 503 for a service that isn't available.
        """
        _check_available(service)
        session, base = self._target(service)
        if is_websocket(request):
            return await self._websocket(request, user, service, session, base)
        body = await negotiate.read_body(request) if request.body_exists else None
        watched = request.query.get("watch", "").lower() in ("1", "true", "t")
        watched = watched or request.path.startswith(f"/apis/{service.group}/{service.version}/watch/")
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=None if watched else READ_SECONDS)
        try:
            async with session.request(
                request.method,
                _address(base, request),
                headers=self._headers(request, user),
                data=body,
                ssl=self._context(service),
                allow_redirects=False,
                timeout=timeout,
            ) as answer:
                return await _pass_back(request, answer)
        except ConnectionAbortedError:
            raise
        except TimeoutError:
            text = f"the service of {service.name!r} did not answer within {READ_SECONDS:g} seconds"
            raise StatusError(504, "Timeout", text) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from None

    async def _websocket(
        self, request: web.BaseRequest, user: User, service: Service, session: aiohttp.ClientSession, base: str
    ) -> web.StreamResponse:
        headers = self._headers(request, user)
        offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if one.strip()]
        offered = [one for one in offered if not one.startswith(BEARER)]
        for name in [name for name in headers if name.lower().startswith("sec-websocket-")]:
            del headers[name]
        try:
            behind = await session.ws_connect(
                _address(base, request),
                headers=headers,
                protocols=offered,
                ssl=self._context(service),
                max_msg_size=_LIMIT,
                autoping=True,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise _refused(error) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from None
        async with behind:
            chosen = (behind.protocol,) if behind.protocol else ()
            front = web.WebSocketResponse(protocols=chosen, max_msg_size=_LIMIT, autoping=True)
            await front.prepare(request)
            tasks = [asyncio.ensure_future(_pump(front, behind)), asyncio.ensure_future(_pump(behind, front))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await front.close(code=behind.close_code or 1000)
        return front

    async def resource_list(self, group: str, version: str, user: User) -> Object:
        """Return the APIResourceList of a group and version behind a service; kept for some seconds.

        :param user: who asks, which the service is told.
        :raises KeyError: no service is behind them.
        :raises StatusError: 503 if the service isn't available, doesn't answer, or answers something else.
        """
        cached = self._discovered.get((group, version))
        if cached is not None and cached[0] > time.monotonic():
            return cached[1]
        service = self.services()[group, version]
        _check_available(service)
        session, base = self._target(service)
        headers = self._headers(None, user)
        headers["Accept"] = "application/json"
        try:
            async with asyncio.timeout(5):
                url = _exact(f"{base}/apis/{group}/{version}")
                async with session.get(url, headers=headers, ssl=self._context(service)) as answer:
                    listed: Any = decode(await read_limited(answer, MAX_ANSWER))
        except (aiohttp.ClientError, OSError, ValueError, msgspec.DecodeError) as error:
            raise _unreachable(error) from None
        if not isinstance(listed, dict) or not isinstance(listed.get("resources"), list):
            raise _unavailable(f'the service of "{service.name}" gave no list of resources')
        self._discovered[group, version] = (time.monotonic() + DISCOVERY_SECONDS, listed)
        return listed

    async def fault(self, service: Service) -> str:
        """Return how a service fails to tell its resources, '' when it tells them.

        It is asked twice, as it answers nobody once it has failed: one that is only slow isn't gone.
        """
        return await self._fault(service) and await self._fault(service)

    async def _fault(self, service: Service) -> str:
        path = f"/apis/{service.group}/{service.version}"
        user = User("system:kube-aggregator", ("system:masters",))
        try:
            session, base = self._target(service)
            async with asyncio.timeout(5):
                target = _exact(base + path)
                headers = self._headers(None, user)
                async with session.get(target, headers=headers, ssl=self._context(service)) as answer:
                    if answer.status < 300:
                        return ""
                    why = f"bad status from {target}: {answer.status}"
        except (aiohttp.ClientError, OSError, ValueError, StatusError) as error:
            why = str(error) or type(error).__name__
        return f"failing or missing response from https://{service.service}.{service.namespace}.svc{path}: {why}"


_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    500: "InternalError",
    503: "ServiceUnavailable",
}


def _remember_refusals() -> aiohttp.TraceConfig:
    """Return what keeps the answer of a server that refuses an upgrade; aiohttp gives nothing but its status."""

    async def ended(_session: Any, _context: Any, request: aiohttp.TraceRequestEndParams) -> None:
        answer = request.response
        if "upgrade" in request.headers and answer.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            _refusal.set(b"")
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with asyncio.timeout(READ_SECONDS):
                    _refusal.set(await read_limited(answer, MAX_ANSWER))

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(ended)
    return trace


def _refused(error: aiohttp.WSServerHandshakeError) -> StatusError:
    """Return the answer to a user whose upgrade was refused: the server's own, if that is a Status."""
    code = error.status if error.status >= 400 else 502
    try:
        status: Any = decode(_refusal.get())
    except (ValueError, msgspec.DecodeError):
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status" and status.get("message"):
        return StatusError(code, str(status.get("reason") or ""), str(status["message"]), status.get("details"))
    return StatusError(code, _REASONS.get(code, ""), error.message or "the upgrade was refused")


def _check_available(service: Service) -> None:
    if not service.available:
        raise _unavailable("service unavailable", unseen=True)


def _exact(url: str) -> URL:
    return URL(url, encoded=True)


def _address(base: str, request: web.BaseRequest) -> URL:
    # What was authorized: as it came it may have a host before the path (RFC 9112, section 3.2.2).
    return _exact(base + request.rel_url.raw_path_qs)


def _unreachable(error: Exception) -> StatusError:
    return _unavailable(f"error trying to reach service: {error}", isinstance(error, aiohttp.ClientConnectorError))


def _unavailable(why: str, unseen: bool = False) -> StatusError:
    """Return a 503; clients may try again only what the service has ``unseen``: else it may be done already."""
    return StatusError(503, "ServiceUnavailable", why, {"retryAfterSeconds": 1} if unseen else None)


async def _pass_back(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status)
    for name, value in answer.headers.items():
        if name.lower() not in _HOP:
            response.headers.add(name, value)
    # As all that this server answers, unless the service behind knows better.
    response.headers.setdefault("Cache-Control", "no-cache, private")
    length = answer.headers.get("Content-Length")
    if length is not None:
        response.content_length = int(length)
    elif answer.status not in (204, 304):
        response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
    except (aiohttp.ClientError, OSError) as error:
        # It has begun, so all that can be reported is that it isn't whole.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionAbortedError(str(error)) from None
    return response


async def _pump(source: Any, sink: Any) -> None:
    async for message in source:
        if message.type == aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)
        elif message.type == aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)
