# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the machines of an inventory are reached: connection plugin, address, port. Pure."""

from __future__ import annotations

from . import _addresses, _machines


def variables(cluster, snapshot, machine, services):
    """Return the variables that say how a machine is connected to."""
    windows = _machines.is_windows(machine)
    connection = cluster["default_win_ansible_connection"] if windows else cluster["connection"]
    found = {"ansible_connection": connection} if connection else {}
    if _addresses.is_through_api(connection):
        identity = {"ansible_kubevirt_vm": machine.name, "ansible_kubevirt_namespace": machine.namespace}
        return {**found, **cluster.api_variables, **identity}
    if not machine.vmi:
        return found
    endpoint = _endpoint(cluster, snapshot, machine.vmi, services, connection)
    if endpoint:
        found["ansible_host"] = endpoint.host
        if endpoint.port or cluster["unset_ansible_port"]:
            found["ansible_port"] = endpoint.port
        found.update(_addresses.connection_variables(connection, endpoint))
    return found


def _endpoint(cluster, snapshot, vmi, services, connection):
    network = cluster["network_name"]
    address = _addresses.interface_address(vmi, network, cluster["address_family"])
    domain = cluster["base_domain"] or snapshot["base_domain"]
    if network and cluster["kube_secondary_dns"]:
        name = _addresses.secondary_dns_name(vmi, network, domain)
        return _addresses.Endpoint(name, None, None) if address else None
    if services:
        node = (vmi.get("status") or {}).get("nodeName")
        if node and cluster["node_address"] != "name":
            node = snapshot["nodes"].get(node)
        elif node and cluster["append_base_domain"] and domain:
            node = "%s.%s" % (node, domain)
        found = _addresses.service_endpoint(services, vmi, _addresses.target_ports(connection), node)
        if found:
            return found
    return _addresses.Endpoint(address, None, None) if address else None
