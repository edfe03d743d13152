# SPDX-License-Identifier: GPL-3.0-or-later
"""From Services and EndpointSlices to nftables rules: pure functions.

A packet to a cluster IP, external address or node port is looked up once, in a map, however many Services there are;
the verdict leads to the Service's chain, which picks an endpoint's chain, which translates the address. Addresses of
the Services' range that lead nowhere are rejected, so that clients learn immediately that there is no backend.

The source address is kept unless the answer would take another way than the request: from a Pod to a Pod on the
same bridge (and to itself), from 127.0.0.1, and from elsewhere to an endpoint that is no Pod. There the packet is
marked and gets the machine's address. The mark is kube-proxy's, which means the same by it.

Sources: Kubernetes documentation, "Virtual IPs and Service Proxies"; nft(8).
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from turtles.api.objects import Object
from turtles.standalone.well_known import SERVICE_NAME

MARK = "0x4000"
_PROTOCOLS = ("TCP", "UDP", "SCTP")


@dataclass(frozen=True)
class Settings:
    """What the rules are made for: the Services' addresses of one family.

    :param table: name of the table, which nothing else uses.
    :param service_range: network of the cluster IPs, whose family is that of all the others.
    :param node_port_ranges: node ports are served on this machine's addresses in these networks; none: nowhere.
    :param pod_ranges: networks of the Pods on this machine.
    :param external_ranges: external addresses of Services and those of load balancers are served in these networks.
    :param masquerades: what Pods send to other networks gets the machine's address; otherwise their CNI plugins see to
        that.
    """

    table: str
    service_range: str
    node_port_ranges: tuple[str, ...] = ()
    pod_ranges: tuple[str, ...] = ()
    external_ranges: tuple[str, ...] = ()
    masquerades: bool = False

    @property
    def version(self) -> int:
        """The IP version: 4 or 6."""
        return ipaddress.ip_network(self.service_range).version

    @property
    def family(self) -> str:
        """The addresses' family, as nft calls it."""
        return "ip" if self.version == 4 else "ip6"

    @property
    def loopback(self) -> str:
        """The network of this machine's own addresses."""
        return "127.0.0.0/8" if self.version == 4 else "::1/128"


@dataclass(frozen=True, order=True)
class Backend:
    """Where a Service's port leads."""

    address: str
    port: int


@dataclass(frozen=True)
class Front:
    """Where clients send to; no address means a node port."""

    address: str
    port: int


@dataclass
class Rules:
    """What changes with Services: chains and their rules, the maps' elements, the sets of session affinity.

    ``datagrams`` has what UDP leads to: see :mod:`turtles.standalone.proxy.flows`.
    """

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sets: dict[str, str] = field(default_factory=dict)
    service_ips: dict[str, str] = field(default_factory=dict)
    node_ports: dict[str, str] = field(default_factory=dict)
    datagrams: dict[Front, frozenset[Backend]] = field(default_factory=dict)

    def lost(self, new: "Rules") -> dict[Front, set[Backend]]:
        """Return where UDP led and doesn't any more."""
        removed = {front: set(old - new.datagrams.get(front, frozenset())) for front, old in self.datagrams.items()}
        return {front: gone for front, gone in removed.items() if gone}


def backends(service: Object, slices: Iterable[Object], version: int = 4) -> dict[str, list[Backend]]:
    """Return the backends of each of a Service's ports, by the port's name.

    Those that are ready; where none is, those that are about to go but still serve (KEP-1669).

    :param slices: the Service's EndpointSlices.
    :param version: the IP version of the backends.
    """
    good: dict[str, set[Backend]] = {}
    last: dict[str, set[Backend]] = {}
    for one in slices:
        if one.get("addressType") != f"IPv{version}":
            continue
        for port in one.get("ports") or []:
            name = port.get("name") or ""
            if port.get("port") is None:
                continue
            for endpoint in one.get("endpoints") or []:
                conditions = endpoint.get("conditions") or {}
                reached = {Backend(address, port["port"]) for address in endpoint.get("addresses") or []}
                if conditions.get("ready", True) is not False:
                    good.setdefault(name, set()).update(reached)
                elif conditions.get("serving") and conditions.get("terminating"):
                    last.setdefault(name, set()).update(reached)
    names = [port.get("name") or "" for port in service["spec"].get("ports") or []]
    return {name: sorted(good.get(name) or last.get(name) or ()) for name in names}


def compute(settings: Settings, services: Iterable[Object], slices: Iterable[Object]) -> Rules:
    """Return the rules for all Services."""
    by_service: dict[tuple[str, str], list[Object]] = {}
    for one in slices:
        metadata = one["metadata"]
        name = (metadata.get("labels") or {}).get(SERVICE_NAME, "")
        by_service.setdefault((metadata["namespace"], name), []).append(one)
    rules = Rules()
    for service in sorted(services, key=lambda obj: (obj["metadata"]["namespace"], obj["metadata"]["name"])):
        metadata, spec = service["metadata"], service.get("spec") or {}
        cluster_ip = _cluster_ip(settings, spec)
        if spec.get("type") == "ExternalName" or not cluster_ip:
            continue
        slices_of_it = by_service.get((metadata["namespace"], metadata["name"]), ())
        leading = backends(service, slices_of_it, settings.version)
        for port in spec.get("ports") or []:
            protocol = port.get("protocol") or "TCP"
            targets = leading.get(port.get("name") or "", [])
            if protocol in _PROTOCOLS and targets:
                _add(settings, rules, service, port, protocol.lower(), targets)
    return rules


