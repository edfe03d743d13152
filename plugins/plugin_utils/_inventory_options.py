# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of the inventory plugin: unknown ones, and those of each cluster of a file."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
from urllib.parse import urlsplit

from ansible.config.manager import ensure_type
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.module_utils.common.validation import check_type_bool

from ..module_utils._values import described, plain

#: Options that say which API server is asked, and as whom.
AUTH = (
    "kubeconfig",
    "context",
    "host",
    "api_key",
    "username",
    "password",
    "validate_certs",
    "ca_cert",
    "client_cert",
    "client_key",
    "proxy",
    "no_proxy",
    "proxy_headers",
    "persist_config",
    "impersonate_user",
    "impersonate_groups",
)
#: Options that each cluster of a file can have for itself.
PER_CLUSTER = (
    *AUTH,
    "name",
    "namespaces",
    "label_selector",
    "network_name",
    "address_family",
    "host_format",
    "kube_secondary_dns",
    "use_service",
    "node_address",
    "unset_ansible_port",
    "create_groups",
    "group_by",
    "base_domain",
    "append_base_domain",
    "default_win_ansible_connection",
    "connection",
    "api_version",
    "include_stopped",
    "require_address",
)
#: What kubevirt.core does unless told otherwise, where it differs from this plugin.
KUBEVIRT_CORE = {"include_stopped": True, "require_address": False, "unset_ansible_port": True}
# Those options that choose a server: with one of them, a cluster doesn't take the others from the environment.
_SERVERS = ("kubeconfig", "context", "host")
_FILES = ("kubeconfig", "ca_cert", "client_cert", "client_key")
_HEADERS = ("basic_auth", "proxy_basic_auth", "user_agent")
_SECRETS = ("password", "proxy_headers")
# Those that variables of hosts may have.
_OPEN = ("kubeconfig", "context", "host", "validate_certs", "ca_cert", "client_cert", "client_key")


def refuse_unknown(names, definitions, where, what="an option of the inventory plugin"):
    """Raise an error for the first unknown key: a typo would go unnoticed, and too many hosts be listed.

    :param definitions: the documentation of options by name.
    """
    known = {alias for option in definitions.values() for alias in option.get("aliases") or ()}
    known.update(definitions)
    for name in sorted(set(map(str, names)) - known):
        alike = difflib.get_close_matches(name, sorted(known), 1)
        hint = " Did you mean %s?" % alike[0] if alike else " Remove it."
        raise AnsibleParserError("%s: %s isn't %s.%s" % (where, name, what, hint))


class ClusterOptions:
    """The options of one cluster.

    :param values: by option, checked; those missing have their default.
    :param file: the inventory file; relative paths are looked up next to it first.
    """

    def __init__(self, values, file):
        self._values = values
        self._file = file

    def __getitem__(self, option):
        return self._values.get(option)

    def auth(self):
        """Return the options that the API client takes."""
        auth = {name: plain(self[name]) for name in AUTH if self[name] is not None}
        headers = {name: os.environ.get("K8S_AUTH_PROXY_HEADERS_%s" % name.upper()) for name in _HEADERS}
        if any(headers.values()):
            auth.setdefault("proxy_headers", headers)
        for name in _FILES:
            value = auth.get(name)
            if isinstance(value, str) and value and not value.lstrip().startswith("{"):
                auth[name] = _beside(self._file, value)
        return auth

    @functools.cached_property
    def api_variables(self):
        """Variables by which the collection's connection plugins know the API, without secrets."""
        auth = {name: value for name, value in self.auth().items() if name in _OPEN}
        kubeconfig = auth.get("kubeconfig")
        if isinstance(kubeconfig, dict) or (kubeconfig or "").lstrip().startswith("{"):
            del auth["kubeconfig"]
        elif kubeconfig:
            auth["kubeconfig"] = os.pathsep.join(map(os.path.abspath, kubeconfig.split(os.pathsep)))
        return {"ansible_kubevirt_%s" % name: value for name, value in auth.items()}

    def cluster_name(self):
        """Return the name of the cluster, if it is known without reading the kubeconfig."""
        return plain(self["name"] or "") or None

    def identity(self):
        """Return what tells one cluster, as one user sees it, from others: for the key of the cache. No passwords."""
        auth = {name: value for name, value in self.auth().items() if name not in _SECRETS}
        kubeconfig = auth.get("kubeconfig")
        if isinstance(kubeconfig, dict):
            auth["kubeconfig"] = _without_secrets(kubeconfig)
        else:
            paths = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
            auth["kubeconfig"] = [_stamp(path) for path in paths.split(os.pathsep) if path]
        return [auth, self["api_version"], sorted(self["namespaces"] or ()), self["label_selector"]]


