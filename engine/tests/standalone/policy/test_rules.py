# SPDX-License-Identifier: GPL-3.0-or-later
"""What NetworkPolicies mean, as rules; test_enforcement.py tries the rules out."""

from typing import Any

import pytest

from turtles.standalone.policy.rules import Member, compute, member, script

WEB = Member("shop", {"app": "web"}, "10.0.0.1", {("http", "TCP"): 8080})
DB = Member("shop", {"app": "db"}, "10.0.0.2", {("sql", "TCP"): 5432})
OTHER = Member("lab", {"app": "web"}, "10.0.0.3", {("http", "TCP"): 9090})
NAMESPACES = {"shop": {"team": "a"}, "lab": {"team": "b"}}


def rules(*policies: dict[str, Any]) -> Any:
    objects = [{"metadata": {"namespace": "shop", "name": f"p{n}"}, "spec": spec} for n, spec in enumerate(policies)]
    return compute(objects, [WEB, DB, OTHER], NAMESPACES)


def ingress(*entries: dict[str, Any], **selector: str) -> dict[str, Any]:
    labels = {"matchLabels": selector} if selector else {}
    return {"podSelector": labels, "policyTypes": ["Ingress"], "ingress": list(entries)}


def egress(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": list(entries)}


def allowed(spec: dict[str, Any]) -> list[str]:
    """Return what a policy for the web Pod allows, without what it may always do and the drop."""
    found = rules(spec)
    name = found.ingress.get(WEB.address) or found.egress[WEB.address]
    first, *lines, last = found.chains[name]
    assert (first, last) == (f"ip saddr {WEB.address} ip daddr {WEB.address} return", "counter drop")
    return lines


def test_a_policy_is_for_pods_of_its_namespace_that_it_selects() -> None:
    assert set(rules(ingress()).ingress) == {WEB.address, DB.address}
    assert set(rules(ingress(app="web")).ingress) == {WEB.address}
    assert rules(ingress()).egress == {}
    assert rules().chains == {}


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ({"podSelector": {}}, (True, False)),
        ({"podSelector": {}, "egress": [{}]}, (True, True)),
        ({"podSelector": {}, "policyTypes": ["Egress"]}, (False, True)),
    ],
)
def test_directions(spec: dict[str, Any], directions: tuple[bool, bool]) -> None:
    found = rules(spec)
    assert (bool(found.ingress), bool(found.egress)) == directions


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        ({}, ["return"]),
        ({"from": [], "ports": []}, ["return"]),
        ({"from": [{"podSelector": {}}]}, ["ip saddr { 10.0.0.1, 10.0.0.2 } return"]),
        ({"from": [{"podSelector": {"matchLabels": {"app": "none"}}}]}, []),
        ({"from": [{"namespaceSelector": {}}]}, ["ip saddr { 10.0.0.1, 10.0.0.2, 10.0.0.3 } return"]),
        ({"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]}, ["ip saddr { 10.0.0.3 } return"]),
        (
            {
                "from": [
                    {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"app": "db"}}}
                ]
            },
            ["ip saddr { 10.0.0.2 } return"],
        ),
        (
            {"from": [{"ipBlock": {"cidr": "192.0.2.7/24", "except": ["192.0.2.64/26", "192.0.2.1/32"]}}]},
            ["ip saddr 192.0.2.0/24 ip saddr != { 192.0.2.64/26, 192.0.2.1/32 } return"],
        ),
        ({"from": [{"ipBlock": {"cidr": "2001:db8::/32"}}]}, []),
        ({"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}, ["tcp dport 80 return", "udp dport 53 return"]),
        (
            {"ports": [{"port": 80, "endPort": 90}, {"protocol": "SCTP"}]},
            ["meta l4proto sctp return", "tcp dport 80-90 return"],
        ),
        ({"ports": [{"port": "http"}]}, ["tcp dport 8080 return"]),
        ({"ports": [{"port": "unknown"}]}, []),
        ({"ports": [{"port": 80}, {"protocol": "TCP"}]}, ["meta l4proto tcp return"]),
    ],
)
def test_ingress(rule: dict[str, Any], lines: list[str]) -> None:
    assert allowed(ingress(rule, app="web")) == lines


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        ({}, ["return"]),
        (
            {"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": 5432}]},
            ["ip daddr { 10.0.0.2 } tcp dport 5432 return"],
        ),
        # What a name means is each destination's affair.
        (
            {"to": [{"namespaceSelector": {}}], "ports": [{"port": "http"}]},
            ["ip daddr 10.0.0.1 tcp dport 8080 return", "ip daddr 10.0.0.3 tcp dport 9090 return"],
        ),
        ({"ports": [{"port": "sql"}, {"port": 53, "protocol": "UDP"}]},
         ["udp dport 53 return", "ip daddr 10.0.0.2 tcp dport 5432 return"]),
        ({"to": [{"ipBlock": {"cidr": "10.0.0.2/32"}}], "ports": [{"port": "http"}]}, []),
    ],
)  # fmt: skip
def test_egress(rule: dict[str, Any], lines: list[str]) -> None:
    assert allowed(egress(rule)) == lines


