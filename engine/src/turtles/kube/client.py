# SPDX-License-Identifier: GPL-3.0-or-later
"""A small, thread-safe client of the Kubernetes API: plain dicts in, plain dicts out.

It speaks HTTP/1.1 over pooled keep-alive connections of the standard library. The official client is not used on
this path: importing it costs half a second and 30 MB a process, and it turns every answer into model objects,
where controllers want the JSON as it is.
"""

import contextlib
import http.client
import logging
import os
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from turtles import __version__
from turtles.kube import errors
from turtles.kube.config import ServerConfig, load_config
from turtles.kube.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Unauthorized,
    Unavailable,
)
from turtles.kube.resources import Resource

__all__ = [
    "JSON",
    "MERGE",
    "AlreadyExists",
    "ApiError",
    "BadRequest",
    "Client",
    "Conflict",
    "Forbidden",
    "Gone",
    "Invalid",
    "NotFound",
    "Unauthorized",
    "Unavailable",
    "WatchStream",
]

log = logging.getLogger(__name__)

#: A Kubernetes object, or any other JSON object of the API.
Object = dict[str, Any]

#: Patch kinds: JSON merge patch (RFC 7386), a dict; JSON patch (RFC 6902), a list of operations.
MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"

#: Seconds without an answer after which a request counts as lost.
REQUEST_TIMEOUT = 30.0
#: Seconds a request keeps trying to reach a server that is down or overloaded.
RETRY_FOR = 10.0
#: First and longest pause between two tries, seconds. The longest bounds how late a returning server is noticed.
BACKOFF = (0.02, 0.3)
#: Idle connections kept for later requests.
_POOL_SIZE = 16
#: Seconds after which an idle connection is not trusted any more.
_MAX_IDLE = 60.0

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

_LOST = (OSError, http.client.HTTPException)


