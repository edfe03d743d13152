# SPDX-License-Identifier: GPL-3.0-or-later
"""Where DNS is served."""

from turtles.standalone.dns import addresses
from turtles.standalone.dns.zone import service_of
from turtles.standalone.proxy import rules


def test_the_service_of_dns_leads_to_the_server() -> None:
    service, endpoints = addresses.manifests("10.96.0.0/16", "10.244.0.1", 10053)
    assert service["spec"]["clusterIP"] == "10.96.0.10"
    assert service_of(endpoints) == ["kube-system/kube-dns"]
    server = [rules.Backend("10.244.0.1", 10053)]
    assert rules.backends(service, [endpoints]) == {"dns": server, "dns-tcp": server}
