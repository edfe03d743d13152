# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Turns the options of a connection into its configuration.

The official package loads kubeconfigs (exec plugins, tokens, in-cluster service accounts). Where the connection is
plain enough, it is done without, which is faster.
"""

from __future__ import annotations

import logging
import os
import traceback
from contextlib import contextmanager

from ansible.module_utils.basic import missing_required_lib

from ._errors import KubeError, why
from ._kubeconfig import PlainConfiguration, plain_configuration
from ._values import from_json, type_name

try:
    import urllib3

    HAS_URLLIB3 = True
except ImportError:  # the Kubernetes library, which brings it, is missing; see load_library()
    HAS_URLLIB3 = False

# Connections to one server that are kept: a fleet has more than a few requests in flight.
CONNECTIONS = 100
# Options that together are credentials, so that with a host no kubeconfig is read (as kubernetes.core does it).
_CREDENTIALS = (("api_key",), ("username", "password"), ("client_cert", "client_key"))


def load_library():
    """Load the Python package kubernetes, which takes a while; raise KubeError in Ansible's words if it is missing."""
    try:
        import kubernetes
        import kubernetes.client.rest
        import kubernetes.config.config_exception
    except ImportError:
        raise KubeError(missing_required_lib("kubernetes"), exception=traceback.format_exc()) from None
    return kubernetes


def is_self_contained(options):
    """Return whether a connection is made of nothing but these options and the plain kubeconfig they name.

    It then needs neither the library nor the authorities that a Python's TLS trusts by itself.
    """
    plain = plain_configuration(options, _needs_kubeconfig(options)) if HAS_URLLIB3 else None
    if plain is None:
        return False
    host, verified = options.get("host") or plain.host, options.get("validate_certs")
    return bool(
        host.startswith("http:")
        or options.get("ca_cert")
        or plain.ssl_ca_cert
        or plain.ca_data
        or not (plain.verify_ssl if verified is None else verified)
    )


def configuration_of(options):
    """Return a configuration, and where the server's address and the credentials come from.

    It is a PlainConfiguration where that is possible, else the library's kubernetes.client.Configuration.

    :param options: those of the doc fragment auth.
    """
    needs_kubeconfig = _needs_kubeconfig(options)
    plain = plain_configuration(options, needs_kubeconfig) if HAS_URLLIB3 else None
    configuration = plain or load_library().client.Configuration()
    complete = [names for names in _CREDENTIALS if all(options.get(name) for name in names)]
    credentials = " and ".join(_source_of(name, options) for name in complete[0]) if complete else ""
    if needs_kubeconfig:
        try:
            origin = _origin(options) if plain else _load_kubeconfig(options, configuration)
        except KubeError as exc:
            if not options.get("host"):
                raise
            source = _source_of("kubeconfig" if options.get("kubeconfig") else "context", options)
            raise KubeError(
                "%s is given without credentials, so the kubeconfig (%s) is read for them: %s"
                % (_source_of("host", options), source, exc)
            ) from exc
        credentials = credentials if complete else origin
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
        if options.get(option) and ("\0" in options[option] or not os.path.exists(options[option])):
            raise KubeError("%s: file %s doesn't exist" % (option, options[option]))
    if options.get("validate_certs") is not None:
        configuration.verify_ssl = options["validate_certs"]
    if options.get("api_key"):
        configuration.refresh_api_key_hook = None
        configuration.api_key = {"authorization": "Bearer %s" % options["api_key"].strip()}
    if configuration.proxy and not configuration.proxy.lower().startswith(("http://", "https://")):
        source = _source_of("proxy", options) if options.get("proxy") else origin
        raise KubeError("%s: the proxy %r doesn't begin with http:// (or https://)." % (source, configuration.proxy))
    if options.get("proxy_headers"):
        headers = {name: value for name, value in options["proxy_headers"].items() if value}
        if headers:
            configuration.proxy_headers = urllib3.util.make_headers(**headers)
    configuration.host = configuration.host.rstrip("/")
    if not configuration.host.startswith(("https://", "http://")):
        raise KubeError(
            "%s: the address %r doesn't begin with https:// (or http://)."
            % (_source_of("host", options) if options.get("host") else "kubeconfig", configuration.host)
        )
    configuration.connection_pool_maxsize = CONNECTIONS
    return configuration, origin, credentials


