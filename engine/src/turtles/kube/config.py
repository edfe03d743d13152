# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the API server is and how to log in: kubeconfig files and service accounts.

Static credentials (tokens, token files, client certificates) are read here, because importing the official
client costs half a second and 30 MB in every component. Login plugins (``exec``, ``auth-provider``) are left to it.
"""

import base64
import os
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: Seconds after which a token file is read again: bound service account tokens are rotated by the kubelet.
_TOKEN_FILE_MAX_AGE = 60.0


class ConfigError(Exception):
    """The kubeconfig cannot be used; the message says which entry and why."""


@dataclass(frozen=True)
class ServerConfig:
    """One API server and one identity.

    ``tls`` is None for plain http; ``authorization`` gives the value of the header of that name, or None.
    """

    host: str
    port: int
    prefix: str = ""
    tls: ssl.SSLContext | None = None
    tls_server_name: str | None = None
    authorization: Callable[[], str | None] = field(default=lambda: None)

    @property
    def url(self) -> str:
        """The server's address, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.prefix}"


class _TokenFile:
    """A bearer token that others rewrite from time to time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header: str | None = None
        self._read_at = 0.0

    def __call__(self) -> str | None:
        now = time.monotonic()
        if self._header is None or now - self._read_at > _TOKEN_FILE_MAX_AGE:
            self._header = f"Bearer {self._path.read_text().strip()}"
            self._read_at = now
        return self._header


def load_config(path: str | os.PathLike[str] | None = None, context: str | None = None) -> ServerConfig:
    """Read a kubeconfig file.

    :param path: the file; None means ``$KUBECONFIG``, else the Pod's service account, else ``~/.kube/config``.
    :param context: name of the context; None means ``current-context``.
    :raises ConfigError: no such file, or an entry in it that is missing or cannot be used.
    """
    if path is None:
        path = os.environ.get("KUBECONFIG") or None
        if path is None and (_SERVICE_ACCOUNT / "token").exists():
            return _in_cluster()
    file = Path(path) if path is not None else Path.home() / ".kube" / "config"
    try:
        document = yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except OSError as error:
        raise ConfigError(f"kubeconfig {file}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"kubeconfig {file} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"kubeconfig {file} is empty")
    context = context or document.get("current-context")
    if not context:
        raise ConfigError(f"kubeconfig {file}: current-context is not set")
    chosen = _named(document, "contexts", "context", context, file)
    cluster = _named(document, "clusters", "cluster", chosen.get("cluster"), file)
    user = _named(document, "users", "user", chosen.get("user"), file) if chosen.get("user") else {}
    return _server_config(file, context, cluster, user)


def _named(document: dict[str, Any], section: str, key: str, name: Any, file: Path) -> dict[str, Any]:
    for entry in document.get(section) or ():
        if entry.get("name") == name:
            return entry.get(key) or {}
    raise ConfigError(f"kubeconfig {file}: no entry {name!r} in {section}")


def _server_config(file: Path, context: str, cluster: dict[str, Any], user: dict[str, Any]) -> ServerConfig:
    url = urlsplit(cluster.get("server") or "")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(f"kubeconfig {file}: server {cluster.get('server')!r} is not an http or https URL")
    if cluster.get("proxy-url"):
        raise ConfigError(f"kubeconfig {file}: proxy-url is not supported")
    authorization = _authorization(file, context, user)
    tls = _tls(file, cluster, user) if url.scheme == "https" else None
    return ServerConfig(
        host=url.hostname,
        port=url.port or (443 if tls else 80),
        prefix=url.path.rstrip("/"),
        tls=tls,
        tls_server_name=cluster.get("tls-server-name"),
        authorization=authorization,
    )


def _authorization(file: Path, context: str, user: dict[str, Any]) -> Callable[[], str | None]:
    if user.get("tokenFile"):
        return _TokenFile(file.parent / user["tokenFile"])
    if user.get("token"):
        header = f"Bearer {user['token']}"
        return lambda: header
    if user.get("username"):
        pair = f"{user['username']}:{user.get('password', '')}".encode()
        basic = f"Basic {base64.b64encode(pair).decode()}"
        return lambda: basic
    if user.get("exec") or user.get("auth-provider"):
        return _login_plugin(file, context)
    return lambda: None


def _login_plugin(file: Path, context: str) -> Callable[[], str | None]:
    """Let the official client run the kubeconfig's login plugin, which also renews what it got."""
    from kubernetes.client import Configuration
    from kubernetes.config import load_kube_config

    configuration = Configuration()
    load_kube_config(str(file), context=context, client_configuration=configuration)  # type: ignore[no-untyped-call]
    return lambda: str(configuration.get_api_key_with_prefix("authorization"))


def _data(file: Path, entry: dict[str, Any], key: str) -> bytes | None:
    """Return the bytes of ``<key>-data``, or of the file that ``<key>`` names."""
    if entry.get(f"{key}-data"):
        try:
            return base64.b64decode(entry[f"{key}-data"], validate=False)
        except ValueError as error:
            raise ConfigError(f"kubeconfig {file}: {key}-data is not base64") from error
    if entry.get(key):
        try:
            return Path(file.parent, str(entry[key])).read_bytes()
        except OSError as error:
            raise ConfigError(f"kubeconfig {file}: {key} {entry[key]}: {error.strerror}") from error
    return None


def _tls(file: Path, cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    authority = _data(file, cluster, "certificate-authority")
    try:
        tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        certificate, key = _data(file, user, "client-certificate"), _data(file, user, "client-key")
        if certificate and key:
            # OpenSSL's binding reads certificate chains from files only.
            with tempfile.NamedTemporaryFile(suffix=".pem") as pair:
                pair.write(certificate + b"\n" + key)
                pair.flush()
                tls.load_cert_chain(pair.name)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise ConfigError(f"kubeconfig {file}: a certificate or key is not usable: {error}") from error
    return tls


def _in_cluster() -> ServerConfig:
    """The identity of the Pod this runs in (Kubernetes documentation, "Accessing the API from within a Pod")."""
    return ServerConfig(
        host=os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc"),
        port=int(os.environ.get("KUBERNETES_SERVICE_PORT", "443")),
        tls=ssl.create_default_context(cafile=str(_SERVICE_ACCOUNT / "ca.crt")),
        authorization=_TokenFile(_SERVICE_ACCOUNT / "token"),
    )
