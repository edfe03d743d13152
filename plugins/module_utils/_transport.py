# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Requests to an API server and their answers as JSON.

They go over the connection pool of urllib3, as those of the official package do, without any generated models, because
modules pass through whatever fields a server has.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
from urllib.parse import urlencode, urlsplit

from ansible.module_utils.common.text.converters import to_text

from ._configuration import CONNECTIONS, configuration_of, load_library
from ._errors import ApiError, KubeError
from ._kubeconfig import PlainConfiguration
from ._stream import Refused, Stream
from ._values import from_json

try:
    import urllib3

    HAS_URLLIB3 = True
except ImportError:  # the Kubernetes library, which brings it, is missing; see load_library()
    HAS_URLLIB3 = False

CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
# How often a request is repeated that the server asks to repeat, and how long a pause it may ask for, in seconds.
ASKED_TO_COME_AGAIN = 10
LONGEST_PAUSE = 5
# A warning of an API server (KEP-1693): code, agent and text of a Warning header (RFC 7234, section 5.5).
WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
# How urllib3 begins its messages: with the address, which ours name already.
_CONNECTION = re.compile(r"^\S*HTTPS?Connection.*?[)>]: ")


class _Retry(urllib3.Retry if HAS_URLLIB3 else object):
    """Repeats a request; a server that asks for a long pause doesn't hold up the task beyond its own timeouts."""

    def get_retry_after(self, response):
        pause = super().get_retry_after(response)
        return pause if pause is None else min(pause, LONGEST_PAUSE)


