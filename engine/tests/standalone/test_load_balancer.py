# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses Services of type LoadBalancer get; test_endpoints.py has a running controller manager."""

from ipaddress import IPv4Network, ip_network

import pytest

from turtles.standalone.load_balancer import NoAddress, allot

POOL = (IPv4Network("192.0.2.1"), IPv4Network("192.0.2.8/30"))


def service(name, *ports, given=None, asked=None, **spec):
    """Return a Service of type LoadBalancer."""
    ingress = [{"ip": given}] if given else []
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": port} for port in ports or (80,)], **spec}
        | ({"loadBalancerIP": asked} if asked else {}),
        "status": {"loadBalancer": {"ingress": ingress}},
    }


def test_the_first_address_whose_ports_are_free():
    others = [service("a", 80, given="192.0.2.1"), service("b", 80, given="192.0.2.9")]
    assert allot(service("web", 443), others, POOL) == ["192.0.2.1"]
    assert allot(service("web", 80, 443), others, POOL) == ["192.0.2.10"]
    assert allot(service("a", 80), others, POOL) == ["192.0.2.1"], "its own claim is no obstacle"
    external = service("c", 443, type="ClusterIP", externalIPs=["192.0.2.1"])
    assert allot(service("web", 443), [*others, external], POOL) == ["192.0.2.9"]


def test_what_it_has_stays_while_it_may():
    assert allot(service("web", given="192.0.2.10"), [], POOL) == ["192.0.2.10"]
    assert allot(service("web", given="198.51.100.1"), [], POOL) == ["192.0.2.1"]


def test_an_address_that_is_asked_for():
    assert allot(service("web", asked="192.0.2.10", given="192.0.2.1"), [], POOL) == ["192.0.2.10"]
    with pytest.raises(NoAddress, match=r"spec\.loadBalancerIP 192\.0\.2\.99 is not one of turtles_external_addresses"):
        allot(service("web", asked="192.0.2.99"), [], POOL)
    with pytest.raises(NoAddress, match=r"other Services have 80/TCP at 192\.0\.2\.1: choose other ports"):
        allot(service("web", asked="192.0.2.1"), [service("a", given="192.0.2.1")], POOL)


def test_no_address():
    with pytest.raises(NoAddress, match="set turtles_external_addresses"):
        allot(service("web"), [], ())
    others = [service(f"s{address}", given=address) for address in ("192.0.2.1", "192.0.2.9", "192.0.2.10")]
    with pytest.raises(NoAddress, match="other Services have 80/TCP at all of turtles_external_addresses"):
        allot(service("web"), others, POOL)


BOTH = (*POOL, ip_network("2001:db8::/64"))


@pytest.mark.parametrize(
    ("families", "pool", "addresses"),
    [
        (["IPv6"], BOTH, ["2001:db8::1"]),
        (["IPv6", "IPv4"], BOTH, ["2001:db8::1", "192.0.2.1"]),
        (["IPv4", "IPv6"], BOTH, ["192.0.2.1", "2001:db8::1"]),
        (["IPv4", "IPv6"], POOL, ["192.0.2.1"]),
    ],
)
def test_an_address_of_each_family(families, pool, addresses):
    assert allot(service("web", ipFamilies=families), [], pool) == addresses


def test_a_family_without_addresses():
    with pytest.raises(NoAddress, match="no IPv6 addresses for load balancers: set"):
        allot(service("web", ipFamilies=["IPv6"]), [], POOL)
    # Two families, and one address of the first one asked for
    assert allot(service("web", asked="192.0.2.9", ipFamilies=["IPv4", "IPv6"]), [], BOTH) == ["192.0.2.9"]
