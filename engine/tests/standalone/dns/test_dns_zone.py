# SPDX-License-Identifier: GPL-3.0-or-later
import dns.name
import dns.reversename
import pytest
from dns.rdatatype import RdataType


def ask(cluster, name, kind="A"):
    found = cluster.lookup(dns.name.from_text(name, cluster.origin), RdataType.make(kind))
    return sorted(record.to_text() for _, record in found.records) if found.exists else None


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.shop.svc", "A", ["10.96.0.5"]),
        ("WEB.Shop.SVC", "A", ["10.96.0.5"]),
        ("web.shop.svc", "AAAA", ["fd00::5"]),
        ("web.shop.svc", "MX", []),
        ("_https._tcp.web.shop.svc", "SRV", ["0 100 443 web.shop.svc.cluster.local."]),
        ("_https._udp.web.shop.svc", "SRV", None),
        ("_tcp.web.shop.svc", "A", []),
        ("anything.web.shop.svc", "A", None),
        # Headless: those that are ready, by name and by address
        ("db.shop.svc", "A", ["10.244.0.8", "10.244.0.9"]),
        ("db.shop.svc", "AAAA", []),
        ("one.db.shop.svc", "A", ["10.244.0.8"]),
        ("10-244-0-9.db.shop.svc", "A", ["10.244.0.9"]),
        ("three.db.shop.svc", "A", None),
        (
            "_sql._tcp.db.shop.svc",
            "SRV",
            ["0 50 5433 10-244-0-9.db.shop.svc.cluster.local.", "0 50 5433 one.db.shop.svc.cluster.local."],
        ),
        ("empty.shop.svc", "A", []),
        ("outside.shop.svc", "CNAME", ["www.example.org."]),
        ("outside.shop.svc", "A", ["www.example.org."]),
        # What is between the names of Services
        ("shop.svc", "A", []),
        ("nowhere.svc", "A", None),
        ("svc", "A", []),
        ("nobody.shop.svc", "A", None),
        ("10-1-2-3.shop.pod", "A", ["10.1.2.3"]),
        ("10-1-2-999.shop.pod", "A", None),
        ("fd00--1.shop.pod", "AAAA", ["fd00::1"]),
        ("10-1-2-3.nowhere.pod", "A", None),
        ("dns-version", "TXT", ['"1.1.0"']),
        ("other", "A", None),
    ],
)
def test_names(cluster, name, kind, expected):
    assert ask(cluster, name, kind) == expected


def test_the_zone_itself(cluster):
    (soa,) = ask(cluster, "@", "SOA")
    assert soa.startswith("ns.dns.cluster.local. hostmaster.cluster.local. ")
    assert ask(cluster, "@", "NS") == ["ns.dns.cluster.local."]


def test_targets_come_along(cluster):
    found = cluster.lookup(dns.name.from_text("_sql._tcp.db.shop.svc", cluster.origin), RdataType.SRV)
    assert sorted((name.labels[0].decode(), record.to_text()) for name, record in found.additional) == [
        ("10-244-0-9", "10.244.0.9"),
        ("one", "10.244.0.8"),
    ]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.96.0.5", ["web.shop.svc.cluster.local."]),
        ("10.244.0.8", ["one.db.shop.svc.cluster.local."]),
        ("10.244.0.7", None),
        ("10.96.0.77", None),
    ],
)
def test_addresses_have_names(cluster, address, expected):
    found = cluster.reverse(dns.reversename.from_address(address))
    assert (None if found is None else [record.to_text() for _, record in found.records]) == expected
