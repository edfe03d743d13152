# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inventory plugin kubevirt."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kubevirt
short_description: Running virtual machines of KubeVirt as hosts
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Adds a host for each running VirtualMachineInstance that has an address.
  - Reads all namespaces in one paged list. Where the user isn't allowed to, it reads namespace by namespace, several at
    a time.
  - Namespaces and networks that don't exist draw a warning; with O(strict) they are errors. Running machines none of
    which has an address draw a warning.
  - The file's name must end in C(kubevirt.yml) or C(kubevirt.yaml).
  - Hosts are in the group C(kubevirt) (with O(name), in the group of that name instead), and with O(create_groups) in
    C(namespace_<namespace>), C(node_<node>) and, for each label, C(label_<key>_<value>). Characters that
    group names can't contain become underscores.
options:
  plugin:
    description: Marks the file as a source for this plugin.
    type: str
    required: true
    choices: [turtles.kubevirt.kubevirt]
  name:
    description: Name of the group of all hosts of this source. Give each cluster its own.
    type: str
    default: kubevirt
  namespaces:
    description: Namespaces to read. Defaults to all.
    type: list
    elements: str
  label_selector:
    description: Label selector that instances must match.
    type: str
  network_name:
    description: Name of the interface (C(spec.networks[].name)) whose address is used. Defaults to the first one that
      has an address.
    type: str
    aliases: [interface_name]
  host_format:
    description: Name of the hosts. V({namespace}), V({name}), V({uid}) and V({cluster}), the group's O(name), are
      replaced.
    type: str
    default: "{namespace}-{name}"
  create_groups:
    description: Whether to create groups for namespaces, nodes and labels.
    type: bool
    default: true
  address_family:
    description: Family of the address used. V(any) takes the first one.
    type: str
    choices: [any, ipv4, ipv6]
    default: any
  api_version:
    description: Version of the KubeVirt API.
    type: str
    choices: [kubevirt.io/v1, kubevirt.io/v1alpha3]
    default: kubevirt.io/v1
  kubeconfig:
    description:
      - Path of a kubeconfig file, or its content as a dictionary. A relative path is looked up next to the inventory
        file first, then in the current directory.
      - Not read where O(host) is given with credentials (O(api_key), O(username) and O(password), or O(client_cert) and
        O(client_key)).
    type: raw
    env: [{name: K8S_AUTH_KUBECONFIG}]
  context:
    description: Context of the kubeconfig. Defaults to its current context.
    type: str
    env: [{name: K8S_AUTH_CONTEXT}]
  host:
    description: URL of the API server.
    type: str
    env: [{name: K8S_AUTH_HOST}]
  api_key:
    description: Bearer token.
    type: str
    env: [{name: K8S_AUTH_API_KEY}]
  username:
    description: User name for HTTP basic authentication.
    type: str
    env: [{name: K8S_AUTH_USERNAME}]
  password:
    description: Password for HTTP basic authentication.
    type: str
    env: [{name: K8S_AUTH_PASSWORD}]
  validate_certs:
    description: Whether the server's certificate must be valid.
    type: bool
    aliases: [verify_ssl]
    env: [{name: K8S_AUTH_VERIFY_SSL}]
  ca_cert:
    description: File with the certificate of the authority that signed the server's.
    type: str
    aliases: [ssl_ca_cert]
    env: [{name: K8S_AUTH_SSL_CA_CERT}]
  client_cert:
    description: File with a client certificate.
    type: str
    aliases: [cert_file]
    env: [{name: K8S_AUTH_CERT_FILE}]
  client_key:
    description: File with the key of the client certificate.
    type: str
    aliases: [key_file]
    env: [{name: K8S_AUTH_KEY_FILE}]
  proxy:
    description: URL of an HTTP proxy.
    type: str
    env: [{name: K8S_AUTH_PROXY}]
  no_proxy:
    description: Hosts, domains and networks reached without the proxy, separated by commas.
    type: str
    env: [{name: K8S_AUTH_NO_PROXY}]
  impersonate_user:
    description: User to act as.
    type: str
    env: [{name: K8S_AUTH_IMPERSONATE_USER}]
  impersonate_groups:
    description: Groups to act as.
    type: list
    elements: str
    env: [{name: K8S_AUTH_IMPERSONATE_GROUPS}]
extends_documentation_fragment:
  - constructed
  - inventory_cache
requirements:
  - kubernetes (Python package) >= 24.2
