# SPDX-License-Identifier: GPL-3.0-or-later
"""NetworkPolicies; the Pod runner enforces them.

Source: Kubernetes' pkg/apis/networking/validation.
"""

import ipaddress
from typing import Any

from turtles.standalone.apiserver.builtin import network_rules
from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_list, as_map, column, created, name_of
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.metadata import selector_causes
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    field_forbidden,
    invalid_value,
    not_supported,
    required,
)

_TYPES = ["Egress", "Ingress"]
_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
#: Fields with rules, and those of a rule's peers.
_DIRECTIONS = (("ingress", "from"), ("egress", "to"))


class NetworkPolicies(Strategy):
    """NetworkPolicies."""

    columns = (NAME, column("Pod-Selector", "The pods that the policy is for."), AGE)

    def cells(self, obj: Object) -> list[Any]:
        return [name_of(obj), _shown(as_map(as_map(obj.get("spec")).get("podSelector"))), created(obj)]

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("podSelector", {})
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
        for direction, _ in _DIRECTIONS:
            for rule in as_list(spec.get(direction)):
                for port in as_list(rule.get("ports")):
                    port.setdefault("protocol", "TCP")

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        spec = obj["spec"]
        causes = selector_causes(spec.get("podSelector"), "spec.podSelector")
        for direction, peers in _DIRECTIONS:
            for index, rule in enumerate(as_list(spec.get(direction))):
                here = f"spec.{direction}[{index}]"
                for number, port in enumerate(as_list(rule.get("ports"))):
                    causes += _port(port, f"{here}.ports[{number}]")
                for number, peer in enumerate(as_list(rule.get(peers))):
                    causes += _peer(peer, f"{here}.{peers}[{number}]")
        types = as_list(spec.get("policyTypes"))
        if len(types) > len(_TYPES):
            causes.append(invalid_value("spec.policyTypes", types, "may not specify more than two policyTypes"))
        else:
            for index, one in enumerate(types):
                if one not in _TYPES:
                    causes.append(not_supported(f"spec.policyTypes[{index}]", one, _TYPES))
        return causes


def _shown(selector: Object) -> str:
    """Return a selector as kubectl writes it."""
    words = [f"{key}={value}" for key, value in sorted(as_map(selector.get("matchLabels")).items())]
    for one in as_list(selector.get("matchExpressions")):
        values = f" ({','.join(sorted(one.get('values') or []))})" if one.get("values") else ""
        names = {"In": "{} in", "NotIn": "{} notin", "Exists": "{}", "DoesNotExist": "!{}"}
        words.append(names.get(one.get("operator"), "{}").format(one.get("key")) + values)
    return ",".join(words) or "<none>"


def _port(port: Object, path: str) -> list[Cause]:
    causes = network_rules.protocol_causes(port, path)
    number, end = port.get("port"), port.get("endPort")
    if number is None:
        if end is not None:
            causes.append(invalid_value(f"{path}.endPort", end, "may not be specified when `port` is not specified"))
    elif isinstance(number, str):
        if end is not None:
            causes.append(invalid_value(f"{path}.endPort", end, "may not be specified when `port` is non-numeric"))
        causes += network_rules.port_name_causes(number, f"{path}.port")
    else:
        causes += network_rules.port_causes(number, f"{path}.port")
        if end is not None:
            if end < number:
                text = "must be greater than or equal to `port`"
                causes.append(invalid_value(f"{path}.endPort", end, text))
            causes += network_rules.port_causes(end, f"{path}.endPort")
    return causes


def _peer(peer: Object, path: str) -> list[Cause]:
    causes: list[Cause] = []
    selectors = [field for field in ("podSelector", "namespaceSelector") if peer.get(field) is not None]
    block = peer.get("ipBlock")
    for field in selectors:
        causes += selector_causes(peer[field], f"{path}.{field}")
    if block is not None:
        causes += _block(block, f"{path}.ipBlock")
    if not selectors and block is None:
        causes.append(required(path, "must specify a peer"))
    elif selectors and block is not None:
        causes.append(field_forbidden(path, "may not specify both ipBlock and another peer"))
    return causes


def _block(block: Object, path: str) -> list[Cause]:
    cidr = block.get("cidr") or ""
    if not cidr:
        return [required(f"{path}.cidr")]
    network = _network(cidr)
    if network is None:
        return [invalid_value(f"{path}.cidr", cidr, _CIDR)]
    causes = []
    for index, text in enumerate(as_list(block.get("except"))):
        here, inner = f"{path}.except[{index}]", _network(text)
        if inner is None:
            causes.append(invalid_value(here, text, _CIDR))
        elif inner.version != network.version or inner == network or not inner.subnet_of(network):  # type: ignore[arg-type]
            causes.append(invalid_value(here, text, "must be a strict subset of `cidr`"))
    return causes


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None
