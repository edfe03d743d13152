# SPDX-License-Identifier: GPL-3.0-or-later
"""The resolver's settings and the routes, as text."""

from turtles.launcher.pod import Resolver, gateways, resolver

ROUTES = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t00000000\t0100F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0010A8C0\tFE00F40A\t0003\t0\t0\t0\t00F0FFFF\t0\t0\t0
"""


def test_gateways():
    assert gateways(ROUTES, "eth0") == ("10.244.0.1", (("192.168.16.0/20", "10.244.0.254"),))
    assert gateways(ROUTES, "eth1") == ("192.168.0.1", ())
    assert gateways(ROUTES, "eth2") == (None, ())


def test_resolver():
    text = """
    # a comment
    nameserver 127.0.0.53
    nameserver ::1
    nameserver fd00::10
    nameserver fe80::1
    nameserver 10.96.0.10
    nameserver 10.96.0.10
    nameserver nonsense
    nameserver
    domain old.example
    search default.svc.cluster.local. svc.cluster.local .
    options ndots:5
    """
    assert resolver(text) == Resolver(("fd00::10", "10.96.0.10"), ("default.svc.cluster.local", "svc.cluster.local"))


def test_resolver_of_nothing():
    assert resolver("") == Resolver()