def _beside(file, value):
    found = []
    for path in value.split(os.pathsep):
        path = os.path.expanduser(os.path.expandvars(path))
        candidate = os.path.join(os.path.dirname(os.path.abspath(file)), path)
        found.append(candidate if os.path.exists(candidate) else path)
    return os.pathsep.join(found)


def _stamp(path):
    """Return a path with what changes when the file does."""
    try:
        status = os.stat(os.path.expanduser(path))
    except OSError:
        return [path]
    return [path, status.st_mtime_ns, status.st_size]


def _without_secrets(kubeconfig):
    named = [[entry.get("name"), entry.get("cluster", {}).get("server")] for entry in kubeconfig.get("clusters") or ()]
    return [kubeconfig.get("current-context"), kubeconfig.get("contexts"), named]


def digest(value):
    """Return a key for a value of plain data."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True, default=str).encode()).hexdigest()[:20]


def default_name(server):
    """Return the name of a cluster without a name: made of its server's address, as kubevirt.core makes it."""
    parts = urlsplit(server)
    return (parts.netloc + parts.path).rstrip("/").replace(".", "-").replace(":", "_")


def clusters_of(plugin, config, definitions, file):
    """Return the ClusterOptions of each cluster that a file is about.

    Options of an entry of ``clusters`` win over those of the file, these over the environment.

    :param plugin: the inventory plugin, whose options are set.
    :param config: the file's content.
    """
    origins = _given(config, definitions)
    compatible = plugin.get_option("compatibility") == "kubevirt.core"

    def common(option, environment=True):
        if option in origins or (environment and option in AUTH):
            return plugin.get_option(option)
        if compatible and option in KUBEVIRT_CORE:
            return KUBEVIRT_CORE[option]
        return plugin.get_option(option) if option not in AUTH else None

    entries = plugin.get_option("clusters")
    if entries is None:
        return [ClusterOptions({option: common(option) for option in PER_CLUSTER}, file)]
    if not entries:
        raise AnsibleParserError("%s: clusters: must have at least one entry. Remove it to read one cluster." % file)
    own = {name: definitions[name] for name in PER_CLUSTER}
    result = []
    for number, entry in enumerate(entries):
        where = "%s: clusters[%d]" % (file, number)
        if not isinstance(entry, dict):
            raise AnsibleParserError("%s: must be a mapping of options, but is %s." % (where, described(entry)))
        refuse_unknown(entry, own, where, "an option of a cluster")
        values = {
            option: _checked(value, definitions[option], "%s.%s" % (where, option))
            for option, value in _given(entry, own).items()
        }
        chosen = any(values.get(option) for option in _SERVERS)
        inherited = {option: common(option, environment=not chosen) for option in PER_CLUSTER if option not in values}
        result.append(ClusterOptions({**inherited, **values}, file))
    return result


def _given(config, definitions):
    """Return the options that a mapping has, by their own names."""
    names = {alias: name for name, option in definitions.items() for alias in option.get("aliases") or ()}
    return {names.get(key, key): value for key, value in config.items() if names.get(key, key) in definitions}


def _checked(value, definition, where):
    """Return a value with the type and among the choices that its option has."""
    if value is None:
        return definition.get("default")
    kind = definition.get("type")
    try:
        # Ansible's own conversion takes anything but true for false.
        value = check_type_bool(value) if kind == "bool" else ensure_type(value, kind)
    except (AnsibleError, ValueError, TypeError):
        raise AnsibleParserError("%s: must be a %s, but is %s." % (where, kind, described(value))) from None
    choices = definition.get("choices")
    for one in value if isinstance(value, list) else [value]:
        if choices and one not in choices:
            raise AnsibleParserError("%s: must be one of %s, but is %r." % (where, ", ".join(choices), plain(one)))
    return value
