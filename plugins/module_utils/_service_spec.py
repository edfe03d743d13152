# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Specs of Services from options. Pure."""

from __future__ import annotations

from ._errors import KubeError
from ._values import is_number

# On each launcher Pod, with the host name of its machine.
_MACHINE = "vm.kubevirt.io/name"
_LABEL = 63
# The options of a Service, and which of them exclude each other.
ARGUMENTS = {
    "vm": {"type": "str"},
    "selector": {"type": "dict"},
    "type": {"type": "str", "choices": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "headless": {"type": "bool"},
    "ports": {
        "type": "list",
        "elements": "dict",
        "options": {
            "port": {"type": "int", "required": True},
            "target_port": {"type": "str"},
            "protocol": {"type": "str", "choices": ["TCP", "UDP", "SCTP"], "default": "TCP"},
            "node_port": {"type": "int"},
            "name": {"type": "str"},
        },
    },
    "session_affinity": {"type": "str", "choices": ["None", "ClientIP"]},
    "external_traffic_policy": {"type": "str", "choices": ["Cluster", "Local"]},
}
RULES = {"mutually_exclusive": [["vm", "selector"]]}


def selector_of(name, vm):
    """Return the labels that the Pods of a machine have, and no others.

    :param name: of the VirtualMachine. :param vm: it, or {}.
    """
    template = ((vm.get("spec") or {}).get("template") or {}).get("spec") or {}
    # As KubeVirt derives a host name: no dots, at most 63 characters.
    host = template.get("hostname") or name.split(".")[0][:_LABEL].rstrip("-")
    return {_MACHINE: host}


def spec_of(params, selector, live):
    """Return the spec that options declare.

    :param selector: the machines' labels, or None.
    :param live: the Service as it is, or None.
    :raises KubeError: names the option that can't be.
    """
    before = (live or {}).get("spec") or {}
    kind = params["type"] or before.get("type") or "ClusterIP"
    if live is None and not selector:
        raise KubeError("vm: missing for a new Service. Name the machine, or give a selector for several.")
    spec = {
        "selector": selector,
        "type": params["type"],
        "sessionAffinity": params["session_affinity"],
        "externalTrafficPolicy": params["external_traffic_policy"],
    }
    if params["headless"]:
        if kind != "ClusterIP":
            raise KubeError("headless: a Service of type %s needs a cluster IP" % kind)
        if live is not None and before.get("clusterIP") != "None":
            raise KubeError("headless: the Service has a cluster IP, which can't be removed; delete the Service first")
        spec["clusterIP"] = "None"
    if params["ports"] is not None:
        spec["ports"] = _ports(params["ports"], before.get("ports") or [], kind)
    elif live is None and not params["headless"]:
        raise KubeError("ports: missing for a new Service. Give at least one, such as [{port: 22}].")
    return {key: value for key, value in spec.items() if value is not None}


def _ports(ports, before, kind):
    known = {(port.get("port"), port.get("protocol", "TCP")): port for port in before}
    declared = []
    for index, port in enumerate(ports):
        number, protocol, target = port["port"], port["protocol"], port["target_port"]
        for option, value in (("port", number), ("node_port", port["node_port"])):
            if value is not None and not 0 < value < 65536:
                raise KubeError("ports[%d].%s: %s isn't a port; use 1 to 65535" % (index, option, value))
        if port["node_port"] and kind == "ClusterIP":
            raise KubeError("ports[%d].node_port: a Service of type ClusterIP has none; use type NodePort" % index)
        old = known.get((number, protocol), {})
        entry = {
            "name": port["name"] or ("%s-%d" % (protocol.lower(), number) if len(ports) > 1 else None),
            "port": number,
            "protocol": protocol,
            "targetPort": number if target is None else int(target) if is_number(target) else target,
            "nodePort": port["node_port"] or (old.get("nodePort") if kind != "ClusterIP" else None),
        }
        # What the server allotted stays; null removes what is gone.
        declared.append({key: value for key, value in entry.items() if value is not None or old.get(key) is not None})
    return declared


def has_address(service):
    """Return whether a Service is reached at an address, or needs none."""
    spec = (service or {}).get("spec") or {}
    if spec.get("type") == "LoadBalancer":
        return bool(((service.get("status") or {}).get("loadBalancer") or {}).get("ingress"))
    return bool(spec.get("clusterIP")) or spec.get("type") == "ExternalName"
