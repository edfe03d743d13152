# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions by real datagrams and connections, to a server and to one that it asks in turn."""

import asyncio
import contextlib
import os
import socket
import threading
from ipaddress import IPv4Network, IPv6Network

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import dns.rrset
import pytest

from turtles.errors import ConfigurationError
from turtles.standalone.dns.answers import Answers
from turtles.standalone.dns.server import Server, bind
from turtles.standalone.dns.upstream import Upstream

OWN = (IPv4Network("10.96.0.0/16"), IPv6Network("fd00::/112"), IPv4Network("10.244.0.0/16"))


class Elsewhere(asyncio.DatagramProtocol):
    """A name server of the host's network: it knows www.example.org, and nothing else."""

    def connection_made(self, transport):
        self.transport = transport
        self.asked = []

    def datagram_received(self, data, addr):
        query = dns.message.from_wire(data)
        name = query.question[0].name
        self.asked.append(str(name))
        if str(name) == "silent.example.org.":
            return
        reply = dns.message.make_response(query)
        if str(name) == "www.example.org.":
            reply.answer.append(dns.rrset.from_text(name, 300, "IN", "A", "192.0.2.80"))
        else:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(reply.to_wire(), addr)


@contextlib.asynccontextmanager
async def serving(cluster, tmp_path, *, clients=(), ready=True):
    loop = asyncio.get_running_loop()
    sockets = _pair()
    transport, elsewhere = await loop.create_datagram_endpoint(Elsewhere, local_addr=("127.0.0.1", 0))
    _, port = transport.get_extra_info("sockname")
    upstream = Upstream(("127.0.0.1",), tmp_path / "resolv.conf", port=port, timeout=0.2)
    server = Server(Answers(cluster, upstream, OWN, lambda: ready), clients)
    stopped = threading.Event()
    task = asyncio.create_task(server.serve(sockets, stopped))
    try:
        yield sockets[0].getsockname()[1], elsewhere, server
    finally:
        stopped.set()
        await task
        transport.close()