class Transport:
    """A connection to one API server as one user, which keeps its connections alive.

    Threads may share it: its connection pool is urllib3's.
    """

    def __init__(self, options):
        self._configuration, self.origin, self.credentials = configuration_of(options)
        self.host = self._configuration.host
        self._pool = self._connections()
        self._options = options
        self._warnings = []

    def request(self, method, path, query=None, body=None, content_type="application/json"):
        """Return the answer's JSON as a dict, or None for an empty body.

        :raises KubeError: the request failed; ApiError if the server refused it.
        """
        data = self._exchange(method, path, query, body, content_type)
        if not data:
            return None
        try:
            return from_json(data)
        except ValueError as exc:
            raise KubeError(
                "%s %s%s answered with something that isn't JSON: %s"
                % (method, self.host, path, to_text(data[:200], errors="replace"))
            ) from exc

    def read(self, path, query=None):
        """Return the answer's body as it is, for what isn't JSON.

        :raises KubeError: the request failed; ApiError if the server refused it.
        """
        return self._exchange("GET", path, query)

    def stream(self, path, protocol):
        """Return a connected Stream.

        :param protocol: name of what is spoken over it.
        :raises KubeError: that isn't possible; ApiError if the server refused it.
        """
        configuration = self._configuration
        # Kubelets answer 406 to clients that accept JSON alone.
        headers = ["%s: %s" % pair for pair in {**self._headers(), "Accept": "*/*"}.items()]
        headers += ["Impersonate-Group: %s" % group for group in self._options.get("impersonate_groups") or []]
        proxy = urlsplit(configuration.proxy or "")
        options = {
            "header": headers,
            "sslopt": self._tls() if self.host.startswith("https:") else {},
            "timeout": CONNECT_TIMEOUT,
            "http_proxy_host": proxy.hostname,
            "http_proxy_port": proxy.port,
            "http_no_proxy": configuration.no_proxy.split(",") if configuration.no_proxy else None,
        }
        try:
            return Stream("ws%s%s" % (self.host.removeprefix("http"), path), protocol, options)
        except Refused as exc:
            raise self._refused(exc.status, exc.body, "GET", path) from exc
        except ModuleNotFoundError as exc:
            raise KubeError(str(exc)) from exc
        except OSError as exc:
            raise self._unreachable(exc) from exc

    def events(self, path, query, timeout, opened=None):
        """Yield (type, object) of a watch until the server or the timeout (seconds) ends it.

        :param opened: called with the response, so that another thread can end the watch by its shutdown().
        """
        until = time.monotonic() + timeout
        response = self._send("GET", path, query, timeout=max(0.05, timeout))
        if opened:
            opened(response)
        buffer = b""
        try:
            if response.status >= 300:
                raise self._error(response, "GET", path)
            for chunk in response.stream(65536):
                buffer += chunk
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    if not line.strip():
                        continue
                    event = from_json(line)
                    if event.get("type") == "ERROR":
                        return
                    yield event.get("type"), event.get("object") or {}
                if time.monotonic() >= until:
                    return
        except (urllib3.exceptions.HTTPError, ValueError, OSError):
            # Read timeouts and broken connections: an ended watch like any other.
            return
        finally:
            # The connection has an unread stream on it and can't be used again.
            response.close()

    def warnings(self):
        """Return what the server warned about on writes, such as fields it doesn't know, each once."""
        heard, self._warnings = list(dict.fromkeys(self._warnings)), []
        return heard

    def _connections(self):
        """Return the pool of connections."""
        configuration = self._configuration
        if not configuration.verify_ssl:
            # The user has chosen that; urllib3 would say it for each request, in the middle of the play's output.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        if not isinstance(configuration, PlainConfiguration):
            return load_library().client.rest.RESTClientObject(configuration).pool_manager
        if not self.host.startswith("https:"):
            return urllib3.PoolManager(maxsize=CONNECTIONS)
        return urllib3.PoolManager(maxsize=CONNECTIONS, ssl_context=self._tls()["context"])

    def _tls(self):
        """Return how the server is verified and who asks it, in the terms of the package websocket-client."""
        configuration = self._configuration
        if isinstance(configuration, PlainConfiguration):
            try:
                return {"context": configuration.context()}
            except ValueError as exc:
                raise KubeError("The certificates of %s can't be used: %s" % (self.origin, exc)) from exc
        files = {
            "ca_certs": configuration.ssl_ca_cert,
            "certfile": configuration.cert_file,
            "keyfile": configuration.key_file,
        }
        return {
            "cert_reqs": ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE,
            "check_hostname": bool(configuration.verify_ssl),
            **{name: path for name, path in files.items() if path},
        }

    def _headers(self):
        headers = {"Accept": "application/json", "User-Agent": "turtles.kubevirt"}
        bearer = self._configuration.auth_settings().get("BearerToken")
        if bearer and bearer.get("value"):
            # Some versions of the package keep the word Bearer apart, some don't.
            value = bearer["value"]
            word, space, token = value.partition(" ")
            token = token if space and word.lower() == "bearer" else value
            headers["Authorization"] = "Bearer %s" % self._in_header("token", token.strip(), hidden=True)
        username = self._options.get("username") or self._configuration.username
        if username and "Authorization" not in headers:
            pair = "%s:%s" % (username, self._options.get("password") or self._configuration.password or "")
            headers["Authorization"] = "Basic %s" % base64.b64encode(pair.encode()).decode()
        if self._options.get("impersonate_user"):
            headers["Impersonate-User"] = self._in_header("impersonate_user", self._options["impersonate_user"])
        return headers

    def _in_header(self, what, value, hidden=False):
        """Return a value as it goes into a header: UTF-8, as the API server reads it.

        :raises KubeError: it can't be in one.
        """
        if any(ord(character) < 32 or ord(character) == 127 for character in value):
            # Most often the line break at the end of a file, or a second line.
            shown = "" if hidden else " %r" % value
            raise KubeError(
                "%s (from %s): the value%s has a line break or the like in it." % (what, self.origin, shown)
            )
        return value.encode().decode("latin-1")

    def _send(self, method, path, query=None, body=None, content_type="application/json", timeout=READ_TIMEOUT):
        fields = urllib3.HTTPHeaderDict(self._headers())
        for group in self._options.get("impersonate_groups") or []:
            fields.add("Impersonate-Group", self._in_header("impersonate_groups", group))
        data = None
        if body is not None:
            fields["Content-Type"] = content_type
            data = json.dumps(body).encode()
        url = self.host + path
        pairs = [(name, value) for name, value in (query or {}).items() if value is not None]
        if pairs:
            url += "?" + urlencode(pairs)
        # Only reads may be repeated when no answer came: a write whose answer got lost may have happened. One that is
        # answered with 429 or 503 and Retry-After hasn't, and the server says when to come again.
        lost = 2 if method == "GET" else 0
        retries = _Retry(
            total=ASKED_TO_COME_AGAIN,
            connect=lost,
            read=lost,
            other=lost,
            redirect=0,
            allowed_methods=None,
            backoff_factor=0.2,
            raise_on_status=False,
        )
        try:
            return self._pool.request(
                method,
                url,
                headers=fields,
                body=data,
                retries=retries,
                preload_content=False,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=timeout),
            )
        except urllib3.exceptions.HTTPError as exc:
            raise self._unreachable(exc) from exc

    def _has_certificate(self):
        return bool(self._configuration.cert_file or getattr(self._configuration, "cert_data", None))

    def _unreachable(self, exc):
        cause = getattr(exc, "reason", None) or exc
        text = _CONNECTION.sub("", to_text(cause))
        if "CERTIFICATE_VERIFY_FAILED" in text:
            remedy = "Set ca_cert to the authority that signed the server's certificate."
        elif "WRONG_VERSION_NUMBER" in text:
            remedy = "What listens there doesn't speak TLS: check the port."
        elif "PEM lib" in text:
            remedy = (
                "The client certificate or its key is no PEM file, or they don't belong together: check client_cert "
                "and client_key (client-certificate, client-key)."
            )
        elif self._has_certificate() and ("ALERT" in text or "Connection aborted" in text):
            remedy = (
                "Perhaps the server refuses the client certificate: check that it is this cluster's, and still valid."
            )
        elif "refused" in text or "timed out" in text:
            remedy = "Check that the API server runs and that the address is right."
        else:
            remedy = "Check the address, the network and the proxy settings."
        return KubeError(
            "The Kubernetes API at %s (from %s) can't be reached: %s. %s" % (self.host, self.origin, text, remedy)
        )

    def _error(self, response, method, path):
        return self._refused(response.status, response.read(), method, path)

    def _refused(self, status, data, method, path):
        try:
            body = from_json(data)
        except ValueError:
            body = {"message": to_text(data[:500])}
        error = ApiError(status, body if isinstance(body, dict) else {}, method, path)
        if status == 401:
            if not self.credentials:
                raise KubeError(
                    "The Kubernetes API at %s (from %s) needs credentials, but none are given (401 Unauthorized). Give "
                    "api_key, client_cert and client_key, or a kubeconfig." % (self.host, self.origin),
                    status=401,
                    reason=error.reason or "Unauthorized",
                )
            raise KubeError(
                "The Kubernetes API at %s doesn't accept the credentials of %s (401 Unauthorized). "
                "Check the token or the client certificate." % (self.host, self.credentials),
                status=401,
                reason=error.reason or "Unauthorized",
            )
        return error

    def _exchange(self, method, path, query=None, body=None, content_type="application/json"):
        response = self._send(method, path, query, body, content_type)
        try:
            if response.status >= 300:
                raise self._error(response, method, path)
            data = response.read()
        except urllib3.exceptions.HTTPError as exc:
            raise self._unreachable(exc) from exc
        finally:
            response.release_conn()
        if method != "GET":
            warnings = WARNING.findall(response.headers.get("Warning") or "")
            texts = [re.sub(r"\\(.)", r"\1", text) for text in warnings]
            # They are UTF-8, which the HTTP library doesn't take headers for.
            self._warnings += [text.encode("latin-1", "replace").decode(errors="replace") for text in texts]
        return data