def test_policies_add_up() -> None:
    found = rules(ingress(), ingress({"ports": [{"port": 80}]}, app="web"))
    assert found.chains[found.ingress[WEB.address]][1:] == ["tcp dport 80 return", "counter drop"]
    assert found.chains[found.ingress[DB.address]][1:] == ["counter drop"]


def test_members() -> None:
    pod = {
        "metadata": {"namespace": "shop", "labels": {"app": "web"}},
        "spec": {"containers": [{"ports": [{"containerPort": 8080, "name": "http"}, {"containerPort": 1}]}]},
        "status": {"podIP": "10.0.0.1"},
    }
    assert member(pod) == WEB
    assert member({**pod, "status": {}}) is None
    assert member({**pod, "status": {}}, known=["fd00::1", "10.0.0.1"]) == WEB
    assert member(pod, 6) is None
    both = member({**pod, "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}, 6)
    assert both is not None
    assert both.address == "fd00::1"
    assert member({**pod, "status": {"podIP": "10.0.0.1", "phase": "Failed"}}) is None
    assert member({**pod, "spec": {**pod["spec"], "hostNetwork": True}}) is None


def test_script() -> None:
    text = script("t", rules(ingress(app="web"), egress()))
    assert text.startswith("add table ip t\ndelete table ip t\ntable ip t {\n")
    assert "    ip saddr vmap { 10.0.0.1 : jump egress-10-0-0-1 }\n" in text
    assert "    ip daddr vmap { 10.0.0.1 : jump ingress-10-0-0-1 }\n" in text


def test_ipv6() -> None:
    """Rules of its own; what neighbours say to each other isn't restricted."""
    web, db = (Member("shop", {"app": app}, f"fd00::{number}") for app, number in (("web", 1), ("db", 2)))
    spec = {
        "podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]},
            {"from": [{"ipBlock": {"cidr": "2001:db8::/32", "except": ["2001:db8:1::/48"]}}]},
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        ],
    }
    objects = [{"metadata": {"namespace": "shop", "name": "db"}, "spec": spec}]
    found = compute(objects, [web, db], NAMESPACES, 6)
    assert found.ingress == {"fd00::2": "ingress-fd00--2"}
    assert found.chains["ingress-fd00--2"] == [
        "ip6 saddr fd00::2 ip6 daddr fd00::2 return",
        "ip6 saddr { fd00::1 } tcp dport 5432 return",
        "ip6 saddr 2001:db8::/32 ip6 saddr != { 2001:db8:1::/48 } return",
        "counter drop",
    ]
    text = script("policies", found)
    assert "ip6 daddr vmap { fd00::2 : jump ingress-fd00--2 }" in text
    assert text.index("nd-neighbor-solicit") < text.index("vmap")