class _Connection(http.client.HTTPConnection):
    """One connection to the API server, plain or TLS, whose death the kernel notices."""

    def __init__(self, config: ServerConfig, timeout: float) -> None:
        super().__init__(config.host, config.port, timeout=timeout)
        self._config = config
        self.idle_since = 0.0

    def connect(self) -> None:
        super().connect()
        sock = self.sock
        # A peer that vanished without a word (power, firewall) is found within half a minute, also on a silent watch.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)
        if self._config.tls is not None:
            name = self._config.tls_server_name or self._config.host
            self.sock = self._config.tls.wrap_socket(sock, server_hostname=name)

    def usable(self) -> bool:
        """Whether the idle connection is still open: a server that closed it made it readable."""
        if self.sock is None or time.monotonic() - self.idle_since > _MAX_IDLE:
            return False
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        return not poller.poll(0)

    def abort(self) -> None:
        """Wake up a thread that waits in a read on this connection, from another thread."""
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket.shutdown: it takes the TLS state away under the reading thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class WatchStream:
    """An open watch: iterate over ``(type, object)``; it ends when the server or :meth:`close` ends it."""

    def __init__(self, connection: _Connection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        """Yield events: ADDED, MODIFIED, DELETED, BOOKMARK with their object.

        :raises Gone: the resourceVersion is no longer kept.
        :raises ApiError: any other ERROR event.
        :raises Unavailable: the connection broke.
        """
        pending = b""
        try:
            while True:
                data = self._response.read1(1 << 16)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    if not line.strip():
                        continue
                    event = _decode(line)
                    kind, obj = event["type"], event["object"]
                    if kind == "ERROR":
                        raise errors.from_status(int(obj.get("code") or 500), obj, "the watch failed")
                    yield kind, obj
        except _LOST as error:
            raise Unavailable(0, "", f"the watch broke: {error}") from error
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            # Besides garbage this is what a read on a connection looks like that was aborted meanwhile.
            raise Unavailable(0, "", f"the watch sent no event: {error}") from error
        finally:
            self._connection.close()

    def close(self) -> None:
        """End the watch; may be called from any thread."""
        self._connection.abort()


class Client:
    """The API server as seen by one component; any number of threads may share it.

    Methods take the object's namespace before its name (None for cluster-scoped kinds) and raise
    :class:`ApiError` subclasses. What a connection failure leaves undecided is not repeated: a read always is, a
    write only when the server cannot have seen it.
    """

    def __init__(self, config: ServerConfig, *, user_agent: str | None = None, timeout: float = REQUEST_TIMEOUT,
                 retry_for: float = RETRY_FOR) -> None:
        """Make a client; it connects with the first request.

        :param timeout: seconds to wait for one answer.
        :param retry_for: seconds to keep trying while the server is down or overloaded.
        """
        self._config = config
        self._timeout = timeout
        self._retry_for = retry_for
        self._user_agent = user_agent or f"turtles/{__version__}"
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()

    @classmethod
    def from_kubeconfig(cls, path: str | os.PathLike[str] | None = None, **options: Any) -> "Client":
        """Make a client from a kubeconfig file; see :func:`turtles.kube.config.load_config` for None.

        :param options: passed to the constructor.
        :raises turtles.kube.config.ConfigError: the file cannot be used.
        """
        return cls(load_config(path), **options)

    @property
    def url(self) -> str:
        """The server's address, for messages."""
        return self._config.url

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # Objects

    def get(self, resource: Resource, namespace: str | None, name: str, *, subresource: str | None = None) -> Object:
        """Return an object. Raises NotFound."""
        return self._object("GET", resource.path(namespace, name, subresource))

    def list(self, resource: Resource, namespace: str | None = None, *, label_selector: str | None = None,
             field_selector: str | None = None, limit: int | None = None) -> Object:
        """Return the List object of a namespace (None: of all), with all its pages joined.

        :param limit: objects a page; None asks for one page.
        """
        query: dict[str, str] = {}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        if limit:
            query["limit"] = str(limit)
        path = resource.path(namespace)
        result = self._object("GET", path, query=query)
        items = result.get("items")
        result["items"] = items = items if items is not None else []
        while token := (result.get("metadata") or {}).get("continue"):
            page = self._object("GET", path, query={**query, "continue": token})
            items.extend(page.get("items") or ())
            result["metadata"] = page.get("metadata") or {}
        for item in items:
            # Built-in kinds leave these out in lists; consumers should not have to care where an object came from.
            item.setdefault("kind", resource.kind)
            item.setdefault("apiVersion", resource.api_version)
        return result

    def create(self, resource: Resource, obj: Object, *, namespace: str | None = None, name: str | None = None,
               subresource: str | None = None) -> Object:
        """Create an object (or POST to a subresource such as ``binding``, with ``name``) and return what was stored.

        :param namespace: defaults to the object's own.
        """
        namespace = namespace or (obj.get("metadata") or {}).get("namespace")
        return self._object("POST", resource.path(namespace, name, subresource), body=obj)

    def replace(self, resource: Resource, obj: Object, *, subresource: str | None = None) -> Object:
        """Replace an object by one of the same name; its resourceVersion, if any, is the precondition."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        return self._object("PUT", path, body=obj)

    def patch(self, resource: Resource, namespace: str | None, name: str, body: Any, *, kind: str = MERGE,
              subresource: str | None = None) -> Object:
        """Patch an object and return what was stored.

        :param body: a dict for MERGE, a list of operations for JSON. A ``metadata.resourceVersion`` (MERGE) or a
            ``test`` operation (JSON) is the precondition: Conflict or Invalid when it fails.
        """
        return self._object("PATCH", resource.path(namespace, name, subresource), body=body, content_type=kind)

    def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str | None = None,
               resource_version: str | None = None, grace_period: int | None = None,
               propagation: str | None = None) -> Object:
        """Ask for an object's deletion; returns the object on its way out, or a Status.

        :param uid: precondition; Conflict if the name belongs to another object by now.
        :param grace_period: seconds; None leaves it to the object.
        :param propagation: Background, Foreground or Orphan.
        """
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if any(preconditions.values()):
            options["preconditions"] = {key: value for key, value in preconditions.items() if value}
        if grace_period is not None:
            options["gracePeriodSeconds"] = grace_period
        if propagation:
            options["propagationPolicy"] = propagation
        return self._object("DELETE", resource.path(namespace, name), body=options)

    def watch(self, resource: Resource, namespace: str | None = None, *, resource_version: str,
              label_selector: str | None = None, field_selector: str | None = None, seconds: int = 300) -> WatchStream:
        """Open a watch on a connection of its own. Not retried: the caller knows whether to list again.

        :param resource_version: events after this one.
        :param seconds: the server is asked to end the watch after this time.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": resource_version,
                 "timeoutSeconds": str(seconds)}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        connection = _Connection(self._config, self._timeout)
        try:
            response = self._send(connection, "GET", resource.path(namespace), query, None, None)
            if response.status != 200:
                raise self._error(response.status, response.read(), "GET", resource.path(namespace))
            # The server ends the watch itself; one that stays silent beyond that is gone.
            connection.sock.settimeout(seconds + 15)
        except _LOST as error:
            connection.close()
            raise Unavailable(0, "", f"{self.url}: {error}") from error
        except ApiError:
            connection.close()
            raise
        return WatchStream(connection, response)

    # Anything else the server serves

    def put_raw(self, path: str, body: Any = None) -> Any:
        """PUT a JSON body (or nothing) to a path, as the subresources of KubeVirt want it; returns decoded JSON."""
        return self.request("PUT", path, body=body)

    def request(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None,
                content_type: str = "application/json") -> Any:
        """Send one request, retried where that is safe, and return the decoded JSON (None for an empty answer).

        :raises Unavailable: no answer, or the server stays overloaded, for ``retry_for`` seconds.
        :raises ApiError: every other answer that is not 2xx.
        """
        payload = None if body is None else _encode(body)
        deadline = time.monotonic() + self._retry_for
        pause = BACKOFF[0]
        while True:
            error, again_in = self._try(method, path, query, payload, content_type)
            if not isinstance(error, ApiError):
                return error
            if again_in is None or time.monotonic() + again_in > deadline:
                raise error
            time.sleep(max(again_in, pause * random.uniform(0.5, 1.0)))  # noqa: S311
            pause = min(pause * 2, BACKOFF[1])

    def _object(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None,
                content_type: str = "application/json") -> Object:
        result = self.request(method, path, query=query, body=body, content_type=content_type)
        if not isinstance(result, dict):
            raise ApiError(0, "", f"{method} {path}: the server sent no JSON object")
        return result

    def _try(self, method: str, path: str, query: Mapping[str, str] | None, payload: bytes | None,
             content_type: str) -> tuple[Any, float | None]:
        """Send a request once.

        Returns (decoded answer, None), or (ApiError, seconds after which to try again, None for never).
        """
        connection, fresh = self._take()
        connected = False
        try:
            if fresh:
                connection.connect()
            connected = True
            response = self._send(connection, method, path, query, payload, content_type)
            data = response.read()
        except _LOST as error:
            connection.close()
            failure = Unavailable(0, "", f"{method} {self.url}{path}: {error}")
            # A certificate that is refused now is refused in a second as well.
            hopeless = isinstance(error, ssl.SSLCertVerificationError)
            unseen = not connected or method == "GET"
            return failure, 0.0 if unseen and not hopeless else None
        self._give_back(connection, response)
        status = response.status
        if 200 <= status < 300:
            try:
                return (_decode(data) if data else None), None
            except msgspec.DecodeError:
                return data.decode(errors="replace"), None
        failure_ = self._error(status, data, method, path)
        if status == 429 or (status in (502, 503, 504) and (method == "GET" or response.headers.get("Retry-After"))):
            return failure_, _seconds(response.headers.get("Retry-After"))
        return failure_, None

    def _send(self, connection: _Connection, method: str, path: str, query: Mapping[str, str] | None,
              payload: bytes | None, content_type: str | None) -> http.client.HTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        authorization = self._config.authorization()
        if authorization:
            headers["Authorization"] = authorization
        if payload is not None:
            headers["Content-Type"] = content_type or "application/json"
        target = self._config.prefix + path
        if query:
            target += f"?{urlencode(query)}"
        connection.request(method, target, body=payload, headers=headers)
        return connection.getresponse()

    def _error(self, status: int, data: bytes, method: str, path: str) -> ApiError:
        try:
            body = _decode(data)
        except msgspec.DecodeError:
            body = None
        text = data.decode(errors="replace").strip()
        return errors.from_status(status, body, text or f"{method} {path}: {http.client.responses.get(status, '')}")

    def _take(self) -> tuple[_Connection, bool]:
        """Return a connection and whether it has yet to be opened."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return _Connection(self._config, self._timeout), True
            if connection.usable():
                return connection, False
            connection.close()

    def _give_back(self, connection: _Connection, response: http.client.HTTPResponse) -> None:
        if response.will_close or not response.isclosed():
            connection.close()
            return
        connection.idle_since = time.monotonic()
        with self._lock:
            if len(self._idle) < _POOL_SIZE:
                self._idle.append(connection)
                return
        connection.close()


def _seconds(retry_after: str | None) -> float:
    """Seconds of a Retry-After header; it is a whole number in Kubernetes' answers."""
    try:
        return min(max(float(retry_after or 0), 0.0), RETRY_FOR)
    except ValueError:
        return 0.0
