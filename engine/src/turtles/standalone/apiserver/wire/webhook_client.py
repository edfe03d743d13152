# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls of webhooks, whatever they are asked: where they are, whom to trust, how long to wait."""

import asyncio
import base64
import ssl
from typing import Any

import aiohttp

from turtles.standalone.apiserver.wire import bodies
from turtles.standalone.apiserver.wire.endpoints import Endpoint, Objects, PinnedResolver, resolve
from turtles.standalone.apiserver.wire.errors import Object

#: Largest answer of a webhook, in bytes.
MAX_ANSWER = 64 * 1024 * 1024


class WebhookError(Exception):
    """A webhook couldn't be asked, or gave an answer that can't be used; the text is what client-go says."""


class UnusableClient(WebhookError):
    """A webhook that can't even be called, for what its configuration says."""


class WebhookClient:
    """Posts reviews to webhooks; keeps connections."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._sessions: dict[tuple[str, str, int], aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close connections."""
        for session in self._sessions.values():
            await session.close()

    async def post(self, client: Object, review: Object, seconds: float) -> Any:
        """Return what a webhook answers.

        :param client: its clientConfig.
        :param seconds: how long it may take.
        :raises WebhookError: it can't be asked, or doesn't answer with JSON and status 200 in time.
        """
        url, endpoint = self._target(client)
        url += f"{'&' if '?' in url else '?'}timeout={seconds:g}s"
        try:
            async with asyncio.timeout(seconds):
                return await self._post(url, endpoint, client.get("caBundle") or "", review)
        except TimeoutError:
            raise WebhookError(f'Post "{url}": context deadline exceeded') from None
        except aiohttp.ClientConnectorCertificateError as error:
            why = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
            raise WebhookError(f'Post "{url}": tls: failed to verify certificate: x509: {why}') from None
        except aiohttp.ClientConnectorError as error:
            raise WebhookError(f'Post "{url}": {_reason(error, endpoint)}') from None
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise WebhookError(f'Post "{url}": {error or type(error).__name__}') from None
        except ValueError as error:
            raise WebhookError(f"the answer can't be read: {error}") from None

    def _target(self, client: Object) -> tuple[str, Endpoint | None]:
        if client.get("url"):
            return str(client["url"]), None
        service = client["service"]
        namespace, name, port = service["namespace"], service["name"], service.get("port", 443)
        endpoint = resolve(self._objects, namespace, name, port)
        if endpoint is None:
            if all(self._objects.read(one, namespace, name) is None for one in ("/services", "/endpoints")):
                raise WebhookError(f'service "{name}" not found')
            raise WebhookError(f'no endpoints available for service "{name}"')
        return f"https://{name}.{namespace}.svc:{port}/{(service.get('path') or '').lstrip('/')}", endpoint

    async def _post(self, url: str, endpoint: Endpoint | None, bundle: str, review: Object) -> Any:
        session = self._session(bundle, endpoint)
        async with session.post(url, json=review, ssl=self._context(bundle), allow_redirects=False) as answer:
            raw = bytearray()
            async for chunk in answer.content.iter_any():
                raw += chunk
                if len(raw) > MAX_ANSWER:
                    raise WebhookError(f"the answer has more than {MAX_ANSWER} bytes")
            if answer.status != 200:
                # As client-go has it: what isn't called text isn't shown.
                shown = raw[:1024].decode(errors="replace").strip() if answer.content_type.startswith("text/") else ""
                text = shown or "unknown"
                raise WebhookError(
                    f'an error on the server ("{text}") has prevented the request from succeeding'
                    if answer.status >= 500
                    else f"the webhook answered with status {answer.status}"
                )
            try:
                return bodies.parse_json(bytes(raw))
            except bodies.Unreadable as error:
                raise WebhookError(str(error)) from None

    def _session(self, bundle: str, endpoint: Endpoint | None) -> aiohttp.ClientSession:
        key = (bundle, *(endpoint if endpoint else ("", 0)))
        session = self._sessions.get(key)
        if session is None or session.closed:
            resolver = PinnedResolver(endpoint) if endpoint else None
            connector = aiohttp.TCPConnector(resolver=resolver, limit=64, keepalive_timeout=60)
            session = self._sessions[key] = aiohttp.ClientSession(connector=connector, trust_env=False)
        return session

    def _context(self, bundle: str) -> ssl.SSLContext:
        context = self._contexts.get(bundle)
        if context is None:
            if bundle:
                try:
                    context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
                except (ValueError, ssl.SSLError):
                    text = "unable to load root certificates: unable to parse bytes as PEM block"
                    raise UnusableClient(f"could not get REST client: {text}") from None
            else:
                context = ssl.create_default_context()
            self._contexts[bundle] = context
        return context


def _reason(error: aiohttp.ClientConnectorError, endpoint: Endpoint | None) -> str:
    address = f"{endpoint.address}:{endpoint.port}" if endpoint else f"{error.host}:{error.port}"
    inner = error.os_error
    if isinstance(inner, ConnectionRefusedError):
        return f"dial tcp {address}: connect: connection refused"
    return f"dial tcp {address}: {inner.strerror or inner}"
