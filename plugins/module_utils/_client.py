# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Kubernetes API as plain dicts.

The official package loads the configuration (kubeconfig, exec plugins, tokens, in-cluster service accounts) and makes
the TLS and proxy settings; requests then go over its connection pool without any generated models, because modules
pass through whatever fields a server has.
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import time
import traceback
from urllib.parse import urlencode, urlsplit

from ansible.module_utils.basic import env_fallback, missing_required_lib
from ansible.module_utils.common.text.converters import to_text

from ._stream import Refused, Stream
from ._values import type_name

try:
    import urllib3

    from ._kubeconfig import PlainConfiguration, plain_configuration

    HAS_URLLIB3 = True
except ImportError:  # the Kubernetes library, which brings both packages, is missing; see load_library()
    HAS_URLLIB3 = False

MERGE_PATCH = "application/merge-patch+json"
CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
# How often a request is repeated that the server asks to repeat, and how long a pause it may ask for, in seconds.
ASKED_TO_COME_AGAIN = 10
LONGEST_PAUSE = 5
PAGE_SIZE = 500
# Connections to one server that are kept: a fleet has more than a few requests in flight.
CONNECTIONS = 100
# A warning of an API server (KEP-1693): code, agent and text of a Warning header (RFC 7234, section 5.5).
WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
# How urllib3 begins its messages: with the address, which ours name already.
_CONNECTION = re.compile(r"^\S*HTTPS?Connection.*?[)>]: ")

AUTH_ARGUMENTS = {
    "kubeconfig": {"type": "raw", "fallback": (env_fallback, ["K8S_AUTH_KUBECONFIG"])},
    "context": {"type": "str", "fallback": (env_fallback, ["K8S_AUTH_CONTEXT"])},
    "host": {"type": "str", "fallback": (env_fallback, ["K8S_AUTH_HOST"])},
    "api_key": {"type": "str", "no_log": True, "fallback": (env_fallback, ["K8S_AUTH_API_KEY"])},
    "username": {"type": "str", "fallback": (env_fallback, ["K8S_AUTH_USERNAME"])},
    "password": {"type": "str", "no_log": True, "fallback": (env_fallback, ["K8S_AUTH_PASSWORD"])},
    "validate_certs": {
        "type": "bool",
        "aliases": ["verify_ssl"],
        "fallback": (env_fallback, ["K8S_AUTH_VERIFY_SSL"]),
    },
    "ca_cert": {"type": "path", "aliases": ["ssl_ca_cert"], "fallback": (env_fallback, ["K8S_AUTH_SSL_CA_CERT"])},
    "client_cert": {"type": "path", "aliases": ["cert_file"], "fallback": (env_fallback, ["K8S_AUTH_CERT_FILE"])},
    "client_key": {
        "type": "path",
        "no_log": False,
        "aliases": ["key_file"],
        "fallback": (env_fallback, ["K8S_AUTH_KEY_FILE"]),
    },
    "proxy": {"type": "str", "fallback": (env_fallback, ["K8S_AUTH_PROXY"])},
    "no_proxy": {"type": "str", "fallback": (env_fallback, ["K8S_AUTH_NO_PROXY"])},
    "proxy_headers": {
        "type": "dict",
        "options": {
            "basic_auth": {
                "type": "str",
                "no_log": True,
                "fallback": (env_fallback, ["K8S_AUTH_PROXY_HEADERS_BASIC_AUTH"]),
            },
            "proxy_basic_auth": {
                "type": "str",
                "no_log": True,
                "fallback": (env_fallback, ["K8S_AUTH_PROXY_HEADERS_PROXY_BASIC_AUTH"]),
            },
            "user_agent": {"type": "str", "fallback": (env_fallback, ["K8S_AUTH_PROXY_HEADERS_USER_AGENT"])},
        },
    },
    "persist_config": {"type": "bool", "fallback": (env_fallback, ["K8S_AUTH_PERSIST_CONFIG"])},
    "impersonate_user": {"type": "str", "fallback": (env_fallback, ["K8S_AUTH_IMPERSONATE_USER"])},
    "impersonate_groups": {
        "type": "list",
        "elements": "str",
        "fallback": (env_fallback, ["K8S_AUTH_IMPERSONATE_GROUPS"]),
    },
}

# Keys of a kubeconfig whose values must never be shown.
SECRET_KEYS = frozenset(
    ("token", "password", "client-key-data", "id-token", "refresh-token", "access-token", "client-secret")
)


