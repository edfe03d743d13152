# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where virtual machines can be reached: at an address, a name of kubesecondarydns, or a Service. Pure functions."""

from __future__ import annotations

import ipaddress
from collections import defaultdict, namedtuple

from ..module_utils._values import is_number

#: host and port of a connection; port is None for the connection's own.
Endpoint = namedtuple("Endpoint", "host port target")

SSH, WINRM_HTTPS, WINRM_HTTP = 22, 5986, 5985
# Types of a node's addresses, by the option that asks for them.
NODE_ADDRESSES = {"hostname": "Hostname", "internal_ip": "InternalIP", "external_ip": "ExternalIP"}
# Labels that virt-launcher Pods have besides those of their instance; Services select Pods.
_LAUNCHER = {"kubevirt.io": "virt-launcher"}
_NAME_LABEL = "vm.kubevirt.io/name"
_CREATED_BY_LABEL = "kubevirt.io/created-by"


def interface_address(instance, network_name=None, family="any"):
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


def secondary_dns_name(instance, network_name, base_domain=None):
    """Return the name that kubesecondarydns gives an interface (https://github.com/kubevirt/kubesecondarydns)."""
    metadata = instance["metadata"]
    name = "%s.%s.%s.vm" % (network_name, metadata["name"], metadata["namespace"])
    return "%s.%s" % (name, base_domain) if base_domain else name


# -- connections -------------------------------------------------------------------------------------------------------


def target_ports(connection):
    """Return the ports in a guest that a connection plugin talks to, the best first."""
    name = (connection or "ssh").rpartition(".")[2]
    return (WINRM_HTTPS, WINRM_HTTP) if name in ("winrm", "psrp") else (SSH,)


def is_through_api(connection):
    """Return whether a connection plugin of this collection reaches guests through the API."""
    return (connection or "").startswith("turtles.kubevirt.")


def connection_variables(connection, endpoint):
    """Return the variables by which a connection plugin knows what is behind a port that isn't the usual one.

    winrm and psrp take any port but 5985 for HTTPS.
    """
    name = (connection or "").rpartition(".")[2]
    option = {"winrm": "ansible_winrm_scheme", "psrp": "ansible_psrp_protocol"}.get(name)
    if not option or not endpoint.port or endpoint.port in (WINRM_HTTP, WINRM_HTTPS):
        return {}
    return {option: "http" if endpoint.target == WINRM_HTTP else "https"}


# -- Services ----------------------------------------------------------------------------------------------------------


def light_service(service):
    """Return what is needed of a Service that machines can be reached by from outside the cluster, else None."""
    spec, metadata = service.get("spec") or {}, service.get("metadata") or {}
    if spec.get("type") not in ("LoadBalancer", "NodePort") or not spec.get("selector") or not spec.get("ports"):
        return None
    return {
        "namespace": metadata.get("namespace"),
        "name": metadata.get("name"),
        "type": spec["type"],
        "selector": spec["selector"],
        "ports": [
            {name: port[name] for name in ("port", "targetPort", "nodePort", "protocol") if port.get(name)}
            for port in spec["ports"]
        ],
        "ingress": ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or [],
    }


def _pod_labels(instance):
    metadata = instance["metadata"]
    added = {_NAME_LABEL: metadata["name"], _CREATED_BY_LABEL: metadata.get("uid")}
    return {**_LAUNCHER, **added, **(metadata.get("labels") or {})}


def services_by_machine(services, instances):
    """Return the Services that lead to one machine alone, by its namespace and name.

    A Service of several machines leads to any of them.

    :param services: as light_service() returns them.
    """
    # Each Service is looked up by the label of its selector that fewest instances have.
    wanted = {label for service in services for label in service["selector"].items()}
    keys = {key for key, _value in wanted}
    having = defaultdict(list)
    for instance in instances:
        labels = _pod_labels(instance)
        for key in keys:
            if (key, labels.get(key)) in wanted:
                having[instance["metadata"]["namespace"], key, labels[key]].append((instance, labels))
    result = defaultdict(list)
    for service in services:
        namespace, selector = service["namespace"], service["selector"]
        fewest = min((having.get((namespace, *label), []) for label in selector.items()), key=len)
        chosen = [
            instance for instance, labels in fewest if all(labels.get(key) == value for key, value in selector.items())
        ]
        if len(chosen) == 1:
            result[namespace, chosen[0]["metadata"]["name"]].append(service)
    return dict(result)


def _target(port, instance):
    """Return the number of the port in the guest that a port of a Service leads to."""
    target = port.get("targetPort") or port.get("port")
    if isinstance(target, str):
        return int(target) if is_number(target) else (instance.get("ports") or {}).get(target)
    return target


def service_endpoint(services, instance, targets, node_host):
    """Return the Endpoint of the first Service that leads to one of these ports of a machine, or None.

    :param targets: ports in the guest, the best first.
    :param node_host: how the machine's node is reached, or None.
    """
    for target in targets:
        for service in services:
            for port in service["ports"]:
                if port.get("protocol", "TCP") != "TCP" or _target(port, instance) != target:
                    continue
                host, number = _outside(service, port, node_host)
                if host and number:
                    return Endpoint(host, number, target)
    return None


def _outside(service, port, node_host):
    """Return host and port of a port of a Service, as seen from outside the cluster."""
    if service["type"] == "NodePort":
        return node_host, port.get("nodePort")
    for entry in service["ingress"]:
        if entry.get("hostname") or entry.get("ip"):
            return entry.get("hostname") or entry["ip"], port.get("port")
    return None, None


def node_addresses(nodes, kind):
    """Return the addresses of nodes by name.

    :param kind: a key of NODE_ADDRESSES.
    """
    return {
        node["metadata"]["name"]: entry.get("address")
        for node in nodes
        for entry in reversed((node.get("status") or {}).get("addresses") or [])
        if entry.get("type") == NODE_ADDRESSES[kind]
    }
