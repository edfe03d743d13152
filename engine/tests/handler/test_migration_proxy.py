# SPDX-License-Identifier: GPL-3.0-or-later
"""The way between two nodes: what passes, and who may come."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from turtles.handler.migration_proxy import DISKS, MEMORY, MigrationProxy

SIZE = 5 << 20


@pytest.fixture
def proxies() -> Iterator[list[MigrationProxy]]:
    made = [MigrationProxy("127.0.0.1", 0, bind="127.0.0.1") for _ in range(3)]
    yield made
    for proxy in made:
        proxy.close()


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(path))
    return connection


def read(connection: socket.socket) -> bytes:
    received = bytearray()
    while data := connection.recv(1 << 16):
        received += data
    return bytes(received)


def test_bytes_of_each_channel_arrive_where_they_belong(proxies: list[MigrationProxy], tmp_path: Path) -> None:
    source, target, _ = proxies
    inside = {channel: listen(tmp_path / f"in-{channel}") for channel in (MEMORY, DISKS)}
    received: dict[str, bytes] = {}

    def serve(channel: str) -> None:
        connection, _ = inside[channel].accept()
        with connection:
            received[channel] = read(connection)

    threads = [threading.Thread(target=serve, args=(channel,)) for channel in inside]
    for thread in threads:
        thread.start()
    target.expect("m", source.endpoint, lambda channel: connect(tmp_path / f"in-{channel}"))
    lead = source.lead("m", target.endpoint, {channel: listen(tmp_path / f"out-{channel}") for channel in inside})
    for channel in inside:
        with connect(tmp_path / f"out-{channel}") as connection:
            connection.sendall(channel.encode() * (SIZE // len(channel)))
    for thread in threads:
        thread.join(60)
    lead.close()
    assert {channel: data[:2] for channel, data in received.items()} == {MEMORY: b"me", DISKS: b"di"}
    assert all(len(data) == SIZE // len(channel) * len(channel) for channel, data in received.items())


def test_both_directions_at_once_with_those_who_are_slow(proxies: list[MigrationProxy], tmp_path: Path) -> None:
    source, target, _ = proxies
    inner = listen(tmp_path / "in")
    sent = {"there": os.urandom(SIZE), "back": os.urandom(SIZE)}
    received: dict[str, bytes] = {}

    def talk(connection: socket.socket, out: str, into: str) -> None:
        writer = threading.Thread(target=connection.sendall, args=(sent[out],))
        writer.start()
        found = bytearray()
        while len(found) < SIZE:
            # in pieces of all sizes, so that buffers fill and empty
            found += connection.recv(1 + len(found) % 50_000)
        received[into] = bytes(found)
        writer.join(60)

    target.expect("m", source.endpoint, lambda channel: connect(tmp_path / "in"))
    lead = source.lead("m", target.endpoint, {MEMORY: listen(tmp_path / "out")})
    with connect(tmp_path / "out") as outer:
        other, _ = inner.accept()
        with other:
            threads = [
                threading.Thread(target=talk, args=(outer, "there", "back")),
                threading.Thread(target=talk, args=(other, "back", "there")),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
    lead.close()
    inner.close()
    assert received == sent


def test_a_guest_has_some_connections_only(proxies: list[MigrationProxy], tmp_path: Path) -> None:
    """Its Pod can make as many as it likes, and each takes a thread of root's on two nodes."""
    source, target, _ = proxies
    inner, listener = listen(tmp_path / "in"), listen(tmp_path / "out")
    for each in (inner, listener):
        each.listen(500)
    target.expect("m", source.endpoint, lambda channel: connect(tmp_path / "in"))
    lead = source.lead("m", target.endpoint, {MEMORY: listener})
    before = threading.active_count()
    with contextlib.ExitStack() as opened:
        outer = [opened.enter_context(connect(tmp_path / "out")) for _ in range(400)]
        ended = 0
        for each in outer:
            # Those that are carried have nothing to say
            if select.select([each], [], [], 0.02)[0]:
                ended += each.recv(1) == b""
        assert ended >= 80
        assert threading.active_count() - before <= 2 * 320
    for _ in range(100):
        with connect(tmp_path / "out") as again:
            again.sendall(b"x")
            if not select.select([again], [], [], 0.1)[0]:
                break
    else:
        raise AssertionError("places are not given back")
    lead.close()
    inner.close()


@pytest.mark.parametrize("who", ["a stranger", "of another migration"])
def test_nobody_else_gets_in(proxies: list[MigrationProxy], tmp_path: Path, who: str) -> None:
    source, target, stranger = proxies
    asked: list[str] = []

    def inside(channel: str) -> socket.socket:
        asked.append(channel)
        raise OSError("nobody is here")

    target.expect("m", source.endpoint, inside)
    # The TLS layer knows its certificate by another migration
    target.expect("other", stranger.endpoint, inside)
    caller, uid = (stranger, "m") if who == "a stranger" else (source, "other")
    lead = caller.lead(uid, target.endpoint, {MEMORY: listen(tmp_path / "out")})
    with connect(tmp_path / "out") as connection:
        connection.sendall(b"hello")
        with contextlib.suppress(ConnectionResetError):
            assert read(connection) == b""
    lead.close()
    assert asked == []


def test_a_target_that_is_not_the_one_that_was_named(proxies: list[MigrationProxy], tmp_path: Path) -> None:
    source, target, stranger = proxies
    target.expect("m", source.endpoint, lambda channel: connect(tmp_path / "in"))
    named = type(target.endpoint)(target.endpoint.host, target.endpoint.port, stranger.endpoint.certificate)
    lead = source.lead("m", named, {MEMORY: listen(tmp_path / "out")})
    with connect(tmp_path / "out") as connection:
        assert read(connection) == b""
    assert "can't be reached" in lead.error
    lead.close()


def test_connections_arrive_in_their_order(proxies: list[MigrationProxy], tmp_path: Path) -> None:
    """However long each of them takes to be made."""
    source, target, _ = proxies
    inner = listen(tmp_path / "in")
    delays = iter([0.3, 0.2, 0.1, 0.0])

    def late(_: str) -> socket.socket:
        time.sleep(next(delays))
        return connect(tmp_path / "in")

    target.expect("m", source.endpoint, late)
    lead = source.lead("m", target.endpoint, {MEMORY: listen(tmp_path / "out")}, in_order=True)
    with contextlib.ExitStack() as stack:
        for number in range(4):
            stack.enter_context(connect(tmp_path / "out")).sendall(bytes([number]))
        arrived = [stack.enter_context(inner.accept()[0]).recv(1) for _ in range(4)]
    lead.close()
    inner.close()
    assert arrived == [b"\0", b"\1", b"\2", b"\3"]


def test_an_ordered_way_to_nowhere_ends(proxies: list[MigrationProxy], tmp_path: Path) -> None:
    source, target, _ = proxies
    lead = source.lead("unknown", target.endpoint, {MEMORY: listen(tmp_path / "out")}, in_order=True)
    for _ in range(2):
        with connect(tmp_path / "out") as connection, contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""
    lead.close()
    assert "can't be reached" in lead.error
