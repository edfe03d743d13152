# SPDX-License-Identifier: GPL-3.0-or-later
"""nftables scripts for the Pod's network namespace: NAT for masqueraded guests, and what guests may send. Pure.

Each is one transaction that replaces what an earlier one made.
"""

from turtles.domain.network import InterfacePlan, Port

#: What an IPv6 guest sends from before it has an address, and on its link (RFC 4291).
_IPV6_LINK = ("::", "fe80::/10")


def masquerade(plan: InterfacePlan) -> str:
    """Return the script for a masqueraded guest.

    The Pod forwards between the guest and the Pod's interface only: a guest's other networks are no way to these.
    """
    if plan.ports:
        matches = [
            f"{protocol} dport {{ {', '.join(_ports(port) for port in plan.ports if port.protocol == protocol)} }} "
            for protocol in sorted({port.protocol for port in plan.ports})
        ]
    else:
        matches = [""]
    inbound = "\n".join(
        f'    iifname "{plan.pod_interface}" {match}counter dnat to {plan.guest_ip}' for match in matches
    )
    local = "\n".join(f"    ip daddr 127.0.0.1 {match}counter dnat to {plan.guest_ip}" for match in matches)
    both = f'{{ "{plan.pod_interface}", "{plan.bridge}" }}'
    return f"""\
add table ip kubevirt
delete table ip kubevirt
table ip kubevirt {{
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
{inbound}
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
{local}
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname {both} oifname {both} accept
    iifname {both} counter drop
    oifname {both} counter drop
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {plan.guest_ip} oifname "{plan.pod_interface}" counter masquerade
    oifname "{plan.bridge}" ip saddr 127.0.0.1 counter snat to {plan.gateway}
  }}
}}
"""


def antispoofing(plan: InterfacePlan) -> str:
    """Return the script that drops what a guest sends in another's name: from another MAC, or from another address.

    Addresses count where the guest's is known. There, what could carry others (VLANs, say) is dropped as well, and
    what only a router or a DHCP server sends. The tap has to exist.
    """
    table = f"kubevirt-{plan.tap}"
    lines = [f"ether saddr != {plan.guest_mac} counter drop", f"arp saddr ether != {plan.guest_mac} counter drop"]
    if plan.has_address:
        ipv4 = [each for each in plan.own_addresses if ":" not in each]
        ipv6 = [*_IPV6_LINK, *(each for each in plan.own_addresses if ":" in each)]
        lines += [
            "ether type != { arp, ip, ip6 } counter drop",
            # A probe has no sender yet (RFC 5227).
            f"arp saddr ip != {{ 0.0.0.0, {', '.join(ipv4)} }} counter drop",
            "udp sport 67 udp dport 68 counter drop",
            "ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept",
            f"ip saddr != {{ {', '.join(ipv4)} }} counter drop",
            "icmpv6 type { nd-router-advert, nd-redirect } counter drop",
            "udp sport 547 counter drop",
            f"ip6 saddr != {{ {', '.join(ipv6)} }} counter drop",
        ]
    rules = "\n".join(f"    {line}" for line in lines)
    return f"""\
add table netdev {table}
delete table netdev {table}
table netdev {table} {{
  chain guest {{
    type filter hook ingress device "{plan.tap}" priority -500; policy accept;
{rules}
  }}
}}
"""


def _ports(port: Port) -> str:
    return str(port.number) if port.last is None else f"{port.number}-{port.last}"
