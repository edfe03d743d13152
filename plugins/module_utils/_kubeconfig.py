# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Connections that are so plain that they don't need the Kubernetes library.

The library takes a quarter of a second to load: longer than reading a thousand machines, and as long as all the rest of
a module. Most kubeconfigs have nothing but a server, a certificate authority, and a token or a client certificate;
those, and options that say it all, are read here. Whatever else there is (plugins for credentials, proxies, several
files, mistakes) is left to the library.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from contextlib import contextmanager

_CLUSTER = {"server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify"}
_USER = {
    *("token", "username", "password", "client-certificate", "client-certificate-data"),
    *("client-key", "client-key-data"),
}
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class PlainConfiguration:
    """What the client uses of the library's Configuration, under the same names."""

    def __init__(self):
        self.host = ""
        self.ssl_ca_cert = self.cert_file = self.key_file = None
        self.ca_data = self.cert_data = self.key_data = None
        self.verify_ssl = True
        self.username = self.password = None
        self.proxy = self.no_proxy = None
        self.api_key = {}
        #: That of the kubeconfig's context.
        self.namespace = "default"

    def auth_settings(self):
        """Return the token in the library's form."""
        token = self.api_key.get("authorization")
        return {"BearerToken": {"value": token}} if token else {}

    def context(self):
        """Return the ssl.SSLContext.

        :raises ValueError: a file can't be read, or isn't what it should be.
        """
        from urllib3.util.ssl_ import create_urllib3_context

        context = create_urllib3_context()
        if not self.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ssl_ca_cert or self.ca_data:
            what = "certificate authority %s" % (self.ssl_ca_cert or "in its data")
            with _told(what, "Give ca_cert (certificate-authority) a file with certificates in PEM form."):
                authority = None if self.ssl_ca_cert else self.ca_data.decode("ascii")
                context.load_verify_locations(cafile=self.ssl_ca_cert, cadata=authority)
        else:
            context.load_default_certs()
        if self.cert_file or self.cert_data:
            what = "client certificate %s" % (self.cert_file or "in its data")
            remedy = "Give client_cert and client_key (client-certificate, client-key) PEM files that belong together."
            with _told(what, remedy), tempfile.TemporaryDirectory() as folder:
                # OpenSSL reads keys from files only.
                certificate = self.cert_file or _written(folder, "certificate", self.cert_data)
                key = self.key_file or (_written(folder, "key", self.key_data) if self.key_data else None)
                context.load_cert_chain(certificate, key)
        return context


@contextmanager
def _told(what, remedy):
    """Let errors name the file that OpenSSL doesn't name."""
    try:
        yield
    except (OSError, ValueError) as exc:
        raise ValueError("%s: %s. %s" % (what, exc, remedy)) from exc


def _written(folder, name, data):
    path = os.path.join(folder, name)
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    return path


def plain_configuration(options, kubeconfig_needed):
    """Return the PlainConfiguration of a connection, or None if it isn't plain.

    :param options: those of the doc fragment auth.
    :param kubeconfig_needed: whether a kubeconfig has to be read for them.
    """
    if any(options.get(name) for name in ("proxy", "proxy_headers")):
        return None
    if any(os.environ.get(name) or os.environ.get(name.lower()) for name in _PROXIES):
        return None
    configuration = PlainConfiguration()
    if not kubeconfig_needed:
        return configuration
    source, folder = options.get("kubeconfig") or os.environ.get("KUBECONFIG") or "~/.kube/config", ""
    if isinstance(source, str):
        path = os.path.expanduser(os.path.expandvars(source))
        source, folder = _read(path), os.path.dirname(path)
    try:
        return configuration if _fill(configuration, source, options.get("context"), folder) else None
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration):
        return None


def _read(path):
    """Return what a YAML file says; None where it says nothing that can be read."""
    try:
        # Part of the Kubernetes library's requirements, which reports what is missing. Options alone don't need it.
        import yaml
    except ImportError:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            return yaml.safe_load(file)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None


def _named(entries, name, member):
    return next(entry for entry in entries if entry.get("name") == name)[member] or {}


def _fill(configuration, kubeconfig, context, folder):
    """Fill in what a kubeconfig says; return whether it says nothing else."""
    context = _named(kubeconfig["contexts"], context or kubeconfig["current-context"], "context")
    cluster = _named(kubeconfig["clusters"], context["cluster"], "cluster")
    user = _named(kubeconfig["users"], context["user"], "user")
    if set(cluster) - _CLUSTER or set(user) - _USER or not str(cluster.get("server") or "").startswith("http"):
        return False
    configuration.host, configuration.namespace = cluster["server"], context.get("namespace") or "default"
    configuration.verify_ssl = not cluster.get("insecure-skip-tls-verify")
    for section, name, file, data in (
        (cluster, "certificate-authority", "ssl_ca_cert", "ca_data"),
        (user, "client-certificate", "cert_file", "cert_data"),
        (user, "client-key", "key_file", "key_data"),
    ):
        if section.get(name + "-data"):
            setattr(configuration, data, base64.b64decode(section[name + "-data"], validate=True))
        elif section.get(name):
            setattr(configuration, file, os.path.join(folder, section[name]))
    if user.get("token"):
        configuration.api_key = {"authorization": "Bearer %s" % user["token"]}
    configuration.username, configuration.password = user.get("username"), user.get("password")
    return True