class KubeError(Exception):
    """A failure a user can act on; its text is the whole message."""

    def __init__(self, message, **facts):
        super().__init__(message)
        self.facts = facts


class ApiError(KubeError):
    """An answer of the API that isn't a success: HTTP status, and reason, message and causes of the Status object."""

    def __init__(self, status, body, method, path):
        details = body.get("details") or {} if isinstance(body, dict) else {}
        message = body.get("message") if isinstance(body, dict) else to_text(body)
        self.status = status
        self.reason = body.get("reason") or "" if isinstance(body, dict) else ""
        self.message = (message or "HTTP status %d without an explanation" % status).strip()
        self.details = details
        self.causes = details.get("causes") or []
        self.method = method
        self.path = path
        super().__init__(self.message, status=status, reason=self.reason, causes=self.causes)


def explain_error(exc):
    """Return what an ApiError means and what to do about it, in one or two sentences."""
    details = exc.details
    if exc.status == 404 and details.get("kind") == "namespaces":
        name = details.get("name")
        return "namespace %s doesn't exist. Create it first, for instance with turtles.kubevirt.manifest." % name
    if exc.status == 404 and not details.get("name"):
        return (
            "the API server doesn't serve this kind (%s). Install KubeVirt, or what else provides the kind, and check "
            "apiVersion." % exc.message
        )
    if exc.status == 403 and exc.reason == "Forbidden":
        message = exc.message.rstrip(".")
        if "exceeded quota" in message:
            return "%s. Delete what isn't needed any more, or have the ResourceQuota raised." % message
        return "%s. Grant the user that right, for instance by the ClusterRole kubevirt.io:edit." % message
    lines = []
    for cause in exc.causes:
        field, message = cause.get("field"), cause.get("message")
        if message:
            lines.append("%s: %s" % (field, message) if field and field not in message else message)
    return "refused: %s" % "; ".join(lines) if lines else exc.message


def secrets_of(kubeconfig):
    """Return all secret values inside a kubeconfig given as a dict, for the list of values Ansible masks."""
    found = set()
    pending = [kubeconfig]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in SECRET_KEYS and isinstance(inner, str) and inner:
                    found.add(inner)
                else:
                    pending.append(inner)
        elif isinstance(value, list):
            pending.extend(value)
    return found


def load_library():
    """Load the Python package kubernetes, which takes a while; raise KubeError in Ansible's words if it is missing."""
    try:
        import kubernetes
        import kubernetes.client.rest
        import kubernetes.config.config_exception
    except ImportError:
        raise KubeError(missing_required_lib("kubernetes"), exception=traceback.format_exc()) from None
    return kubernetes


def _load_kubeconfig(options, configuration):
    """Load the kubeconfig that options name into configuration; return how messages call it."""
    k8s_config = load_library().config
    kubeconfig = options.get("kubeconfig")
    context = options.get("context")
    persist = bool(options.get("persist_config"))
    if isinstance(kubeconfig, str) and kubeconfig.lstrip().startswith("{"):
        # The environment variable and templated values carry a dict as JSON.
        try:
            kubeconfig = json.loads(kubeconfig)
        except ValueError as exc:
            raise KubeError("kubeconfig looks like JSON but can't be read: %s" % exc) from exc
    try:
        if isinstance(kubeconfig, dict):
            k8s_config.load_kube_config_from_dict(
                kubeconfig, context=context, client_configuration=configuration, persist_config=False
            )
            return "the kubeconfig given as a mapping"
        if kubeconfig is not None and not isinstance(kubeconfig, str):
            raise KubeError("kubeconfig: must be a path or a mapping, but is a %s" % type_name(kubeconfig))
        given = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        paths = [os.path.expanduser(os.path.expandvars(p)) for p in given.split(os.pathsep) if p]
        if not any(os.path.exists(p) for p in paths):
            if not kubeconfig and os.environ.get("KUBERNETES_SERVICE_HOST"):
                k8s_config.load_incluster_config(client_configuration=configuration)
                return "the service account of this Pod"
            raise KubeError(
                "kubeconfig %s doesn't exist. Set the option kubeconfig or the environment variable "
                "K8S_AUTH_KUBECONFIG to an existing file, or give host and api_key." % given
            )
        k8s_config.load_kube_config(
            config_file=os.pathsep.join(paths),
            context=context,
            client_configuration=configuration,
            persist_config=persist,
        )
        return _named_kubeconfig(given, context)
    except k8s_config.config_exception.ConfigException as exc:
        source = "given as a mapping" if isinstance(kubeconfig, dict) else (kubeconfig or "(default)")
        raise KubeError("kubeconfig %s can't be used: %s" % (source, exc)) from exc
    except (KeyError, TypeError, AttributeError):
        source = kubeconfig if isinstance(kubeconfig, str) else "given as a mapping" if kubeconfig else "(default)"
        raise KubeError("kubeconfig %s isn't a kubeconfig: a part of it has the wrong type" % source) from None
    except (OSError, ValueError) as exc:
        raise KubeError("kubeconfig %s can't be read: %s" % (kubeconfig or "(default)", exc)) from exc


