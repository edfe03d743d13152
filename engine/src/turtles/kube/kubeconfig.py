# SPDX-License-Identifier: GPL-3.0-or-later
"""How the API server is reached: a kubeconfig file, or the service account of the Pod that this runs in."""

import os
import socket
import tempfile
from pathlib import Path

import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config.config_exception import ConfigException

from turtles.errors import ConfigurationError

#: A peer that vanished without a word (power, firewall) is found within half a minute, also on a silent watch.
_KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000),
]

# Folders with client certificates; they go when the process ends.
_certificates: list[tempfile.TemporaryDirectory[str]] = []


class ConfigError(ConfigurationError):
    """The kubeconfig cannot be used; the message says which and why."""


def load(path: str | os.PathLike[str] | None = None) -> ApiClient:
    """Return the official client, configured by a kubeconfig file.

    :param path: None takes the Pod's service account, or the default kubeconfig.
    :raises ConfigError: the configuration cannot be used.
    """
    settings = Configuration()
    settings.socket_options = _KEEPALIVE
    settings.connection_pool_maxsize = 64
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
    return ApiClient(settings)
