# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about DNS."""

from __future__ import annotations

import ipaddress

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.language import INVALID, NOT_SUPPORTED, REQUIRED, Cause
from turtles.api.rules import Causes, Spec, subdomain_problems

_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None", "")


def _dns(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    policy, dns = spec.get("dnsPolicy") or "", spec.get("dnsConfig")
    if policy not in _DNS_POLICIES:
        message = f"DNSPolicy: {policy} is not supported, valid values: [{' '.join(_DNS_POLICIES)}]"
        yield Cause(NOT_SUPPORTED, message, f"{path}.dnsPolicy")
    if policy == "None" and dns is None:
        yield Cause(REQUIRED, "must provide `dnsConfig` when `dnsPolicy` is None", f"{path}.dnsConfig")
        return
    if dns is None:
        return
    servers, searches = dns.get("nameservers") or (), dns.get("searches") or ()
    if policy == "None" and not servers:
        yield Cause(REQUIRED, "must provide at least one DNS nameserver when `dnsPolicy` is None", "nameservers")
        return
    if len(servers) > 3:
        yield Cause(INVALID, f"must not have more than 3 nameservers: [{' '.join(servers)}]", "nameservers")
    for server in servers:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            yield Cause(INVALID, f"must be valid IP address: {server}", "nameservers")
    if len(searches) > 6:
        yield Cause(INVALID, "must not have more than 6 search paths", "searchDomains")
    if len(" ".join(searches)) > 256:
        message = "must not have more than 256 characters (including spaces) in the search list"
        yield Cause(INVALID, message, "searchDomains")
    for search in searches:
        for problem in subdomain_problems(search):
            yield Cause(INVALID, problem, "searchDomains")
    for option in dns.get("options") or ():
        if not option.get("name"):
            yield Cause(INVALID, "Option.Name must not be empty", "options")


DNS: tuple[Rule, ...] = (_dns,)
