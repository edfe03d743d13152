# SPDX-License-Identifier: GPL-3.0-or-later
"""nftables scripts for the Pod's network namespace: NAT for masqueraded guests, and what guests may send. Pure.

Each is one transaction that replaces what an earlier one made.
"""

from turtles.domain.interface_names import DeviceNames
from turtles.domain.network import InterfacePlan, Port

#: The sender of an ARP probe, which has no address yet (RFC 5227).
_PROBE = "0.0.0.0"  # noqa: S104 - nothing is bound
#: What an IPv6 guest sends from before it has an address, and on its link (RFC 4291).
_IPV6_LINK = ("::", "fe80::/10")


def masquerade(plan: InterfacePlan) -> str:
    """Return the script for a masqueraded guest.

    The Pod forwards between the guest and the Pod's interface only: a guest's other networks are no way to these.
    """
    # IPv6 has no route_localnet: [::1] of the Pod doesn't lead to the guest.
    local = "\n".join(f"    ip daddr 127.0.0.1 {match}counter dnat to {plan.guest_ip}" for match in _matches(plan))
    output = f"""\
  chain output {{
    type nat hook output priority -100; policy accept;
{local}
  }}
"""
    back = f'    oifname "{plan.bridge}" ip saddr 127.0.0.1 counter snat to {plan.gateway}\n'
    script = _nat(plan, "ip", plan.guest_ip, output, back)
    return script + (_nat(plan, "ip6", plan.guest_ip6) if plan.guest_ip6 else "")


def _matches(plan: InterfacePlan) -> list[str]:
    """Return matches for the ports that lead to the guest; an empty one for all of them."""
    if not plan.ports:
        return [""]
    return [
        f"{protocol} dport {{ {', '.join(_ports(port) for port in plan.ports if port.protocol == protocol)} }} "
        for protocol in sorted({port.protocol for port in plan.ports})
    ]


def _nat(plan: InterfacePlan, family: str, guest: str, output: str = "", back: str = "") -> str:
    """Return the script of one address family, ``ip`` or ``ip6``.

    :param guest: the guest's address. :param output: a chain of its own. :param back: rules of the last chain.
    """
    inbound = "\n".join(
        f'    iifname "{plan.pod_interface}" {match}counter dnat to {guest}' for match in _matches(plan)
    )
    both = f'{{ "{plan.pod_interface}", "{plan.bridge}" }}'
    return f"""\
add table {family} kubevirt
delete table {family} kubevirt
table {family} kubevirt {{
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
{inbound}
  }}
{output}\
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname {both} oifname {both} accept
    iifname {both} counter drop
    oifname {both} counter drop
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    {family} saddr {guest} oifname "{plan.pod_interface}" counter masquerade
{back}\
  }}
}}
"""


def link_of_its_own(plan: InterfacePlan) -> str:
    """Return the script that keeps what router and DHCP server of a guest's link say in IPv6 apart from its network's.

    The launcher's advertisements are for the guest, and the questions of other guests for their own launchers.
    """
    if not plan.guest_ip6:
        return ""
    table = f"kubevirt-{plan.bridge}"
    return f"""\
add table bridge {table}
delete table bridge {table}
table bridge {table} {{
  chain input {{
    type filter hook input priority 0; policy accept;
    iifname "{plan.wire}" icmpv6 type nd-router-solicit counter drop
    iifname "{plan.wire}" udp dport 547 counter drop
  }}
  chain output {{
    type filter hook output priority 0; policy accept;
    oifname "{plan.wire}" icmpv6 type nd-router-advert counter drop
    oifname "{plan.wire}" udp sport 547 counter drop
  }}
}}
"""


def nothing(names: DeviceNames) -> str:
    """Return the script that removes what was made for an interface with a bridge."""
    table = f"kubevirt-{names.bridge}"
    return f"{_no_antispoofing(names.tap)}add table bridge {table}\ndelete table bridge {table}\n"


def antispoofing(plan: InterfacePlan) -> str:
    """Return the script that drops what a guest sends in another's name: from another MAC, or from another address.

    Addresses count where the guest's is known. There, what could carry others (VLANs, say) is dropped as well, and
    what only a router or a DHCP server sends. The tap has to exist.
    """
    table = _antispoofing_table(plan.tap)
    lines = [f"ether saddr != {plan.guest_mac} counter drop", f"arp saddr ether != {plan.guest_mac} counter drop"]
    if plan.has_address:
        ipv4 = [each for each in plan.own_addresses if ":" not in each]
        ipv6 = [*_IPV6_LINK, *(each for each in plan.own_addresses if ":" in each)]
        lines += [
            "ether type != { arp, ip, ip6 } counter drop",
            f"arp saddr ip != {{ {', '.join([_PROBE, *ipv4])} }} counter drop",
            "udp sport 67 udp dport 68 counter drop",
            f"ip saddr {_PROBE} udp sport 68 udp dport 67 accept",
            f"ip saddr != {{ {', '.join(ipv4)} }} counter drop" if ipv4 else "ether type ip counter drop",
            "icmpv6 type { nd-router-advert, nd-redirect } counter drop",
            "udp sport 547 counter drop",
            f"ip6 saddr != {{ {', '.join(ipv6)} }} counter drop",
        ]
    rules = "\n".join(f"    {line}" for line in lines)
    return f"""\
{_no_antispoofing(plan.tap)}\
table netdev {table} {{
  chain guest {{
    type filter hook ingress device "{plan.tap}" priority -500; policy accept;
{rules}
  }}
}}
"""


def _no_antispoofing(tap: str) -> str:
    table = _antispoofing_table(tap)
    return f"add table netdev {table}\ndelete table netdev {table}\n"


def _antispoofing_table(tap: str) -> str:
    return f"kubevirt-{tap}"


def _ports(port: Port) -> str:
    return str(port.number) if port.last is None else f"{port.number}-{port.last}"