def _named_kubeconfig(path, context):
    """Return how messages call a kubeconfig file."""
    return "kubeconfig %s%s" % (path, ", context %s" % context if context else "")


# Options that together are credentials, so that with a host no kubeconfig is read (as kubernetes.core does it).
_CREDENTIALS = (("api_key",), ("username", "password"), ("client_cert", "client_key"))


def _needs_kubeconfig(options):
    """Return whether a kubeconfig says which server is meant or who asks it."""
    if not options.get("host"):
        return True
    if any(all(options.get(name) for name in names) for names in _CREDENTIALS):
        return False
    return bool(options.get("kubeconfig") or options.get("context"))


def _source_of(option, options):
    """Return how messages call an option that may come from the environment."""
    variable = "K8S_AUTH_%s" % option.upper()
    if os.environ.get(variable) and os.environ[variable] == options.get(option):
        return "the environment variable %s" % variable
    return "the option %s" % option


def _configuration(options, quick):
    """Return kubernetes.client.Configuration, and where the server's address and the credentials come from.

    :param options: those of the doc fragment auth.
    :param quick: do without the library if possible: a PlainConfiguration is returned then.
    """
    needs_kubeconfig = _needs_kubeconfig(options)
    plain = plain_configuration(options, needs_kubeconfig) if quick and HAS_URLLIB3 else None
    configuration = plain[0] if plain else load_library().client.Configuration()
    given = [names for names in _CREDENTIALS if all(options.get(name) for name in names)]
    credentials = " and ".join(_source_of(name, options) for name in given[0]) if given else ""
    if needs_kubeconfig:
        try:
            if plain:
                origin = _named_kubeconfig(plain[1], options.get("context"))
            else:
                origin = _load_kubeconfig(options, configuration)
        except KubeError as exc:
            if not options.get("host"):
                raise
            source = _source_of("kubeconfig" if options.get("kubeconfig") else "context", options)
            raise KubeError(
                "%s is given without credentials, so the kubeconfig (%s) is read for them: %s"
                % (_source_of("host", options), source, exc)
            ) from exc
        credentials = credentials if given else origin
    if options.get("host"):
        origin = _source_of("host", options)
    for option, attribute in (
        ("host", "host"),
        ("ca_cert", "ssl_ca_cert"),
        ("client_cert", "cert_file"),
        ("client_key", "key_file"),
        ("proxy", "proxy"),
        ("no_proxy", "no_proxy"),
    ):
        if options.get(option):
            setattr(configuration, attribute, options[option])
    for option in ("ca_cert", "client_cert", "client_key"):
        if options.get(option) and not os.path.exists(options[option]):
            raise KubeError("%s: file %s doesn't exist" % (option, options[option]))
    if options.get("validate_certs") is not None:
        configuration.verify_ssl = options["validate_certs"]
    if options.get("api_key"):
        configuration.refresh_api_key_hook = None
        configuration.api_key = {"authorization": "Bearer %s" % options["api_key"]}
    if options.get("proxy_headers"):
        headers = {name: value for name, value in options["proxy_headers"].items() if value}
        if headers:
            configuration.proxy_headers = urllib3.util.make_headers(**headers)
    configuration.host = configuration.host.rstrip("/")
    configuration.connection_pool_maxsize = CONNECTIONS
    return configuration, origin, credentials


class _Retry(urllib3.Retry if HAS_URLLIB3 else object):
    """Repeats a request; a server that asks for a long pause doesn't hold up the task beyond its own timeouts."""

    def get_retry_after(self, response):
        pause = super().get_retry_after(response)
        return pause if pause is None else min(pause, LONGEST_PAUSE)


