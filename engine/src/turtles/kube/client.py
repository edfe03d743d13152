# SPDX-License-Identifier: GPL-3.0-or-later
"""A small, thread-safe client of the Kubernetes API: plain dicts in, plain dicts out.

Configuration, credentials, TLS and the connection pool are the official client's (``kubernetes.config``,
``ApiClient`` and its urllib3 pool). Its generated methods are not used: they turn every answer into model objects,
where controllers want the JSON as it is, and know no custom resources.
"""

import contextlib
import logging
import os
import random
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from http.client import responses
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError

from turtles import __version__
from turtles.api.objects import Object
from turtles.errors import ConfigurationError
from turtles.kube import errors
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
    "ConfigError",
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

#: Patch kinds: JSON merge patch (RFC 7386), a dict; JSON patch (RFC 6902), a list of operations.
MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"

#: Seconds without an answer after which a request counts as lost.
REQUEST_TIMEOUT = 30.0
#: Seconds a request keeps trying to reach a server that is down or overloaded.
RETRY_FOR = 10.0
#: First and longest pause between two tries, seconds. The longest bounds how late a returning server is noticed.
BACKOFF = (0.02, 0.3)
#: A peer that vanished without a word (power, firewall) is found within half a minute, also on a silent watch.
_KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000),
]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class ConfigError(ConfigurationError):
    """The kubeconfig cannot be used; the message says which and why."""


