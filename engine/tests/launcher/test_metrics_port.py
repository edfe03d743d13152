# SPDX-License-Identifier: GPL-3.0-or-later
"""The port on which a guest asks for metrics; the test is QEMU, which listens, and the event loop."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

import pytest

from turtles.launcher import loop, metrics_port
from turtles.launcher.metrics_port import MetricsPort

from .test_metrics import machine


class Rig:
    def __init__(self, path) -> None:
        self.path = path
        self.readable: Callable[[], None] | None = None
        self.later: list[Callable[[], None]] = []
        self.port = MetricsPort(path, machine())
        self.listener = socket.socket(socket.AF_UNIX)

    def start(self) -> socket.socket:
        self.listener.bind(str(self.path))
        self.listener.listen(1)
        self.port.open()
        qemu, _ = self.listener.accept()
        qemu.settimeout(60)
        return qemu

    def on_readable(self, descriptor: int, call: Callable[[], None]) -> Callable[[], None]:
        self.readable = call
        return self.stop

    def stop(self) -> None:
        self.readable = None

    def ask(self, qemu: socket.socket, request: bytes) -> bytes:
        qemu.sendall(request)
        assert self.readable is not None
        self.readable()
        return qemu.recv(65536)


@pytest.fixture
def rig(tmp_path, monkeypatch) -> Iterator[Rig]:
    rig = Rig(tmp_path / "socket")
    monkeypatch.setattr(loop, "on_readable", rig.on_readable)
    monkeypatch.setattr(loop, "after", lambda seconds, call: rig.later.append(call))
    yield rig
    rig.listener.close()


def test_metrics_are_given_once_a_second(rig):
    qemu = rig.start()
    answer = rig.ask(qemu, b"GET /metrics/XML\n\n")
    assert answer.endswith(b"\n\n")
    assert ElementTree.fromstring(answer).findtext("metric/value") == "node-1"
    assert rig.readable is None, "the next request has to wait"
    rig.later.pop()()
    assert ElementTree.fromstring(rig.ask(qemu, b"GET /metrics/XML\r\n\r\n")).tag == "metrics"
    qemu.close()


@pytest.mark.parametrize(
    "request_", [b"POST /metrics/XML\n\n", b"GET /\n\n", b"\n\n", b"GET /metrics/XML\nmore", b"x" * 1024 + b"xx"]
)
def test_requests_that_are_none(rig, request_):
    qemu = rig.start()
    qemu.sendall(request_)
    while not rig.later:
        rig.readable()
    assert qemu.recv(100) == b"INVALID REQUEST\n\n"
    rig.later.pop()()
    assert rig.ask(qemu, b"GET /metrics/XML\n\n").endswith(b"</metrics>\n\n")
    qemu.close()


def test_a_request_may_come_in_parts(rig):
    qemu = rig.start()
    for part in (b"GET /met", b"rics/XML", b"\n"):
        qemu.sendall(part)
        rig.readable()
        assert not rig.later
    assert rig.ask(qemu, b"\n").endswith(b"\n\n")
    qemu.close()


def test_qemu_comes_and_goes(rig):
    rig.port.open()  # not there yet
    assert rig.readable is None
    qemu = rig.start()
    rig.port.open()
    qemu.close()
    rig.readable()
    assert rig.readable is None
    rig.port.open()
    again, _ = rig.listener.accept()
    again.settimeout(60)
    assert rig.ask(again, b"GET /metrics/XML\n\n").endswith(b"\n\n")
    again.close()


def test_requests_that_come_together_are_answered_one_by_one(rig):
    qemu = rig.start()
    assert rig.ask(qemu, b"GET /metrics/XML\n\nGET /\n\n").endswith(b"</metrics>\n\n")
    rig.later.pop()()
    assert qemu.recv(100) == b"INVALID REQUEST\n\n"
    qemu.close()


def test_a_guest_that_does_not_read_stops_nobody(rig, monkeypatch):
    monkeypatch.setattr(metrics_port.metrics, "document", lambda *_: b"x" * 2**22)
    qemu = rig.start()
    qemu.sendall(b"GET /metrics/XML\n\n")
    rig.readable()
    assert rig.readable is None
    (reopen,) = rig.later
    assert reopen == rig.port.open
    reopen()
    rig.listener.accept()[0].close()
    qemu.close()