notes:
  - "Variables of a host: C(ansible_host), C(object_type) (V(vmi)), C(uid), C(labels), C(annotations),
    C(resource_version), C(cluster_name), C(vmi_name), C(vmi_namespace), C(vmi_spec), C(vmi_phase), C(vmi_node_name),
    C(vmi_interfaces), C(vmi_conditions), C(vmi_guest_os_info), C(vmi_volume_status), C(vmi_qos_class),
    C(vmi_active_pods), C(vmi_launcher_container_image_version), C(vmi_migration_method), C(vmi_migration_transport),
    C(vmi_phase_transition_timestamps), C(vmi_virtual_machine_revision_name) of its status."
  - Anyone who may create virtual machines chooses these values. They are never evaluated as templates, and only
    O(compose) turns them into connection variables; name the ones that can be trusted.
"""

EXAMPLES = r"""
# All machines the kubeconfig's user may see.
plugin: turtles.kubevirt.kubevirt
kubeconfig: kubeconfig

---
# Two namespaces, one label; the user's name is in an annotation of the machine.
plugin: turtles.kubevirt.kubevirt
namespaces: [shop, lab]
label_selector: ansible=true
network_name: default
compose:
  ansible_user: annotations['example.com/login'] | default('debian')
keyed_groups:
  - key: vmi_guest_os_info.id | default('unknown')
    prefix: os

---
# Two clusters beside each other need names that differ.
plugin: turtles.kubevirt.kubevirt
name: berlin
context: berlin
host_format: "{cluster}-{namespace}-{name}"
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/turtles-inventory
"""

import difflib
import ipaddress
import os
from concurrent.futures import ThreadPoolExecutor

from ansible import constants
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var

from ..module_utils import _resources
from ..module_utils._base import explain_error
from ..module_utils._client import AUTH_ARGUMENTS, ApiError, Client, KubeError
from ..module_utils._values import plain

try:
    from ansible.template import trust_as_template
except ImportError:  # ansible-core < 2.19 trusts what isn't marked

    def trust_as_template(value):
        """The value itself."""
        return value


NAMESPACE = _resources.known("v1", "Namespace")
PARALLEL = 8
TEMPLATE_MARKS = ("{{", "{%", "{#")

# host variable -> member of the instance's status
STATUS_VARIABLES = {
    "vmi_active_pods": "activePods",
    "vmi_conditions": "conditions",
    "vmi_guest_os_info": "guestOSInfo",
    "vmi_interfaces": "interfaces",
    "vmi_launcher_container_image_version": "launcherContainerImageVersion",
    "vmi_migration_method": "migrationMethod",
    "vmi_migration_transport": "migrationTransport",
    "vmi_node_name": "nodeName",
    "vmi_phase": "phase",
    "vmi_phase_transition_timestamps": "phaseTransitionTimestamps",
    "vmi_qos_class": "qosClass",
    "vmi_virtual_machine_revision_name": "virtualMachineRevisionName",
    "vmi_volume_status": "volumeStatus",
}


def address_of(instance, network_name=None, family="any"):
    """Return the address of a VirtualMachineInstance that options ask for, or None. Only IP addresses count."""
    for interface in (instance.get("status") or {}).get("interfaces") or []:
        if network_name and interface.get("name") != network_name:
            continue
        for text in [interface.get("ipAddress"), *(interface.get("ipAddresses") or [])]:
            try:
                address = ipaddress.ip_address(text or "")
            except ValueError:
                continue
            if address.is_link_local or address.is_loopback:
                continue
            if family == "any" or family == "ipv%d" % address.version:
                return str(address)
    return None


def _is_running(instance):
    """Return whether a machine runs and isn't being shut down."""
    status = instance.get("status") or {}
    return status.get("phase") == "Running" and not instance["metadata"].get("deletionTimestamp")


def _networks_of(instance):
    """Return the names of an instance's networks, those it only reports included."""
    declared = (instance.get("spec") or {}).get("networks") or []
    reported = (instance.get("status") or {}).get("interfaces") or []
    return [entry["name"] for entry in declared + reported if entry.get("name")]


def variables_of(instance, cluster):
    """Return the host variables of a VirtualMachineInstance, without its address."""
    metadata, status = instance.get("metadata") or {}, instance.get("status") or {}
    variables = {
        "object_type": "vmi",
        "cluster_name": cluster,
        "uid": metadata.get("uid"),
        "resource_version": metadata.get("resourceVersion"),
        "labels": metadata.get("labels") or {},
        "annotations": metadata.get("annotations") or {},
        "vmi_name": metadata.get("name"),
        "vmi_namespace": metadata.get("namespace"),
        "vmi_spec": instance.get("spec") or {},
    }
    for variable, member in STATUS_VARIABLES.items():
        if member in status:
            variables[variable] = status[member]
    return variables


