# SPDX-License-Identifier: GPL-3.0-or-later
"""NetworkPolicies: defaults and rules."""

from typing import Any

import pytest

from ..conftest import Server

POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"


def policy(spec: dict[str, Any], name: str = "one") -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def test_defaults_and_columns(server: Server) -> None:
    spec = {"podSelector": {"matchLabels": {"app": "web"}}, "egress": [{"ports": [{"port": 53}, {"port": "dns"}]}]}
    code, made = server.call("POST", POLICIES, policy(spec))
    assert code == 201, made
    assert made["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert [port["protocol"] for port in made["spec"]["egress"][0]["ports"]] == ["TCP", "TCP"]
    assert made["metadata"]["generation"] == 1
    code, made = server.call("POST", POLICIES, policy({"podSelector": {}}, "two"))
    assert (code, made["spec"]) == (201, {"podSelector": {}, "policyTypes": ["Ingress"]})
    for name in ("one", "two"):
        assert server.call("DELETE", f"{POLICIES}/{name}")[0] == 200


@pytest.mark.parametrize(
    ("rule", "field", "words"),
    [
        ({"from": [{}]}, "spec.ingress[0].from[0]", "must specify a peer"),
        (
            {"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]},
            "spec.ingress[0].from[0]",
            "may not specify both ipBlock and another peer",
        ),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.1"}}]}, "spec.ingress[0].from[0].ipBlock.cidr", "must be a valid CIDR"),
        (
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]},
            "spec.ingress[0].from[0].ipBlock.except[0]",
            "must be a strict subset of `cidr`",
        ),
        ({"ports": [{"port": 0}]}, "spec.ingress[0].ports[0].port", "must be between 1 and 65535"),
        (
            {"ports": [{"port": 90, "endPort": 80}]},
            "spec.ingress[0].ports[0].endPort",
            "must be greater than or equal to `port`",
        ),
        (
            {"ports": [{"port": "http", "endPort": 80}]},
            "spec.ingress[0].ports[0].endPort",
            "may not be specified when `port` is non-numeric",
        ),
        (
            {"ports": [{"endPort": 80}]},
            "spec.ingress[0].ports[0].endPort",
            "may not be specified when `port` is not specified",
        ),
        ({"ports": [{"protocol": "ICMP"}]}, "spec.ingress[0].ports[0].protocol", "Unsupported value"),
    ],
)
def test_what_is_refused(server: Server, rule: dict[str, Any], field: str, words: str) -> None:
    code, answer = server.call("POST", POLICIES, policy({"podSelector": {}, "ingress": [rule]}))
    causes = {cause["field"]: cause["message"] for cause in answer["details"]["causes"]}
    assert code == 422
    assert words in causes[field]


def test_policy_types(server: Server) -> None:
    code, answer = server.call("POST", POLICIES, policy({"podSelector": {}, "policyTypes": ["Inbound"]}))
    assert (code, answer["details"]["causes"][0]["field"]) == (422, "spec.policyTypes[0]")