class Client:
    """A connection to one API server as one user, which keeps its connections alive.

    Threads may share it: its connection pool is urllib3's.

    :param quick: whether to do without the Kubernetes library where the connection is plain enough.
    """

    def __init__(self, options, quick=False):
        self._configuration, self.origin, self.credentials = _configuration(options, quick)
        self.host = self._configuration.host
        self._pool = self._connections()
        self._options = options
        self._discovered = {}
        self._warnings = []

    def _connections(self):
        """Return the pool of connections."""
        configuration = self._configuration
        if not (HAS_URLLIB3 and isinstance(configuration, PlainConfiguration)):
            return load_library().client.rest.RESTClientObject(configuration).pool_manager
        if not self.host.startswith("https:"):
            return urllib3.PoolManager(maxsize=CONNECTIONS)
        try:
            context = configuration.context()
        except (OSError, ValueError) as exc:
            raise KubeError("The certificates of %s can't be used: %s" % (self.origin, exc)) from exc
        return urllib3.PoolManager(maxsize=CONNECTIONS, ssl_context=context)

    @property
    def default_namespace(self):
        """Return the namespace of the kubeconfig's context, or "default"."""
        options = self._options
        if isinstance(options.get("kubeconfig"), dict) or not _needs_kubeconfig(options):
            return "default"
        k8s_config = load_library().config
        try:
            kubeconfig = options.get("kubeconfig") or os.environ.get("KUBECONFIG") or "~/.kube/config"
            contexts, active = k8s_config.list_kube_config_contexts(config_file=os.path.expanduser(kubeconfig))
        except (k8s_config.config_exception.ConfigException, OSError, TypeError):
            return "default"
        wanted = options.get("context")
        for context in contexts if wanted else [active]:
            if not wanted or context.get("name") == wanted:
                return (context.get("context") or {}).get("namespace") or "default"
        return "default"

    def _headers(self):
        headers = {"Accept": "application/json", "User-Agent": "turtles.kubevirt"}
        bearer = self._configuration.auth_settings().get("BearerToken")
        if bearer and bearer.get("value"):
            # Some versions of the package keep the word Bearer apart, some don't.
            value = bearer["value"]
            headers["Authorization"] = value if value.lower().startswith("bearer ") else "Bearer %s" % value
        username = self._options.get("username") or self._configuration.username
        if username and "Authorization" not in headers:
            pair = "%s:%s" % (username, self._options.get("password") or self._configuration.password or "")
            headers["Authorization"] = "Basic %s" % base64.b64encode(pair.encode()).decode()
        if self._options.get("impersonate_user"):
            headers["Impersonate-User"] = self._options["impersonate_user"]
        return headers

    def _send(self, method, path, query=None, body=None, content_type="application/json", timeout=READ_TIMEOUT):
        fields = urllib3.HTTPHeaderDict(self._headers())
        for group in self._options.get("impersonate_groups") or []:
            fields.add("Impersonate-Group", group)
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

    def _unreachable(self, exc):
        cause = getattr(exc, "reason", None) or exc
        text = _CONNECTION.sub("", to_text(cause))
        if "CERTIFICATE_VERIFY_FAILED" in text:
            remedy = "Set ca_cert to the authority that signed the server's certificate."
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
            body = json.loads(data)
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

    def request(self, method, path, query=None, body=None, content_type="application/json"):
        """Return the answer's JSON as a dict, or None for an empty body.

        :raises KubeError: the request failed; ApiError if the server refused it.
        """
        data = self._exchange(method, path, query, body, content_type)
        if not data:
            return None
        try:
            return json.loads(data)
        except ValueError as exc:
            raise KubeError(
                "%s %s%s answered with something that isn't JSON: %s"
                % (method, self.host, path, to_text(data[:200], errors="replace"))
            ) from exc

    def stream(self, path, protocol):
        """Return a connected Stream.

        :param protocol: name of what is spoken over it.
        :raises KubeError: that isn't possible; ApiError if the server refused it.
        """
        configuration = self._configuration
        # Kubelets answer 406 to whoever accepts JSON alone.
        headers = ["%s: %s" % pair for pair in {**self._headers(), "Accept": "*/*"}.items()]
        headers += ["Impersonate-Group: %s" % group for group in self._options.get("impersonate_groups") or []]
        files = {
            "ca_certs": configuration.ssl_ca_cert,
            "certfile": configuration.cert_file,
            "keyfile": configuration.key_file,
        }
        tls = {
            "cert_reqs": ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE,
            "check_hostname": bool(configuration.verify_ssl),
            **{name: path for name, path in files.items() if path},
        }
        proxy = urlsplit(configuration.proxy or "")
        options = {
            "header": headers,
            "sslopt": tls,
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

    def read(self, path, query=None):
        """Return the answer's body as it is, for what isn't JSON.

        :raises KubeError: the request failed; ApiError if the server refused it.
        """
        return self._exchange("GET", path, query)

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
            found = WARNING.findall(response.headers.get("Warning") or "")
            self._warnings += [re.sub(r"\\(.)", r"\1", text) for text in found]
        return data

    def warnings(self):
        """Return what the server warned about on writes, such as fields it doesn't know, each once."""
        found, self._warnings = list(dict.fromkeys(self._warnings)), []
        return found

    def get(self, path):
        """Return the object at path, or None where there is none."""
        try:
            return self.request("GET", path)
        except ApiError as exc:
            if exc.status == 404:
                return None
            raise

    def list(self, path, label_selector=None, field_selector=None, keep=None):
        """Return all items of a collection, with apiVersion and kind, and the resourceVersion to watch from.

        :param keep: a function from an item to what is returned of it, called page by page: of a large collection,
            only what is kept takes memory.
        """
        items, token, restarted = [], None, False
        while True:
            query = {"labelSelector": label_selector or None, "fieldSelector": field_selector or None}
            query.update({"limit": PAGE_SIZE, "continue": token})
            try:
                page = self.request("GET", path, query) or {}
            except ApiError as exc:
                if exc.status == 410 and token and not restarted:
                    # The list changed too much meanwhile and the server forgot where the pages stood.
                    items, token, restarted = [], None, True
                    continue
                raise
            kind = (page.get("kind") or "").removesuffix("List") if page.get("kind") != "List" else None
            for item in page.get("items") or []:
                if kind:
                    item.setdefault("apiVersion", page.get("apiVersion"))
                    item.setdefault("kind", kind)
                items.append(keep(item) if keep else item)
            metadata = page.get("metadata") or {}
            token = metadata.get("continue")
            if not token:
                return items, metadata.get("resourceVersion")

    def watch(self, path, resource_version, timeout, field_selector=None, label_selector=None, opened=None):
        """Yield (type, object) until the server or the timeout (seconds) ends the watch.

        The caller lists again afterwards: the end of a watch says nothing about the state.

        :param opened: called with the response, so that another thread can end the watch by its shutdown().
        """
        query = {
            "watch": "true",
            "resourceVersion": resource_version,
            "fieldSelector": field_selector or None,
            "labelSelector": label_selector or None,
            "timeoutSeconds": max(1, int(timeout)),
        }
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
                    event = json.loads(line)
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

    def discover(self, api_version, fresh=False):
        """Return the resources of one group and version as the server lists them; ask once, unless fresh."""
        if fresh or api_version not in self._discovered:
            prefix = "/apis/" if "/" in api_version else "/api/"
            listing = self.get(prefix + api_version)
            self._discovered[api_version] = (listing or {}).get("resources") or []
        return self._discovered[api_version]


_CLIENTS = {}
# Seconds in which a file may change again without its times showing it: those of the kernel's clock, with room; and
# where a filesystem keeps whole seconds only.
TICK, COARSE_TICK = 0.1, 2.0


def get_client(options):
    """Return a client for these auth options; the same within a process, so that loop items share connections."""
    auth = {name: options.get(name) for name in AUTH_ARGUMENTS if options.get(name) is not None}
    paths = auth.get("kubeconfig") or os.environ.get("KUBECONFIG") or "~/.kube/config"
    stamps = []
    for path in paths.split(os.pathsep) if isinstance(paths, str) else ():
        try:
            status = os.stat(os.path.expanduser(path))
        except OSError:
            continue
        tick = TICK if status.st_ctime_ns % 1000000000 else COARSE_TICK
        if time.time() - status.st_ctime < tick:
            return Client(auth)
        stamps.append((path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    key = json.dumps([auth, to_text(paths), stamps, os.getpid(), os.getcwd()], sort_keys=True, default=to_text)
    if key not in _CLIENTS:
        _CLIENTS[key] = Client(auth)
    return _CLIENTS[key]
