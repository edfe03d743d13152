# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read the virtual machines of one cluster, and what is around them, in as few requests as its user's rights allow."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from ..module_utils import _resources
from ..module_utils._client import Client
from ..module_utils._errors import ApiError, KubeError, explain_error
from . import _addresses

NAMESPACE = _resources.known("v1", "Namespace")
NODE = _resources.known("v1", "Node")
SERVICE = _resources.known("v1", "Service")
# What OpenShift shows of namespaces to those who may not list them, and where its base domain is.
PROJECT = _resources.Resource("project.openshift.io/v1", "Project", "projects", False)
OPENSHIFT_DNS = "/apis/config.openshift.io/v1/dnses/cluster"
PARALLEL = 8


class ClusterReader:
    """Reads one cluster once.

    :param cluster: its ClusterOptions.
    :param needs: what is to be read: ``machines`` (VirtualMachines too) and ``keep`` (what of an object).
    :param domain: whether to ask for the base domain.
    :param note: called with what only matters to someone who looks for an error.
    :param services_asked_for: whether the file says that Services are to be used; else they may be forbidden.
    """

    def __init__(self, cluster, needs, domain, note, services_asked_for):
        self._cluster, self._needs, self._domain = cluster, needs, domain
        self._note, self._services_asked_for = note, services_asked_for
        self._reports = []
        self._skipped = {}
        self._discovered = None
        self._discovering = threading.Lock()
        for namespace in cluster["namespaces"] or ():
            _resources.check_name("namespaces", namespace)
        self._client = Client(cluster.auth())

    def snapshot(self):
        """Return vms, vmis, services, nodes, base_domain, server, and the reports: (text, whether it is an error).

        :raises KubeError: the machines can't be read.
        """
        version = self._cluster["api_version"]
        selector = self._cluster["label_selector"]
        vm, vmi = (_resources.known(version, kind) for kind in ("VirtualMachine", "VirtualMachineInstance"))
        with ThreadPoolExecutor(PARALLEL) as pool:
            vmis = pool.submit(self._read, vmi, self._needs.keep, selector)
            vms = pool.submit(self._read, vm, self._needs.keep, selector) if self._needs.machines else None
            services = pool.submit(self._services, vmis)
            nodes = pool.submit(self._nodes)
            domain = pool.submit(self._base_domain)
            found = {"vmis": vmis.result(), "vms": vms.result() if vms else []}
            found.update(services=services.result(), nodes=nodes.result(), base_domain=domain.result())
        if selector and found["vms"]:
            found["vmis"] += self._instances_of(found["vms"], found["vmis"], vmi)
        self._check_namespaces(found["vmis"] + found["vms"])
        for namespace, reason in sorted(self._skipped.items()):
            self._reports.append(
                ("namespace %s is skipped: %s" % (namespace, reason), bool(self._cluster["namespaces"]))
            )
        return {**found, "server": self._client.host, "reports": self._reports}

    # -- lists ------------------------------------------------------------------------------------------------------

    def _list(self, resource, namespace, keep, selector=None):
        return self._client.list(_resources.path(resource, namespace), label_selector=selector, keep=keep)[0]

    def _read(self, resource, keep, selector=None):
        """Return a collection of all namespaces that count: in one list if the user may, else one for each."""
        namespaces = list(dict.fromkeys(self._cluster["namespaces"] or ()))
        if not namespaces:
            try:
                return self._list(resource, None, keep, selector)
            except ApiError as exc:
                if exc.status != 403:
                    raise _refused(resource, exc, "all namespaces") from exc
            namespaces = self._namespaces()
        return self._by_namespace(resource, namespaces, keep, selector)

    def _by_namespace(self, resource, namespaces, keep, selector):
        def read(namespace):
            try:
                return self._list(resource, namespace, keep, selector), None
            except ApiError as exc:
                return [], exc

        with ThreadPoolExecutor(PARALLEL) as pool:
            answers = list(pool.map(read, namespaces))
        refused = [(namespace, exc) for namespace, (_items, exc) in zip(namespaces, answers) if exc]
        for namespace, exc in refused:
            if exc.status != 403:
                raise _refused(resource, exc, "namespace %s" % namespace)
        if refused and len(refused) == len(namespaces):
            raise _refused(resource, refused[0][1], "namespace %s" % refused[0][0])
        for namespace, exc in refused:
            if resource.kind == SERVICE.kind:
                self._note(str(_refused(resource, exc, "namespace %s" % namespace)))
            else:
                self._skipped.setdefault(namespace, str(_refused(resource, exc, "it")))
        return [item for items, _exc in answers for item in items]

    def _namespaces(self):
        """Return the namespaces that the user sees, or else that of the kubeconfig's context."""
        with self._discovering:
            if self._discovered is None:
                self._discovered = self._visible(NAMESPACE) or self._visible(PROJECT)
            if not self._discovered:
                self._discovered = [self._client.default_namespace]
                self._note("not allowed to list all instances or namespaces; reading only %s" % self._discovered[0])
            return self._discovered

    def _visible(self, resource):
        try:
            return self._list(resource, None, lambda item: item["metadata"]["name"])
        except ApiError as exc:
            if exc.status not in (403, 404):
                raise
            return []

    def _instances_of(self, vms, vmis, resource):
        """Return the instances of VirtualMachines that a label selects which their instances don't have."""
        there = {(vmi["metadata"]["namespace"], vmi["metadata"]["name"]) for vmi in vmis}
        missing = {
            (vm["metadata"]["namespace"], vm["metadata"]["name"])
            for vm in vms
            if (vm.get("status") or {}).get("created")
        } - there
        namespaces = sorted({namespace for namespace, _name in missing})
        found = self._by_namespace(resource, namespaces, self._needs.keep, None) if namespaces else []
        return [vmi for vmi in found if (vmi["metadata"]["namespace"], vmi["metadata"]["name"]) in missing]

    # -- around the machines ----------------------------------------------------------------------------------------

    def _services(self, vmis):
        """Return the Services that lead to machines.

        :param vmis: the future of the instances: where not all Services may be listed, those beside them may be.
        """
        if not self._cluster["use_service"] or self._cluster["network_name"]:
            return []
        keep = _addresses.light_service
        try:
            services = self._read(SERVICE, keep) if self._cluster["namespaces"] else self._list(SERVICE, None, keep)
        except ApiError as exc:
            if exc.status != 403:
                raise _refused(SERVICE, exc, "all namespaces") from exc
            services = self._services_beside(vmis.result())
        except KubeError as exc:
            services = self._without_services(exc)
        return [service for service in services if service]

    def _services_beside(self, instances):
        namespaces = sorted({instance["metadata"]["namespace"] for instance in instances})
        try:
            return self._by_namespace(SERVICE, namespaces, _addresses.light_service, None)
        except KubeError as exc:
            return self._without_services(exc)

    def _without_services(self, exc):
        if exc.facts.get("status") != 403:
            raise exc
        if self._services_asked_for:
            self._reports.append(("use_service: %s Machines are reached without Services." % exc, True))
        else:
            self._note(str(exc))
        return []

    def _nodes(self):
        kind = self._cluster["node_address"]
        if kind == "name" or not self._cluster["use_service"]:
            return {}
        try:
            return _addresses.node_addresses(self._list(NODE, None, None), kind)
        except ApiError as exc:
            raise KubeError(
                "node_address: %s needs the right to list nodes: %s Give that right, or use node_address: name."
                % (kind, explain_error(exc)),
                **exc.facts,
            ) from exc

    def _base_domain(self):
        """Return the base domain of an OpenShift cluster, None of any other."""
        if not self._domain:
            return None
        try:
            return ((self._client.get(OPENSHIFT_DNS) or {}).get("spec") or {}).get("baseDomain")
        except ApiError as exc:
            self._note("the cluster's base domain can't be read: %s" % exc)
            return None

    def _check_namespaces(self, objects):
        """Name the namespaces that don't exist: listing them gives no error, just no machines."""
        full = {obj["metadata"].get("namespace") for obj in objects}
        for namespace in dict.fromkeys(self._cluster["namespaces"] or ()):
            if namespace in full or namespace in self._skipped:
                continue
            try:
                exists = self._client.get(_resources.path(NAMESPACE, None, namespace)) is not None
            except ApiError:
                # Users who may list instances often may not read namespaces.
                continue
            if not exists:
                self._reports.append(("namespaces: namespace %s doesn't exist. Check the spelling." % namespace, True))


def _refused(resource, exc, where):
    return KubeError("%ss of %s can't be listed: %s" % (resource.kind, where, explain_error(exc)), **exc.facts)
