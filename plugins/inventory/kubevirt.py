# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inventory plugin kubevirt."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kubevirt
short_description: Virtual machines of KubeVirt as hosts
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Adds a host for each running virtual machine that has an address and, optionally, for stopped ones.
  - Takes all options of C(kubevirt.core.kubevirt). What else is different there is in O(compatibility).
  - Reads all namespaces in one paged list per kind. Where the user isn't allowed to, it reads namespace by namespace,
    several at a time. Namespaces whose machines may not be listed are skipped with a warning.
  - Namespaces and networks that don't exist draw a warning; with O(strict) they are errors. Running machines none of
    which has an address draw a warning. Options that don't exist are errors.
  - The file's name must end in C(kubevirt.yml) or C(kubevirt.yaml).
  - Hosts are in the group C(namespace_<namespace>), which is below the group of their cluster, O(name). A cluster
    without a name gets one derived from its server's address, and its group is below C(kubevirt). Characters that group
    names can't contain become underscores.
options:
  plugin:
    description: Marks the file as a source for this plugin.
    type: str
    required: true
    choices: [turtles.kubevirt.kubevirt]
  name:
    description: Name of the cluster, and of the group of all its hosts. Give each cluster its own. By default it is
      derived from the API server's address.
    type: str
  clusters:
    description:
      - Clusters to read, where a file is about several. Each has its own values of any of the options from O(name) to
        O(require_address), those for the connection to the API included; others are those of the file.
      - A cluster without O(name) gets the name of its O(context), if it has one. Names must differ.
      - An entry with O(kubeconfig), O(context) or O(host) takes no credentials from the environment.
      - Besides C(namespace_<namespace>) hosts are in C(<cluster>_namespace_<namespace>), which is below both the group
        of the cluster and C(namespace_<namespace>).
      - C(connections) is the name of older versions of kubevirt.core.
    type: list
    elements: dict
    aliases: [connections]
  compatibility:
    description:
      - With V(kubevirt.core), everything that option, host or variable of C(kubevirt.core.kubevirt) means is the same
        here. It sets the defaults O(include_stopped=true), O(require_address=false) and O(unset_ansible_port=true), and
        all variables of machines and instances but their specs; see O(host_vars). There are no groups that
        kubevirt.core doesn't have.
      - With thousands of machines, these variables account for most of the inventory's time and memory. O(compose),
        O(groups) and O(keyed_groups) see all variables without it.
    type: str
    choices: [kubevirt.core]
  namespaces:
    description: Namespaces to read. Defaults to all.
    type: list
    elements: str
  label_selector:
    description: Label selector that instances must match, or their VirtualMachines where these are read
      (O(include_stopped), or expressions and variables that need them).
    type: str
  include_stopped:
    description: Whether machines that don't run are hosts too. They have no C(ansible_host); their C(state) is
      V(Stopped), or what else C(status.printableStatus) of their VirtualMachine says.
    type: bool
    default: false
  require_address:
    description: Whether running machines without an address are left out. The default is V(true) without
      O(connection), and V(false) with it.
    type: bool
  network_name:
    description: Name of the interface (C(spec.networks[].name)) whose address is used. Defaults to the first one that
      has an address. Services aren't used then.
    type: str
    aliases: [interface_name]
  address_family:
    description: Family of the address used. V(any) takes the first one.
    type: str
    choices: [any, ipv4, ipv6]
    default: any
  kube_secondary_dns:
    description: Whether machines are reached by the names that kubesecondarydns gives the interface O(network_name),
      C(<network>.<machine>.<namespace>.vm), with O(base_domain) at the end.
    type: bool
    default: false
  use_service:
    description:
      - Whether machines are reached through Services of type C(LoadBalancer) and C(NodePort), if there is one that
        forwards to port 22 of the guest (5986, else 5985, for C(winrm) and C(psrp)). It may have other ports too. From
        outside a cluster, this is often the only way.
      - With V(false) machines are reached at their own addresses, which is right where these can be reached, as on a
        machine in standalone mode, where ports of nodes are served on few addresses.
      - Services that lead to several machines aren't used. The selector may be any; target ports may have names.
      - If Services can't be listed, they aren't used; a file that has this option gets a warning.
    type: bool
    default: true
  node_address:
    description: How nodes are reached for Services of type C(NodePort), by their name or an address of their status.
      Anything but V(name) needs the right to list nodes.
    type: str
    choices: [name, hostname, internal_ip, external_ip]
    default: name
  append_base_domain:
    description: Whether O(base_domain) is appended to names of nodes.
    type: bool
    default: false
  base_domain:
    description: Domain for O(kube_secondary_dns) and O(append_base_domain). Defaults to that of an OpenShift cluster,
      if it is one.
    type: str
  unset_ansible_port:
    description: Whether C(ansible_port) is set to null for hosts that are reached at the usual port, which hides the
      value it has for a group.
    type: bool
    default: false
  connection:
    description:
      - Connection plugin of all hosts that don't run Windows, as C(ansible_connection). By default it isn't set.
      - For plugins that need no address of the machine, such as P(turtles.kubevirt.portforward#connection), which
        connects through the API. Machines without an address are hosts then, unless O(require_address) says otherwise.
      - For connection plugins of this collection, the variables that name the machine and the API are set, but for
        tokens and passwords. For others, O(compose) makes variables of C(vmi_namespace) and C(vmi_name).
    type: str
  default_win_ansible_connection:
    description: Connection plugin of hosts that run Windows, such as V(winrm), V(psrp) or V(ssh). A machine runs
      Windows if its guest agent says so, else if its preference or the annotation C(vm.kubevirt.io/os) begin with
      C(windows).
    type: str
    default: winrm
  host_format:
    description: Name of the hosts. V({namespace}), V({name}), V({uid}) and V({cluster}) are replaced. Defaults to
      V({namespace}-{name}), for several O(clusters) to V({cluster}-{namespace}-{name}).
    type: str
  create_groups:
    description: Whether to group by label and node. Adds V(label) and V(node) to O(group_by).
    type: bool
    default: false
  group_by:
    description:
      - What to group hosts by.
      - V(namespace) makes C(namespace_<namespace>), V(node) C(node_<node>), V(label) C(label_<key>_<value>) for each
        label of the machine and its instance, V(instancetype) C(instancetype_<name>), V(preference)
        C(preference_<name>), V(state) C(state_<state>) in lower case, such as C(state_running) or C(state_paused), and
        V(os) C(os_<id>) by what the guest agent reports (C(os_debian), C(os_mswindows)), else by preference or the
        annotation C(vm.kubevirt.io/os).
    type: list
    elements: str
    choices: [namespace, node, label, instancetype, preference, state, os]
    default: [namespace]
  host_vars:
    description:
      - Host variables to set besides those that are always set, which are C(cluster_name), C(object_type) (V(vm), or
        V(vmi) for an instance without VirtualMachine), C(state), C(uid), C(labels), C(annotations), C(vm_name),
        C(vm_namespace), C(vmi_name), C(vmi_namespace), C(vmi_node_name) and C(vmi_phase).
      - There are C(vm_) and C(vmi_) with C(name), C(namespace), C(uid), C(labels), C(annotations),
        C(resource_version), C(spec), and each member of C(status), such as C(vmi_interfaces), C(vmi_guest_os_info) or
        C(vm_printable_status); those with C(vm_) exist for VirtualMachines only, and only where these are read.
      - Names and patterns such as V(vmi_*) or V(*). One with an exclamation mark before it removes, V(!annotations).
      - O(compose), O(groups) and O(keyed_groups) see all of them, set or not.
    type: list
    elements: str
  annotation_prefix:
    description: Prefix of annotations that become host variables. With V(inventory.example.com/) an annotation
      C(inventory.example.com/tier) becomes the variable C(tier). Anyone who can annotate a machine chooses their
      values; names that begin with C(ansible_) are ignored with a warning.
    type: str
  variables:
    description:
      - Host variables by L(JMESPath,https://jmespath.org) expressions, as a mapping of names to expressions. Those
        that select nothing aren't set.
      - An expression sees C(metadata), C(spec) and C(status) of the instance (of the VirtualMachine, if it doesn't
        run), both objects as C(vm) and C(vmi), C(state) and C(cluster), the cluster's name.
    type: dict
  select:
    description: JMESPath expression for the machines that are hosts, those for which it gives anything but false, null
      or something empty. It sees the same as those of O(variables), except for C(cluster).
    type: str
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
  proxy_headers:
    description: Headers to send to the proxy, C(basic_auth), C(proxy_basic_auth) and C(user_agent). Their variables are
      E(K8S_AUTH_PROXY_HEADERS_BASIC_AUTH), E(K8S_AUTH_PROXY_HEADERS_PROXY_BASIC_AUTH) and
      E(K8S_AUTH_PROXY_HEADERS_USER_AGENT).
    type: dict
  persist_config:
    description: Whether renewed tokens are written back to the kubeconfig.
    type: bool
    env: [{name: K8S_AUTH_PERSIST_CONFIG}]
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
  - jmespath (Python package) >= 1.0, for O(variables) and O(select)
notes:
  - Anyone who may create virtual machines chooses the values of these variables. They are never evaluated as templates,
    and only O(compose) turns them into connection variables; name the ones that can be trusted. The plugin itself sets
    C(ansible_host), C(ansible_port), and C(ansible_connection) with C(ansible_winrm_scheme) or
    C(ansible_psrp_protocol).
  - The cache is kept per cluster, user and selection, so that another context, kubeconfig or selector isn't served from
    it. Names and groups of hosts aren't part of it.
  - The annotation C(kubectl.kubernetes.io/last-applied-configuration) and C(metadata.managedFields) are left out.
  - How to move from C(kubevirt.core) is described in C(docs/migration.md).
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
# Two clusters in one file: hosts are berlin-<namespace>-<name> and paris-<namespace>-<name>.
plugin: turtles.kubevirt.kubevirt
kubeconfig: kubeconfig
clusters:
  - name: berlin
    context: berlin
  - name: paris
    context: paris
    namespaces: [shop]
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/turtles-inventory

---
# From outside of the cluster: by Services of type NodePort, at the nodes' external addresses.
plugin: turtles.kubevirt.kubevirt
use_service: true
node_address: external_ip

---
# By the names of kubesecondarydns, in a network of their own.
plugin: turtles.kubevirt.kubevirt
network_name: lan
kube_secondary_dns: true
base_domain: vms.example.com

---
# All machines, running or not, grouped by what they are.
plugin: turtles.kubevirt.kubevirt
include_stopped: true
group_by: [namespace, state, os, instancetype, preference, node]

---
# Windows guests by psrp, through the port of a Service that leads to 5986.
plugin: turtles.kubevirt.kubevirt
default_win_ansible_connection: psrp

---
# Variables and a selection by JMESPath, and from annotations such as inventory.example.com/tier.
plugin: turtles.kubevirt.kubevirt
select: "spec.domain.cpu.cores >= `2` && metadata.labels.tier"
variables:
  cores: spec.domain.cpu.cores
  disks: spec.domain.devices.disks[].name
  strategy: vm.spec.runStrategy
annotation_prefix: inventory.example.com/

---
# The whole spec as a variable of each host, without the annotations.
plugin: turtles.kubevirt.kubevirt
host_vars: [vmi_spec, "!annotations"]

---
# A file of kubevirt.core whose playbooks use all of its variables.
plugin: turtles.kubevirt.kubevirt
compatibility: kubevirt.core
namespaces: [testing]
create_groups: true
"""

import json
from concurrent.futures import ThreadPoolExecutor

from ansible import constants
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ..module_utils._errors import KubeError
from ..module_utils._jmespath import Expression, ExpressionError
from ..module_utils._values import plain
from ..plugin_utils import _addresses, _collector, _inventory_options, _machines, _reach
from ..plugin_utils._guard import Guard, is_template, trust_as_template
from ..plugin_utils._inventory_groups import Groups
from ..plugin_utils._inventory_needs import Needs

PLUGIN = "turtles.kubevirt.kubevirt"
PARALLEL = 8
# Changes when what is in the cache does.
CACHE_FORMAT = 1
PLACEHOLDERS = ("namespace", "name", "uid", "cluster")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Virtual machines as hosts."""

    NAME = PLUGIN

    def verify_file(self, path):
        """Return whether the file is meant for this plugin, by its name."""
        return super().verify_file(path) and path.endswith(("kubevirt.yml", "kubevirt.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        """Fill the inventory from the file's options."""
        super().parse(inventory, loader, path, cache)
        with _collector.paused():
            self._parse(path, cache)

    def _parse(self, path, cache):
        config = self._read_config_data(path)
        definitions = constants.config.get_configuration_definitions("inventory", self._load_name)
        _inventory_options.refuse_unknown(config, {"plugin": {}, **definitions}, path)
        clusters = _inventory_options.clusters_of(self, config, definitions, path)
        self._asked_for_services = "use_service" in config
        self._guard = Guard()
        try:
            self._select = self._expressions()
        except ExpressionError as exc:
            raise AnsibleParserError("%s: %s" % (path, exc)) from None
        snapshots = self._snapshots(clusters, path, cache)
        several = len(clusters) > 1
        names = [
            cluster.cluster_name()
            or (several and cluster["context"])
            or _inventory_options.default_name(snapshot["server"])
            for cluster, snapshot in zip(clusters, snapshots)
        ]
        for name in names:
            if names.count(name) > 1:
                raise AnsibleParserError(
                    "%s: clusters: %d of them are named %s. Give each a unique name." % (path, names.count(name), name)
                )
        self._taken = {}
        try:
            for cluster, snapshot, name in zip(clusters, snapshots, names):
                self._populate(cluster, snapshot, plain(name), several)
        except ExpressionError as exc:
            raise AnsibleParserError("%s: %s" % (path, exc)) from None

    def _expressions(self):
        """Compile the JMESPath expressions; return that of the option select."""
        variables = self.get_option("variables") or {}
        for name in variables:
            if not str(name).isidentifier():
                raise ExpressionError("variables: %r isn't a valid variable name." % plain(str(name)))
        self._variables = [
            (str(name), Expression("variables.%s" % name, text)) for name, text in sorted(variables.items())
        ]
        select = self.get_option("select")
        return Expression("select", select) if select is not None else None

    def _needs(self, cluster):
        exported = list(_machines.DEFAULT_VARIABLES)
        if self.get_option("compatibility") == "kubevirt.core":
            exported += _machines.ALL_BUT_SPECS
        exported += map(plain, self.get_option("host_vars") or ())
        templates = [str(text) for option in ("compose", "groups") for text in (self.get_option(option) or {}).values()]
        templates += [str(value) for keyed in self.get_option("keyed_groups") or () for value in _texts(keyed)]
        expressions = bool(self._select or self._variables)
        self._templated = bool(templates)
        return Needs(exported, templates, expressions, cluster["include_stopped"])

    # -- reading ----------------------------------------------------------------------------------------------------

    def _snapshots(self, clusters, path, cache):
        """Return what is known of each cluster: from the cache, or read now, all clusters at once."""
        use_cache = self.get_option("cache")
        keys = [self._key(cluster, path) for cluster in clusters]
        snapshots = [self._cached(key) if use_cache and cache else None for key in keys]
        missing = [number for number, snapshot in enumerate(snapshots) if snapshot is None]
        if not missing:
            return snapshots

        def fetch(number):
            try:
                return self._reader(clusters[number]).snapshot(), None
            except KubeError as exc:
                return None, exc

        with ThreadPoolExecutor(PARALLEL) as pool:
            answers = list(pool.map(fetch, missing))
        for number, (snapshot, failure) in zip(missing, answers):
            if failure:
                # Not "from failure": Ansible appends the text of each cause, which is this text once more.
                where = "%s: clusters[%d]" % (path, number) if len(clusters) > 1 else path
                raise AnsibleParserError("%s: %s" % (where, failure)) from None
            for message, error in snapshot.pop("reports"):
                self._report(message, error)
            snapshots[number] = snapshot
            if use_cache:
                # As text, which Ansible neither copies nor searches for what it would mark.
                self._cache[keys[number]] = {"format": CACHE_FORMAT, "snapshot": json.dumps(snapshot)}
        return snapshots

    def _key(self, cluster, path):
        """Return the key in the cache: changes with the server, the user, and what is asked for."""
        needs = self._needs(cluster)
        asked = [cluster.identity(), needs.whole, needs.machines, self._domain_wanted(cluster)]
        asked += [cluster[option] for option in ("use_service", "network_name", "node_address", "label_selector")]
        return "%s_%s" % (self.get_cache_key(path), _inventory_options.digest(asked))

    def _cached(self, key):
        """Return a snapshot from the cache, or None if there is none that can be used."""
        entry = self._cache.get(key)
        if not isinstance(entry, dict) or entry.get("format") != CACHE_FORMAT:
            return None
        try:
            return json.loads(plain(entry["snapshot"]))
        except (KeyError, TypeError, ValueError):
            return None

    def _reader(self, cluster):
        # Here: with what it needs to reach a cluster it takes longer to load than a cache to read.
        from ..plugin_utils._cluster_reader import ClusterReader

        return ClusterReader(
            cluster,
            self._needs(cluster),
            domain=self._domain_wanted(cluster),
            note=lambda text: self.display.vvv("%s: %s" % (PLUGIN, text)),
            services_asked_for=self._asked_for_services,
        )

    @staticmethod
    def _domain_wanted(cluster):
        """Return whether the cluster has to be asked for its base domain."""
        named = cluster["kube_secondary_dns"] and cluster["network_name"]
        return bool((named or cluster["append_base_domain"]) and not cluster["base_domain"])

    def _report(self, message, error=True):
        """Warn, or fail where the option strict says so and it is an error."""
        if error and self.get_option("strict"):
            raise AnsibleParserError(message)
        self.display.warning("%s: %s" % (PLUGIN, message))

    # -- writing ----------------------------------------------------------------------------------------------------

    def _populate(self, cluster, snapshot, name, several):
        """Add a cluster's machines to the inventory."""
        needs = self._needs(cluster)
        machines = self._selected(_machines.joined(snapshot["vms"], snapshot["vmis"]))
        running = [machine for machine in machines if _machines.is_running(machine)]
        network_exists = self._check_network(cluster, running)
        services = _addresses.services_by_machine(snapshot["services"], [m.vmi for m in machines if m.vmi])
        host_format = cluster["host_format"] or ("{cluster}-{namespace}-{name}" if several else "{namespace}-{name}")
        groups = Groups(self, cluster, name, several)
        required = self._address_required(cluster)
        added = 0
        for machine in machines if cluster["include_stopped"] else running:
            identity = "%s/%s" % (machine.namespace, machine.name)
            variables = _reach.variables(
                cluster, snapshot, machine, services.get((machine.namespace, machine.name), ())
            )
            if required and not variables.get("ansible_host") and _machines.is_running(machine):
                self.display.vvv("%s: %s is running but has no address yet" % (PLUGIN, identity))
                continue
            host = self._host_name(host_format, machine, name)
            identity = "%s of %s" % (identity, name) if several else identity
            self._claim(host, host_format, machine, identity)
            added += 1
            groups.add(machine, host)
            entry = self.inventory.hosts[host]
            own = self._own_variables(machine, name)
            variables = {**own, **variables}
            known = _machines.variables_of(machine, name, needs.exported)
            entry.vars.update(self._guard({**known, **variables}))
            if self._templated:
                facts = _machines.variables_of(machine, name, needs.templates)
                self._construct(host, {**self._guard(facts), **entry.get_vars()})

        if running and not added and network_exists:
            # No error, even with strict: they may have just been started.
            self.display.warning(
                "%s: none of the %d running virtual machines has an address%s yet, so there are no hosts."
                % (PLUGIN, len(running), _wanted_address(cluster))
            )

    def _selected(self, machines):
        if not self._select:
            return machines
        return [
            machine
            for machine in machines
            if self._select.search(_document(machine), "%s/%s" % (machine.namespace, machine.name))
        ]

    def _address_required(self, cluster):
        required = cluster["require_address"]
        return not cluster["connection"] if required is None else required

    def _own_variables(self, machine, cluster):
        """Return the variables that annotations and JMESPath expressions make."""
        variables = {}
        prefix = self.get_option("annotation_prefix")
        identity = "%s/%s" % (machine.namespace, machine.name)
        if prefix:
            variables, refused = _machines.annotated_variables(machine, prefix)
            for key in refused:
                self.display.warning(
                    "%s: %s: annotation %s is ignored: its name begins with ansible_, or isn't a valid "
                    "variable name." % (PLUGIN, identity, key)
                )
        if self._variables:
            document = {**_document(machine), "cluster": cluster}
            for name, expression in self._variables:
                value = expression.search(document, identity)
                if value is not None:
                    variables[name] = value
        return variables

    def _construct(self, host, facts):
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), facts, host, strict=strict)
        variables = self.inventory.hosts[host].vars
        for name in self.get_option("compose") or ():
            # Constants of expressions aren't marked.
            if isinstance(variables.get(name), str) and not is_template(variables[name]):
                variables[name] = trust_as_template(variables[name])
        # Groups see what compose has set. They aren't told to fetch it, which would merge all variables once more each.
        facts.update(variables)
        self._add_host_to_composed_groups(self.get_option("groups"), facts, host, strict=strict, fetch_hostvars=False)
        self._add_host_to_keyed_groups(
            self.get_option("keyed_groups"), facts, host, strict=strict, fetch_hostvars=False
        )

    def _check_network(self, cluster, running):
        """Return whether a machine has the network that is asked for; report it if none has."""
        wanted = cluster["network_name"]
        if not wanted or not running:
            return True
        names = {name for machine in running for name in _machines.networks_of(machine)}
        if wanted in names:
            return True
        self._report(
            "network_name: none of the %d running virtual machines has a network %s. They have %s."
            % (len(running), wanted, ", ".join(sorted(names)) or "none")
        )
        return False

    def _host_name(self, template, machine, cluster):
        metadata = (machine.vmi or machine.vm)["metadata"]
        values = {"namespace": machine.namespace, "name": machine.name, "uid": metadata.get("uid"), "cluster": cluster}
        try:
            return plain(template).format_map(values)
        except (KeyError, IndexError, ValueError, AttributeError) as exc:
            raise AnsibleParserError(
                "host_format: %r can't be formatted (%s). Use %s and {cluster}."
                % (plain(template), exc, ", ".join("{%s}" % name for name in PLACEHOLDERS[:-1]))
            ) from None

    def _claim(self, host, host_format, machine, identity):
        """Note whose host a name is; two machines can't have the same."""
        if host in self._taken:
            raise AnsibleParserError(
                "host_format %r gives %s and %s the same name %s. Add a distinguishing field, such as {namespace}%s."
                % (plain(host_format), self._taken[host], identity, host, " or {cluster}" if " of " in identity else "")
            )
        self._taken[host] = identity
        earlier = self.inventory.hosts.get(host)
        uid = (machine.vmi or machine.vm)["metadata"].get("uid")
        if earlier is not None and earlier.vars.get("uid") not in (None, uid):
            self._report(
                "host %s is a virtual machine of an earlier inventory file already, and is now %s. Give one of the "
                "files another host_format." % (host, identity)
            )


def _texts(keyed):
    """Return the expressions in an entry of keyed_groups."""
    return [keyed[name] for name in ("key", "parent_group") if keyed.get(name)] if isinstance(keyed, dict) else []


def _document(machine):
    """Return what JMESPath expressions see of a machine."""
    main = machine.vmi or machine.vm
    return {
        **{name: main.get(name) for name in ("metadata", "spec", "status")},
        "vm": machine.vm,
        "vmi": machine.vmi,
        "state": _machines.state_of(machine),
    }


def _wanted_address(cluster):
    """Return which addresses count, for a message."""
    network, family = cluster["network_name"], cluster["address_family"]
    words = " of the family %s" % family if family != "any" else ""
    return words + (" in network %s" % network if network else "")
