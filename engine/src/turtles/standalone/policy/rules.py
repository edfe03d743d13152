# SPDX-License-Identifier: GPL-3.0-or-later
"""From NetworkPolicies, Pods and namespaces to nftables rules: pure functions.

A packet between Pods, or between a Pod and elsewhere, is looked up twice, whatever the number of policies: its source
among the Pods whose egress is restricted, its destination among those whose ingress is. The verdict leads to the Pod's
chain, which returns for what a policy allows, and drops the rest. The machine itself isn't restricted: traffic between
a Pod and its own node is always allowed.

Both address families have rules of their own; Pods without an address of a family have none in it.

Source: Kubernetes documentation, "Network Policies", and the API reference of NetworkPolicy.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turtles.api.objects import Object
from turtles.api.selectors import selects
from turtles.standalone.pods import FINAL_PHASES

#: What names of chains can't have.
_DASHES = str.maketrans(".:", "--")
#: Versions of IP, and what nftables calls them.
FAMILIES = {4: "ip", 6: "ip6"}
#: How neighbours find each other, without which nothing else works (RFC 4890).
_NEIGHBOURS = "    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept"


@dataclass(frozen=True)
class Member:
    """A Pod with an address in the Pods' network.

    :param ports: numbers of its named ports, by name and protocol.
    """

    namespace: str
    labels: Mapping[str, str]
    address: str
    ports: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass
class Rules:
    """Chains by name, each a sequence of rules, and the Pods' addresses that lead to them.

    :param family: nftables' name of the address family.
    """

    family: str = FAMILIES[4]
    chains: dict[str, list[str]] = field(default_factory=dict)
    ingress: dict[str, str] = field(default_factory=dict)
    egress: dict[str, str] = field(default_factory=dict)


def member(pod: Object, version: int = 4, known: Sequence[str] = ()) -> Member | None:
    """Return a Pod as policies see it; None if they don't: it has ended, has no address, or has the node's.

    :param version: of IP.
    :param known: the addresses of a Pod whose status doesn't have them yet.
    """
    spec, status, metadata = pod["spec"], pod.get("status") or {}, pod["metadata"]
    reported = [str(each.get("ip") or "") for each in status.get("podIPs") or ()] or [str(status.get("podIP") or "")]
    addresses = [each for each in (*reported, *known) if each and ipaddress.ip_address(each).version == version]
    address = next(iter(addresses), "")
    if not address or spec.get("hostNetwork") or status.get("phase") in FINAL_PHASES:
        return None
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    ports = {
        (port["name"], port.get("protocol") or "TCP"): int(port["containerPort"])
        for container in containers
        for port in container.get("ports") or ()
        if port.get("name")
    }
    return Member(metadata["namespace"], metadata.get("labels") or {}, address, ports)


def compute(
    policies: Iterable[Object],
    members: Sequence[Member],
    namespaces: Mapping[str, Mapping[str, str]],
    version: int = 4,
) -> Rules:
    """Return the rules for all policies.

    :param members: the Pods with an address of this version of IP.
    :param namespaces: labels of the namespaces, by name.
    """
    rules = Rules(FAMILIES[version])
    for policy in sorted(policies, key=lambda each: (each["metadata"]["namespace"], each["metadata"]["name"])):
        spec, namespace = policy.get("spec") or {}, policy["metadata"]["namespace"]
        kinds = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
        for one in members:
            if one.namespace != namespace or not selects(spec.get("podSelector"), one.labels):
                continue
            if "Ingress" in kinds:
                chain = _chain(rules, rules.ingress, "ingress", one)
                for rule in spec.get("ingress") or ():
                    chain += _ingress(rule, one, namespace, members, namespaces, rules.family)
            if "Egress" in kinds:
                chain = _chain(rules, rules.egress, "egress", one)
                for rule in spec.get("egress") or ():
                    chain += _egress(rule, namespace, members, namespaces, rules.family)
    for lines in rules.chains.values():
        lines[:] = [*dict.fromkeys(lines), "counter drop"]
    return rules


def _chain(rules: Rules, addresses: dict[str, str], direction: str, one: Member) -> list[str]:
    """Return the chain of a Pod, made if need be. What a Pod sends to itself can't be restricted."""
    name = addresses.setdefault(one.address, f"{direction}-{one.address.translate(_DASHES)}")
    return rules.chains.setdefault(
        name, [f"{rules.family} saddr {one.address} {rules.family} daddr {one.address} return"]
    )


def _ingress(
    rule: Object,
    to: Member,
    namespace: str,
    members: Sequence[Member],
    namespaces: Mapping[str, Mapping[str, str]],
    family: str,
) -> Iterator[str]:
    for peer in _peers(rule.get("from"), f"{family} saddr", namespace, members, namespaces):
        for port in _ports(rule.get("ports"), to.ports):
            yield " ".join(part for part in (peer, port, "return") if part)