def guarded(value):
    """value with each string that Ansible could take for a template marked as unsafe, and the others as harmless:
    ansible-inventory shows strings of which it doesn't know that in a form of its own."""
    if isinstance(value, dict):
        return {guarded(k): guarded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [guarded(v) for v in value]
    if isinstance(value, str) and (value.startswith("#jinja2:") or any(mark in value for mark in TEMPLATE_MARKS)):
        return wrap_var(value)
    return trust_as_template(value) if isinstance(value, str) else value


def groups_of(instance):
    """Return the names of the groups that create_groups makes, before characters are replaced."""
    metadata, status = instance.get("metadata") or {}, instance.get("status") or {}
    groups = ["namespace_%s" % metadata.get("namespace")]
    if status.get("nodeName"):
        groups.append("node_%s" % status["nodeName"])
    for key, value in sorted((metadata.get("labels") or {}).items()):
        groups.append("label_%s_%s" % (key, value))
    return groups


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Running virtual machines as hosts."""

    NAME = "turtles.kubevirt.kubevirt"

    def verify_file(self, path):
        """Return whether the file is meant for this plugin, by its name."""
        return super().verify_file(path) and path.endswith(("kubevirt.yml", "kubevirt.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        """Fill the inventory from the file's options."""
        super().parse(inventory, loader, path, cache)
        self._refuse_unknown(path, self._read_config_data(path))
        key = self.get_cache_key(path)
        use_cache = self.get_option("cache") and cache
        instances = None
        if use_cache:
            instances = self._cache.get(key)
        if instances is None:
            try:
                instances = self._fetch(path)
            except KubeError as exc:
                # Not "from exc": Ansible appends the text of each cause, which is this text once more.
                raise AnsibleParserError("%s: %s" % (path, exc)) from None
            if self.get_option("cache"):
                self._cache[key] = instances
        self._populate(instances)

    def _refuse_unknown(self, path, config):
        """Refuse unknown keys, which Ansible accepts: a typo would go unnoticed, and too many hosts be listed."""
        definitions = constants.config.get_configuration_definitions("inventory", self._load_name)
        known = {"plugin", *definitions}
        known.update(alias for option in definitions.values() for alias in option.get("aliases") or ())
        for name in sorted(set(config) - known):
            alike = difflib.get_close_matches(name, known, 1)
            hint = " Is %s meant?" % alike[0] if alike else ""
            raise AnsibleParserError("%s: %s isn't an option of the inventory plugin.%s" % (path, name, hint))

    # -- reading ----------------------------------------------------------------------------------------------------

    def _fetch(self, path):
        """Return the instances, without what no host variable shows."""
        client = Client(self._auth(path))
        resource = _resources.known(self.get_option("api_version"), "VirtualMachineInstance")
        namespaces = self.get_option("namespaces")
        for namespace in namespaces or []:
            _resources.check_name("namespaces", namespace)
        if namespaces:
            instances = self._by_namespace(client, resource, namespaces, forbidden_is_error=True)
            self._check_namespaces(client, namespaces, instances)
        else:
            try:
                instances = self._list(client, resource, None)
            except ApiError as exc:
                if exc.status != 403:
                    raise self._refused(exc, "all namespaces") from exc
                instances = self._by_namespace(client, resource, self._namespaces(client), forbidden_is_error=False)
        for instance in instances:
            (instance.get("metadata") or {}).pop("managedFields", None)
        return instances

    def _list(self, client, resource, namespace):
        return client.list(_resources.path(resource, namespace), label_selector=self.get_option("label_selector"))[0]

    def _namespaces(self, client):
        try:
            return [n["metadata"]["name"] for n in client.list(_resources.path(NAMESPACE))[0]]
        except ApiError as exc:
            if exc.status != 403:
                raise
            namespace = client.default_namespace
            self.display.vvv(
                "turtles.kubevirt.kubevirt: not allowed to list all instances or namespaces; reading %s only"
                % namespace
            )
            return [namespace]

    def _by_namespace(self, client, resource, namespaces, forbidden_is_error):
        def read(namespace):
            try:
                return self._list(client, resource, namespace), None
            except ApiError as exc:
                return [], exc

        with ThreadPoolExecutor(PARALLEL) as pool:
            answers = list(pool.map(read, namespaces))
        refused = [(n, exc) for n, (dummy, exc) in zip(namespaces, answers) if exc]
        for namespace, exc in refused:
            if exc.status != 403 or forbidden_is_error:
                raise self._refused(exc, "namespace %s" % namespace)
        if refused and len(refused) == len(namespaces):
            raise self._refused(refused[0][1], "namespace %s" % refused[0][0])
        return [instance for items, dummy in answers for instance in items]

    def _check_namespaces(self, client, namespaces, instances):
        """Name the namespaces that don't exist: listing them gives no error, just no instances."""
        full = {(instance.get("metadata") or {}).get("namespace") for instance in instances}
        for namespace in dict.fromkeys(namespaces):
            if namespace in full:
                continue
            try:
                exists = client.get(_resources.path(NAMESPACE, None, namespace)) is not None
            except ApiError:
                # Users who may list instances often may not read namespaces.
                continue
            if not exists:
                self._report("namespaces: namespace %s doesn't exist. Check the spelling." % namespace)

    def _report(self, message):
        """Warn, or fail where the option strict says so."""
        if self.get_option("strict"):
            raise AnsibleParserError(message)
        self.display.warning("turtles.kubevirt.kubevirt: %s" % message)

    @staticmethod
    def _refused(exc, where):
        return KubeError("VirtualMachineInstances of %s can't be listed: %s" % (where, explain_error(exc)), **exc.facts)

    def _auth(self, path):
        options = {}
        for name in AUTH_ARGUMENTS:
            if self.has_option(name):
                options[name] = self.get_option(name)
        beside = os.path.dirname(os.path.abspath(path))
        for name in ("kubeconfig", "ca_cert", "client_cert", "client_key"):
            value = options.get(name)
            if isinstance(value, str) and value and not value.lstrip().startswith("{"):
                value = os.path.expanduser(os.path.expandvars(value))
                candidate = os.path.join(beside, value)
                options[name] = candidate if os.path.exists(candidate) else value
        # The Kubernetes library writes parts of it to files, and takes no marked strings.
        return {name: plain(value) for name, value in options.items() if value is not None}

    # -- writing ----------------------------------------------------------------------------------------------------

    def _populate(self, instances):
        cluster = self._sanitize_group_name(self.get_option("name"))
        self.inventory.add_group(cluster)
        strict = self.get_option("strict")
        taken = {}
        running = [instance for instance in instances if _is_running(instance)]
        network_exists = self._check_network(running)
        for instance in running:
            metadata = instance["metadata"]
            identity = "%s/%s" % (metadata.get("namespace"), metadata.get("name"))
            address = address_of(instance, self.get_option("network_name"), self.get_option("address_family"))
            if not address:
                self.display.vvv("turtles.kubevirt.kubevirt: %s runs but has no address yet" % identity)
                continue
            host = self._host_name(metadata)
            if host in taken:
                raise AnsibleParserError(
                    "host_format %r gives %s and %s the same name %s. Add what tells them apart, such as {namespace}."
                    % (self.get_option("host_format"), taken[host], identity, host)
                )
            taken[host] = identity
            self.inventory.add_host(host, group=cluster)
            self.inventory.set_variable(host, "ansible_host", guarded(address))
            variables = variables_of(instance, self.get_option("name"))
            for name, value in variables.items():
                self.inventory.set_variable(host, name, guarded(value))
            if self.get_option("create_groups"):
                for group in groups_of(instance):
                    self.inventory.add_host(host, group=self.inventory.add_group(self._sanitize_group_name(group)))
            facts = self.inventory.get_host(host).get_vars()
            self._set_composite_vars(self.get_option("compose"), facts, host, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), facts, host, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), facts, host, strict=strict)

        if running and not taken and network_exists:
            # No error, even with strict: they may have just been started.
            self.display.warning(
                "turtles.kubevirt.kubevirt: none of the %d running virtual machines has an address%s yet, so there are "
                "no hosts." % (len(running), self._wanted_address())
            )

    def _check_network(self, running):
        """Return whether a machine has the network that is asked for; report it if none has."""
        wanted = self.get_option("network_name")
        names = {name for instance in running for name in _networks_of(instance)}
        missing = bool(wanted and running and wanted not in names)
        if missing:
            self._report(
                "network_name: none of the %d running virtual machines has a network %s. They have %s."
                % (len(running), wanted, ", ".join(sorted(names)) or "none")
            )
        return not missing

    def _wanted_address(self):
        """Return which addresses count, for a message."""
        network, family = self.get_option("network_name"), self.get_option("address_family")
        words = " of the family %s" % family if family != "any" else ""
        return words + (" in network %s" % network if network else "")

    def _host_name(self, metadata):
        template = self.get_option("host_format")
        try:
            return template.format_map(
                {
                    "namespace": metadata.get("namespace"),
                    "name": metadata.get("name"),
                    "uid": metadata.get("uid"),
                    "cluster": self.get_option("name"),
                }
            )
        except (KeyError, IndexError, ValueError, AttributeError) as exc:
            raise AnsibleParserError(
                "host_format: %r can't be filled in (%s). Use {namespace}, {name}, {uid} and {cluster}."
                % (template, exc)
            ) from None
