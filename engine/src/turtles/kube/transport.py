# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to the API server and their answers as JSON, sent again where that is safe.

Credentials, TLS and the connection pool are the official client's.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from http.client import responses
from typing import Any
from urllib.parse import urlencode

import msgspec
import urllib3
from kubernetes.client import ApiClient
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError

from turtles import __version__
from turtles.api.objects import Object
from turtles.kube import errors
from turtles.kube.errors import ApiError, Unavailable

#: Seconds without an answer after which a request counts as lost.
REQUEST_TIMEOUT = 30.0
#: Seconds a request keeps trying to reach a server that is down or overloaded.
RETRY_FOR = 10.0
#: First and longest pause between two tries, seconds. The longest bounds how late a returning server is noticed.
BACKOFF = (0.02, 0.3)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Transport:
    """The way to the server; any number of threads may share it.

    What a connection failure leaves undecided is not repeated: a read always is, a write only when the server cannot
    have seen it.
    """

    def __init__(
        self,
        api: ApiClient,
        *,
        user_agent: str | None = None,
        timeout: float = REQUEST_TIMEOUT,
        retry_for: float = RETRY_FOR,
    ) -> None:
        """Create it; it connects with the first request.

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

    @property
    def url(self) -> str:
        """The server's address, for messages."""
        return str(self._api.configuration.host)

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

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

    def object(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send a request as :meth:`request` does; return the object that it is answered with."""
        result = self.request(method, path, query=query, body=body, content_type=content_type)
        if not isinstance(result, dict):
            raise ApiError(0, "", f"{method} {path}: the server did not send a JSON object")
        return result

    def stream(self, path: str, query: Mapping[str, str], *, silence: float) -> urllib3.BaseHTTPResponse:
        """Open a stream, on a connection of its own. Not retried.

        :param silence: seconds without data after which it counts as lost.
        :raises ApiError: it is refused, or (Unavailable) the server isn't reached.
        """
        timeout = urllib3.Timeout(connect=self._timeout, read=silence)
        try:
            response = self._send("GET", path, query, None, None, timeout=timeout, preload_content=False)
            if response.status != 200:
                try:
                    raise self._error(response.status, response.read(), "GET", path)
                finally:
                    response.close()
        except (HTTPError, OSError) as error:
            raise Unavailable(0, "", f"{self.url}: {error}") from error
        return response

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