def _cluster_ip(settings: Settings, spec: Object) -> str | None:
    """Return a Service's cluster IP of the family that the rules are made for."""
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP")]
    mine = (each for each in addresses if each and each != "None" and (":" in each) == (settings.version == 6))
    return next(mine, None)


def _add(
    settings: Settings, rules: Rules, service: Object, port: Object, protocol: str, targets: Sequence[Backend]
) -> None:
    metadata, spec, family = service["metadata"], service["spec"], settings.family
    cluster_ip = _cluster_ip(settings, spec)
    assert cluster_ip is not None
    key = f"{metadata['namespace']}/{metadata['name']}/{protocol}/{port['port']}"
    timeout = 0
    if spec.get("sessionAffinity") == "ClientIP":
        timeout = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds") or 10800
    chain = f"service-{_digest(key)}"
    names = [f"endpoint-{_digest(f'{key} {target.address}:{target.port}')}" for target in targets]
    sticky, choose = [], []
    for name, target in zip(names, targets, strict=True):
        clients = name.replace("endpoint-", "clients-")
        lines = []
        if timeout:
            rules.sets[clients] = f"type ipv{settings.version}_addr; flags dynamic,timeout; timeout {timeout}s;"
            sticky.append(f"{family} saddr @{clients} goto {name}")
            lines.append(f"update @{clients} {{ {family} saddr }}")
        rules.chains[name] = (*lines, *_translate(settings, protocol, target))
    if len(names) == 1:
        choose = [f"goto {names[0]}"]
    else:
        verdicts = ", ".join(f"{number} : goto {name}" for number, name in enumerate(names))
        choose = [f"numgen random mod {len(names)} vmap {{ {verdicts} }}"]
    rules.chains[chain] = (*sticky, *choose)
    rules.service_ips[f"{cluster_ip} . {protocol} . {port['port']}"] = f"goto {chain}"
    for address in _external(settings, service):
        key_of_front = f"{address} . {protocol} . {port['port']}"
        # Of two Services that claim the same, the first one has it.
        rules.service_ips.setdefault(key_of_front, f"goto {_allowed(settings, rules, service, address, chain)}")
        if protocol == "udp":
            rules.datagrams[Front(address, port["port"])] = frozenset(targets)
    if protocol == "udp":
        rules.datagrams[Front(cluster_ip, port["port"])] = frozenset(targets)
    if spec.get("type") in ("NodePort", "LoadBalancer") and port.get("nodePort"):
        if protocol == "udp":
            rules.datagrams[Front("", port["nodePort"])] = frozenset(targets)
        rules.node_ports[f"{protocol} . {port['nodePort']}"] = f"goto {chain}"


def _external(settings: Settings, service: Object) -> list[str]:
    """Return the addresses outside the cluster that a Service has, of those that are served."""
    ranges = [ipaddress.ip_network(text) for text in settings.external_ranges]
    addresses = [*(service["spec"].get("externalIPs") or ()), *_balanced(service)]
    return [
        address for address in dict.fromkeys(addresses) if any(ipaddress.ip_address(address) in one for one in ranges)
    ]


def _balanced(service: Object) -> list[str]:
    """Return the addresses of a Service's load balancer that lead to its node."""
    if service["spec"].get("type") != "LoadBalancer":
        return []
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    return [entry["ip"] for entry in ingress if entry.get("ip") and entry.get("ipMode") != "Proxy"]


def _allowed(settings: Settings, rules: Rules, service: Object, address: str, chain: str) -> str:
    """Return the chain for a Service's clients from outside: not all of them may use a load balancer."""
    ranges = service["spec"].get("loadBalancerSourceRanges")
    if not ranges or address not in _balanced(service):
        return chain
    name = chain.replace("service-", "allowed-")
    parsed = [ipaddress.ip_network(text.strip(), strict=False) for text in ranges]
    networks = ", ".join(str(network) for network in parsed if network.version == settings.version)
    allow = [f"{settings.family} saddr {{ {networks} }} goto {chain}"] if networks else []
    rules.chains[name] = (*allow, "drop")
    return name