class WatchStream:
    """An open watch: iterate over ``(type, object)``; it ends when the server or :meth:`close` ends it."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
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
        except (HTTPError, OSError) as error:
            raise Unavailable(0, "", f"the watch was interrupted: {error}") from error
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            # Besides garbage this is what a read on a connection looks like that was shut down in the meantime.
            raise Unavailable(0, "", f"the watch sent something other than an event: {error}") from error
        finally:
            self._response.close()

    def close(self) -> None:
        """End the watch; may be called from any thread."""
        with contextlib.suppress(HTTPError, OSError, ValueError, RuntimeError):
            self._response.shutdown()


# Folders with client certificates; they go when the process ends.
_certificates: list[tempfile.TemporaryDirectory[str]] = []


class Client:
    """The API server as seen by one component; any number of threads may share it.

    Methods take the object's namespace before its name (None for cluster-scoped kinds) and raise
    :class:`ApiError` subclasses. What a connection failure leaves undecided is not repeated: a read always is, a
    write only when the server cannot have seen it.
    """

    def __init__(
        self,
        api: ApiClient,
        *,
        user_agent: str | None = None,
        timeout: float = REQUEST_TIMEOUT,
        retry_for: float = RETRY_FOR,
    ) -> None:
        """Create a client; it connects with the first request.

        :param api: the official client, configured.
        :param timeout: seconds to wait for one answer.
        :param retry_for: seconds to keep trying while the server is down or overloaded.
        """
        self._api = api
        self._pool: urllib3.PoolManager = api.rest_client.pool_manager
        self._timeout = timeout
        self._retry_for = retry_for
        self._user_agent = user_agent or f"turtles/{__version__}"
        #: How many requests were answered so far, by method and status.
        self.answers: Counter[tuple[str, int]] = Counter()
        self._counting = threading.Lock()

    @classmethod
    def from_kubeconfig(cls, path: str | os.PathLike[str] | None = None, **options: Any) -> "Client":
        """Create a client from a kubeconfig file; None takes the Pod's service account, or the default kubeconfig.

        :param options: passed to the constructor.
        :raises ConfigError: the configuration cannot be used.
        """
        settings = Configuration()
        settings.socket_options = _KEEPALIVE
        settings.connection_pool_maxsize = 32
        # The official client writes certificates that are in a kubeconfig to files and reads them again with every new
        # connection. Where the authority's is all there is, it is kept in memory: /tmp is cleaned by others.
        files = tempfile.TemporaryDirectory(prefix="turtles-")
        try:
            if path is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            else:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    path and os.fspath(path), client_configuration=settings, temp_file_path=files.name
                )
            if str(settings.ssl_ca_cert).startswith(files.name):
                settings.ca_cert_data = Path(str(settings.ssl_ca_cert)).read_text()
                settings.ssl_ca_cert = None
        except (ConfigException, OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot use {path or 'the default kubeconfig'}: {error}") from error
        if settings.cert_file or settings.key_file:
            _certificates.append(files)
        else:
            files.cleanup()
        return cls(ApiClient(settings), **options)

    @property
    def url(self) -> str:
        """The server's address, for messages."""
        return str(self._api.configuration.host)

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    # Objects

    def get(self, resource: Resource, namespace: str | None, name: str, *, subresource: str | None = None) -> Object:
        """Return an object.

        :raises NotFound: there is none of that name.
        """
        return self._object("GET", resource.path(namespace, name, subresource))

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
    ) -> Object:
        """Return the List object of a namespace (None: of all), with all its pages joined.

        :param limit: objects per page; None asks for one page.
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

    def create(
        self,
        resource: Resource,
        obj: Object,
        *,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
    ) -> Object:
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

    def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        kind: str = MERGE,
        subresource: str | None = None,
    ) -> Object:
        """Patch an object and return what was stored.

        :param body: a dict for MERGE, a list of operations for JSON. A ``metadata.resourceVersion`` (MERGE) or a
            ``test`` operation (JSON) is the precondition: Conflict or Invalid when it fails.
        """
        return self._object("PATCH", resource.path(namespace, name, subresource), body=body, content_type=kind)

    def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period: int | None = None,
        propagation: str | None = None,
    ) -> Object:
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

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        seconds: int = 300,
    ) -> WatchStream:
        """Open a watch on a connection of its own. Not retried: the caller knows whether to list again.

        :param resource_version: events after this one.
        :param seconds: the server is asked to end the watch after this time.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
        }
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        path = resource.path(namespace)
        # The server ends the watch itself; one that stays silent beyond that is gone.
        timeout = urllib3.Timeout(connect=self._timeout, read=seconds + 15)
        try:
            response = self._send("GET", path, query, None, None, timeout=timeout, preload_content=False)
            if response.status != 200:
                try:
                    raise self._error(response.status, response.read(), "GET", path)
                finally:
                    response.close()
        except (HTTPError, OSError) as error:
            raise Unavailable(0, "", f"{self.url}: {error}") from error
        return WatchStream(response)

    # Anything else the server serves

    def put_raw(self, path: str, body: Any = None) -> Any:
        """PUT a JSON body (or nothing) to a path, as the subresources of KubeVirt want it; returns decoded JSON."""
        return self.request("PUT", path, body=body)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Any:
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

    def _object(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        result = self.request(method, path, query=query, body=body, content_type=content_type)
        if not isinstance(result, dict):
            raise ApiError(0, "", f"{method} {path}: the server did not send a JSON object")
        return result

    def _try(
        self, method: str, path: str, query: Mapping[str, str] | None, payload: bytes | None, content_type: str
    ) -> tuple[Any, float | None]:
        """Send a request once.

        Returns (decoded answer, None), or (ApiError, seconds after which to try again, None for never).
        """
        try:
            response = self._send(method, path, query, payload, content_type)
        except (HTTPError, OSError) as error:
            failure = Unavailable(0, "", f"{method} {self.url}{path}: {error}")
            # A certificate that is refused now is refused in a second as well.
            hopeless = isinstance(error, SSLError)
            unseen = isinstance(error, NewConnectionError | ConnectTimeoutError) or method == "GET"
            return failure, 0.0 if unseen and not hopeless else None
        status, data = response.status, response.data
        if 200 <= status < 300:
            try:
                return (_decode(data) if data else None), None
            except msgspec.DecodeError:
                return data.decode(errors="replace"), None
        refusal = self._error(status, data, method, path)
        if status == 429 or (status in (502, 503, 504) and (method == "GET" or response.headers.get("Retry-After"))):
            return refusal, _seconds(response.headers.get("Retry-After"))
        return refusal, None

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        payload: bytes | None,
        content_type: str | None,
        *,
        timeout: urllib3.Timeout | None = None,
        preload_content: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        if payload is not None:
            headers["Content-Type"] = content_type or "application/json"
        self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, payload)
        target = f"{self.url}{path}?{urlencode(query)}" if query else f"{self.url}{path}"
        response = self._pool.request(
            method,
            target,
            body=payload,
            headers=headers,
            retries=False,
            redirect=False,
            timeout=timeout or urllib3.Timeout(self._timeout),
            preload_content=preload_content,
        )
        with self._counting:
            self.answers[method, response.status] += 1
        return response

    def _error(self, status: int, data: bytes, method: str, path: str) -> ApiError:
        try:
            body = _decode(data)
        except msgspec.DecodeError:
            body = None
        text = data.decode(errors="replace").strip()
        return errors.from_status(status, body, text or f"{method} {path}: {responses.get(status, '')}")


def _seconds(retry_after: str | None) -> float:
    """Seconds of a Retry-After header; it is a whole number in Kubernetes' answers."""
    try:
        return min(max(float(retry_after or 0), 0.0), RETRY_FOR)
    except ValueError:
        return 0.0