def _load_kubeconfig(options, configuration):
    """Load the kubeconfig that options name into configuration; return how messages call it."""
    k8s_config = load_library().config
    import yaml  # which the library requires

    kubeconfig = options.get("kubeconfig")
    context = options.get("context")
    persist = bool(options.get("persist_config"))
    if isinstance(kubeconfig, str) and kubeconfig.lstrip().startswith("{"):
        # The environment variable and templated values carry a dict as JSON.
        try:
            kubeconfig = from_json(kubeconfig)
        except ValueError as exc:
            raise KubeError("kubeconfig looks like JSON but can't be read: %s" % exc) from exc
    try:
        if isinstance(kubeconfig, dict):
            with _credentials_of(_origin(options), configuration):
                k8s_config.load_kube_config_from_dict(
                    kubeconfig, context=context, client_configuration=configuration, persist_config=False
                )
            return _origin(options)
        if kubeconfig is not None and not isinstance(kubeconfig, str):
            raise KubeError("kubeconfig: must be a path or a mapping, but is a %s" % type_name(kubeconfig))
        given = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        paths = [os.path.expanduser(os.path.expandvars(p)) for p in given.split(os.pathsep) if p]
        if not any("\0" not in p and os.path.exists(p) for p in paths):
            if not kubeconfig and os.environ.get("KUBERNETES_SERVICE_HOST"):
                k8s_config.load_incluster_config(client_configuration=configuration)
                return "the service account of this Pod"
            raise KubeError(
                "kubeconfig %s doesn't exist. Set the option kubeconfig or the environment variable "
                "K8S_AUTH_KUBECONFIG to an existing file, or give host and api_key." % given
            )
        with _credentials_of(_origin(options), configuration):
            k8s_config.load_kube_config(
                config_file=os.pathsep.join(paths),
                context=context,
                client_configuration=configuration,
                persist_config=persist,
            )
        return _origin(options)
    except k8s_config.config_exception.ConfigException as exc:
        source = "given as a mapping" if isinstance(kubeconfig, dict) else (kubeconfig or "(default)")
        names = [entry.get("name") for entry in _contexts(kubeconfig if isinstance(kubeconfig, dict) else given)[0]]
        if context and names and context not in names:
            raise KubeError(
                "context: kubeconfig %s has no context %s. It has %s." % (source, context, ", ".join(map(str, names)))
            ) from exc
        raise KubeError("kubeconfig %s can't be used: %s" % (source, exc)) from exc
    except (KeyError, TypeError, AttributeError):
        source = kubeconfig if isinstance(kubeconfig, str) else "given as a mapping" if kubeconfig else "(default)"
        raise KubeError("kubeconfig %s isn't a kubeconfig: part of it has the wrong type" % source) from None
    except OSError as exc:
        raise KubeError("kubeconfig %s can't be read: %s." % (kubeconfig or "(default)", why(exc))) from exc
    except RecursionError:
        raise KubeError("kubeconfig %s can't be read: it is nested too deeply" % (kubeconfig or "(default)")) from None
    except ValueError as exc:
        raise KubeError("kubeconfig %s can't be read: %s" % (kubeconfig or "(default)", exc)) from exc
    except yaml.YAMLError as exc:
        reason = " ".join(str(exc).split())
        raise KubeError("kubeconfig %s isn't YAML: %s" % (kubeconfig or "(default)", reason)) from exc


@contextmanager
def _credentials_of(origin, configuration):
    """Let the library load a kubeconfig; tell why it found no credentials, which it only logs.

    :raises KubeError: a program that was to provide them doesn't, or a file with them can't be read.
    """
    heard = _Heard(logging.ERROR)
    root = logging.getLogger()
    root.addHandler(heard)
    try:
        yield
    finally:
        root.removeHandler(heard)
    if heard.texts and not any((configuration.api_key, configuration.cert_file, configuration.username)):
        raise KubeError(
            "%s gives no credentials: %s. Install the program that it runs for them, or log in again."
            % (origin, heard.texts[0].rstrip("."))
        )


class _Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, level):
        super().__init__(level)
        self.texts = []

    def emit(self, record):
        self.texts.append(" ".join(record.getMessage().split())[:300])


def _origin(options):
    """Return how messages call the kubeconfig that options name."""
    kubeconfig = options.get("kubeconfig")
    if isinstance(kubeconfig, dict) or str(kubeconfig).lstrip().startswith("{"):
        return "the kubeconfig given as a mapping"
    context = options.get("context")
    path = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    return "kubeconfig %s%s" % (path, ", context %s" % context if context else "")


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


def default_namespace(options, configuration):
    """Return the namespace of the kubeconfig's context, or "default".

    :param configuration: what configuration_of() returned for these options.
    """
    if isinstance(configuration, PlainConfiguration):
        return configuration.namespace
    if not _needs_kubeconfig(options):
        return "default"
    contexts, wanted = _contexts(options.get("kubeconfig") or os.environ.get("KUBECONFIG") or "~/.kube/config")
    wanted = options.get("context") or wanted
    for context in contexts:
        if context.get("name") == wanted:
            return (context.get("context") or {}).get("namespace") or "default"
    return "default"


def _contexts(kubeconfig):
    """Return the contexts of a kubeconfig that could be loaded, and the name of the current one."""
    if isinstance(kubeconfig, str) and kubeconfig.lstrip().startswith("{"):
        kubeconfig = from_json(kubeconfig)
    if isinstance(kubeconfig, dict):
        return kubeconfig.get("contexts") or [], kubeconfig.get("current-context")
    k8s_config = load_library().config
    try:
        contexts, active = k8s_config.list_kube_config_contexts(config_file=os.path.expanduser(kubeconfig))
    except (k8s_config.config_exception.ConfigException, OSError, TypeError):
        return [], None
    return contexts, active.get("name")