def _translate(settings: Settings, protocol: str, target: Backend) -> list[str]:
    address = ipaddress.ip_address(target.address)
    mark = f"meta mark set meta mark or {MARK}"
    where = target.address if address.version == 4 else f"[{target.address}]"
    translate = f"meta l4proto {protocol} dnat to {where}:{target.port}"
    if address.is_loopback:
        # What listens on loopback is this machine's own affair, not the Pods'.
        return ["fib saddr type != local return", translate]
    inside = any(address in ipaddress.ip_network(text) for text in settings.pod_ranges)
    sources = ", ".join((*settings.pod_ranges, settings.loopback))
    lines = [f"{settings.family} saddr {{ {sources} }} {mark}"]
    if not inside:
        lines.append(f"fib saddr type != local {mark}")
    return [*lines, translate]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def frame(settings: Settings) -> list[str]:
    """Return the commands that make the table without any Service, in place of one that may be there."""
    family = settings.family
    table = f"{family} {settings.table}"
    local = [text for text in settings.node_port_ranges if ipaddress.ip_network(text).prefixlen > 0]
    everywhere = len(local) < len(settings.node_port_ranges)
    lines = [f"add table {table}", f"delete table {table}", f"add table {table}"]
    key = f"ipv{settings.version}_addr . inet_proto . inet_service"
    lines.append(f"add map {table} service-ips {{ type {key} : verdict; }}")
    lines.append(f"add map {table} node-ports {{ type inet_proto . inet_service : verdict; }}")
    hooks = (
        ("unspoofed", "filter", "prerouting", "-300"),
        ("prerouting", "nat", "prerouting", "-100"),
        ("output", "nat", "output", "-100"),
        ("postrouting", "nat", "postrouting", "100"),
        ("forwarded", "filter", "forward", "0"),
        ("received", "filter", "input", "0"),
        ("sent", "filter", "output", "0"),
    )
    lines.append(f"add chain {table} services")
    for name, kind, hook, priority in hooks:
        lines.append(f"add chain {table} {name} {{ type {kind} hook {hook} priority {priority}; policy accept; }}")
    rules = [
        # Answers for 127.0.0.1 come in by the bridge (route_localnet). Nothing else from there may reach loopback.
        ("unspoofed", f'iifname != "lo" {family} daddr {settings.loopback} drop'),
        ("services", f"{family} daddr . meta l4proto . th dport vmap @service-ips"),
        ("prerouting", "jump services"),
        ("output", "jump services"),
        *(("postrouting", rule) for rule in _outbound(settings)),
        ("postrouting", f"meta mark & {MARK} == 0 return"),
        ("postrouting", f"meta mark set meta mark xor {MARK}"),
        ("postrouting", "masquerade fully-random"),
    ]
    for chain in ("forwarded", "received", "sent"):
        rules.append((chain, f"{family} daddr {settings.service_range} meta l4proto tcp reject with tcp reset"))
        rules.append((chain, f"{family} daddr {settings.service_range} reject"))
    if settings.node_port_ranges:
        where = "" if everywhere else f"{family} daddr {{ {', '.join(local)} }} "
        rules.append(("services", f"{where}fib daddr type local meta l4proto . th dport vmap @node-ports"))
    return [*lines, *(f"add rule {table} {chain} {rule}" for chain, rule in rules)]


def _outbound(settings: Settings) -> list[str]:
    """Return the rule that translates the source address of what leaves the Pods' networks."""
    if not settings.masquerades:
        return []
    ranges, family = ", ".join(settings.pod_ranges), settings.family
    multicast = "224.0.0.0/4" if settings.version == 4 else "ff00::/8"
    return [f"{family} saddr {{ {ranges} }} {family} daddr != {{ {ranges}, {multicast} }} masquerade"]


def changes(settings: Settings, old: Rules, new: Rules) -> tuple[list[str], list[str]]:
    """Return the commands that turn one state of the table into another.

    :returns: those that bring the new state, and those that clear away what is not used any more, which the kernel may
        refuse in one transaction with the former.
    """
    table = f"{settings.family} {settings.table}"
    gone = [name for name in old.chains if name not in new.chains]
    written = {name: rules for name, rules in new.chains.items() if old.chains.get(name) != rules}
    lines = [f"add set {table} {name} {{ {text} }}" for name, text in new.sets.items() if name not in old.sets]
    lines += [f"add chain {table} {name}" for name in written if name not in old.chains]
    lines += [f"flush chain {table} {name}" for name in written if name in old.chains]
    lines += [f"add rule {table} {name} {rule}" for name, rules in written.items() for rule in rules]
    for which, before, after in (
        ("service-ips", old.service_ips, new.service_ips),
        ("node-ports", old.node_ports, new.node_ports),
    ):
        stale = [f"{key} : {verdict}" for key, verdict in before.items() if after.get(key) != verdict]
        fresh = [f"{key} : {verdict}" for key, verdict in after.items() if before.get(key) != verdict]
        lines += [f"delete element {table} {which} {{ {entry} }}" for entry in stale]
        lines += [f"add element {table} {which} {{ {entry} }}" for entry in fresh]
    lines += [f"flush chain {table} {name}" for name in gone]
    clear = [f"delete chain {table} {name}" for name in gone]
    clear += [f"delete set {table} {name}" for name in old.sets if name not in new.sets]
    return lines, clear