def _pair():
    """Sockets of one free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return bind("127.0.0.1", port)


async def ask(port, name, kind="A", **options):
    query = dns.message.make_query(name, kind, **options)
    return await dns.asyncquery.udp(query, "127.0.0.1", port=port, timeout=60)


def texts(reply):
    return [line for group in reply.answer for line in group.to_text().splitlines()]


async def test_the_clusters_names(cluster, tmp_path):
    async with serving(cluster, tmp_path) as (port, elsewhere, _):
        reply = await ask(port, "web.shop.svc.cluster.local")
        assert texts(reply) == ["web.shop.svc.cluster.local. 5 IN A 10.96.0.5"]
        assert reply.flags & dns.flags.AA
        assert reply.flags & dns.flags.RA
        reply = await ask(port, "nobody.shop.svc.cluster.local")
        assert (reply.rcode(), len(reply.authority)) == (dns.rcode.NXDOMAIN, 1)
        reply = await ask(port, "web.shop.svc.cluster.local", "MX")
        assert (reply.rcode(), reply.answer, len(reply.authority)) == (dns.rcode.NOERROR, [], 1)
        reply = await ask(port, "5.0.96.10.in-addr.arpa", "PTR")
        assert texts(reply) == ["5.0.96.10.in-addr.arpa. 5 IN PTR web.shop.svc.cluster.local."]
        name = dns.reversename.from_address("fd00::5")
        assert texts(await ask(port, name, "PTR")) == [f"{name} 5 IN PTR web.shop.svc.cluster.local."]
        # Nobody else knows the cluster's addresses
        for unknown in ("9.9.96.10.in-addr.arpa", dns.reversename.from_address("fd00::99")):
            assert (await ask(port, unknown, "PTR")).rcode() == dns.rcode.NXDOMAIN
        assert elsewhere.asked == []
        assert (await ask(port, dns.reversename.from_address("2001:db8::1"), "PTR")).rcode() == dns.rcode.NXDOMAIN
        assert len(elsewhere.asked) == 1


async def test_other_names_are_asked_elsewhere(cluster, tmp_path):
    async with serving(cluster, tmp_path) as (port, elsewhere, _):
        assert texts(await ask(port, "www.example.org")) == ["www.example.org. 300 IN A 192.0.2.80"]
        assert (await ask(port, "nowhere.example.org")).rcode() == dns.rcode.NXDOMAIN
        assert (await ask(port, "1.2.0.192.in-addr.arpa", "PTR")).rcode() == dns.rcode.NXDOMAIN
        assert elsewhere.asked[-1] == "1.2.0.192.in-addr.arpa."
        reply = await ask(port, "outside.shop.svc.cluster.local")
        assert texts(reply) == [
            "outside.shop.svc.cluster.local. 5 IN CNAME www.example.org.",
            "www.example.org. 300 IN A 192.0.2.80",
        ]
        assert texts(await ask(port, "inside.shop.svc.cluster.local"))[-1].endswith("A 10.96.0.5")
        for name in ("silent.example.org", "loop.shop.svc.cluster.local"):
            assert (await ask(port, name)).rcode() == dns.rcode.SERVFAIL


async def test_connections(cluster, tmp_path):
    async with serving(cluster, tmp_path) as (port, _, _):
        query = dns.message.make_query("db.shop.svc.cluster.local", "A")
        reply = await dns.asyncquery.tcp(query, "127.0.0.1", port=port, timeout=60)
        assert len(reply.answer[0]) == 2
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x00\x05hello")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_garbage_harms_nobody(cluster, tmp_path):
    async with serving(cluster, tmp_path) as (port, _, _):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", port))
            query = dns.message.make_query("web.shop.svc.cluster.local", "A").to_wire()
            for data in (b"", b"x", query[:13], query + b"\xff" * 100, query[:4] + b"\xff\xff" + query[6:]):
                sock.send(data)
            answer = bytearray(query)
            answer[2] |= 0x80
            sock.send(answer)
        assert texts(await ask(port, "web.shop.svc.cluster.local"))
        assert (await ask(port, "version.bind", "TXT", rdclass="CH")).rcode() == dns.rcode.REFUSED
        update = dns.message.make_query("cluster.local", "SOA")
        update.set_opcode(dns.opcode.UPDATE)
        assert (await dns.asyncquery.udp(update, "127.0.0.1", port=port, timeout=60)).rcode() == dns.rcode.NOTIMP


async def test_too_long_for_a_datagram(cluster, tmp_path, monkeypatch):
    endpoints = cluster._slices.objects[1]["endpoints"]
    more = [{"addresses": [f"10.244.1.{number}"]} for number in range(200)]
    monkeypatch.setitem(cluster._slices.objects[1], "endpoints", endpoints + more)
    async with serving(cluster, tmp_path) as (port, _, _):
        for options in ({}, {"use_edns": 0, "payload": 4096}):
            assert (await ask(port, "db.shop.svc.cluster.local", **options)).flags & dns.flags.TC
        query = dns.message.make_query("db.shop.svc.cluster.local", "A")
        reply = await dns.asyncquery.tcp(query, "127.0.0.1", port=port, timeout=60)
        assert len(reply.answer[0]) == 202


async def test_not_before_the_api_was_read(cluster, tmp_path):
    async with serving(cluster, tmp_path, ready=False) as (port, _, _):
        assert (await ask(port, "web.shop.svc.cluster.local")).rcode() == dns.rcode.SERVFAIL
        assert texts(await ask(port, "www.example.org"))


async def test_who_is_answered(cluster, tmp_path):
    clients = [IPv4Network("10.244.0.0/16")]
    async with serving(cluster, tmp_path, clients=clients) as (_, _, server):
        assert server.is_client("10.244.3.4")
        assert server.is_client("127.0.0.1")
        assert not server.is_client("192.0.2.1")


def test_a_port_that_is_taken():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"can't serve DNS at 127.0.0.1:{port}: another program listens"):
            bind("127.0.0.1", port)


def test_servers_of_the_host(tmp_path):
    file = tmp_path / "resolv.conf"
    upstream = Upstream((), file, ("10.96.0.10",))
    assert upstream.servers() == ()
    file.write_text("nameserver 10.96.0.10\nnameserver 192.0.2.1\n")
    assert upstream.servers() == ("192.0.2.1",)
    file.write_text("# none\n")
    os.utime(file, (1, 1))
    assert upstream.servers() == ()