def _egress(
    rule: Object,
    namespace: str,
    members: Sequence[Member],
    namespaces: Mapping[str, Mapping[str, str]],
    family: str,
) -> Iterator[str]:
    ports = rule.get("ports") or ()
    numbered = [port for port in ports if not isinstance(port.get("port"), str)]
    if numbered or not ports:
        for peer in _peers(rule.get("to"), f"{family} daddr", namespace, members, namespaces):
            for port in _ports(numbered, {}):
                yield " ".join(part for part in (peer, port, "return") if part)
    named = [port for port in ports if isinstance(port.get("port"), str)]
    for one in members if named else ():
        # What a name means is each destination's affair.
        for match in _ports(named, one.ports):
            if _is_peer(rule.get("to"), one, namespace, namespaces):
                yield f"{family} daddr {one.address} {match} return"


def _peers(
    peers: Sequence[Object] | None,
    side: str,
    namespace: str,
    members: Sequence[Member],
    namespaces: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    """Yield matches for those that a rule is about; an empty one for everybody.

    :param side: address family and side, as nftables calls them: "ip saddr".
    """
    if not peers:
        yield ""
    for peer in peers or ():
        if (block := peer.get("ipBlock")) is not None:
            yield from _block(block, side)
            continue
        addresses = sorted({one.address for one in members if _is_selected(peer, one, namespace, namespaces)})
        if addresses:
            yield f"{side} {{ {', '.join(addresses)} }}"


def _is_peer(
    peers: Sequence[Object] | None, one: Member, namespace: str, namespaces: Mapping[str, Mapping[str, str]]
) -> bool:
    return not peers or any(
        _is_inside(peer["ipBlock"], one.address)
        if peer.get("ipBlock") is not None
        else _is_selected(peer, one, namespace, namespaces)
        for peer in peers
    )


def _is_selected(peer: Object, one: Member, namespace: str, namespaces: Mapping[str, Mapping[str, str]]) -> bool:
    """Say whether a peer's selectors select a Pod. Without one for namespaces, it has to be in the policy's own."""
    of_namespaces = peer.get("namespaceSelector")
    if of_namespaces is None:
        if one.namespace != namespace:
            return False
    elif one.namespace not in namespaces or not selects(of_namespaces, namespaces[one.namespace]):
        return False
    return selects(peer.get("podSelector"), one.labels)


def _block(block: Mapping[str, Any], side: str) -> Iterator[str]:
    """Yield the match for an ipBlock; one of the other address family matches nothing."""
    network = ipaddress.ip_network(block["cidr"], strict=False)
    if not side.startswith(f"{FAMILIES[network.version]} "):
        return
    without = [str(ipaddress.ip_network(text, strict=False)) for text in block.get("except") or ()]
    yield f"{side} {network} {side} != {{ {', '.join(without)} }}" if without else f"{side} {network}"


def _is_inside(block: Mapping[str, Any], address: str) -> bool:
    one = ipaddress.ip_address(address)
    return one in ipaddress.ip_network(block["cidr"], strict=False) and not any(
        one in ipaddress.ip_network(text, strict=False) for text in block.get("except") or ()
    )


def _ports(ports: Sequence[Object] | None, names: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """Yield matches for ports, one per protocol; an empty one for all of them.

    :param names: numbers of named ports. A name that isn't there matches nothing.
    """
    if not ports:
        yield ""
        return
    numbers: dict[str, list[str]] = {}
    whole: list[str] = []
    for port in ports:
        protocol = port.get("protocol") or "TCP"
        wanted = port.get("port")
        if wanted is None:
            whole.append(protocol)
        elif isinstance(wanted, str):
            if (number := names.get((wanted, protocol))) is not None:
                numbers.setdefault(protocol, []).append(str(number))
        else:
            last = port.get("endPort")
            numbers.setdefault(protocol, []).append(str(wanted) if last is None else f"{wanted}-{last}")
    for protocol in dict.fromkeys(whole):
        yield f"meta l4proto {protocol.lower()}"
    for protocol, found in numbers.items():
        if protocol not in whole:
            for each in dict.fromkeys(found):
                yield f"{protocol.lower()} dport {each}"


def script(table: str, rules: Rules) -> str:
    """Return the nftables script that puts rules in place of those that a table has."""
    family = rules.family
    lines = [f"add table {family} {table}", f"delete table {family} {table}", f"table {family} {table} {{"]
    for name, chain in sorted(rules.chains.items()):
        lines += [f"  chain {name} {{", *(f"    {line}" for line in chain), "  }"]
    lookups = []
    for side, addresses in (("saddr", rules.egress), ("daddr", rules.ingress)):
        if addresses:
            elements = ", ".join(f"{address} : jump {chain}" for address, chain in sorted(addresses.items()))
            lookups.append(f"    {family} {side} vmap {{ {elements} }}")
    hook = ["    type filter hook forward priority -10; policy accept;", "    ct state established,related accept"]
    neighbours = [_NEIGHBOURS] if family == FAMILIES[6] else []
    lines += ["  chain forward {", *hook, *neighbours, *lookups, "  }", "}"]
    return "\n".join(lines) + "\n"
