# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes between libvirt and a Pod, byte by byte. (With the real ones it is in test_hostile.)"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from turtles.handler import relay as relays
from turtles.handler.relay import Link, Relay

REMOTE, QEMU, KEEPALIVE = 0x20008086, 0x20008087, 0x6B656570
CALL, REPLY, EVENT = 0, 1, 2


@pytest.fixture
def relay() -> Relay:
    return Relay()


class Ends:
    """Both ends of a link, in the hands of the test."""

    def __init__(self, relay: Relay) -> None:
        self.pod, other = socket.socketpair()
        self.link: Link = relay.link(other)
        self.client = socket.socket(socket.AF_UNIX)
        self.client.connect(self.link.uri.partition("=")[2])
        self.link.opened()
        for end in (self.pod, self.client):
            end.settimeout(60)


@pytest.fixture
def ends(relay: Relay) -> Iterator[Ends]:
    ends = Ends(relay)
    yield ends
    ends.link.cut("test")
    ends.pod.close()
    ends.client.close()


def message(
    kind: int, serial: int = 0, body: bytes = b"", *, program: int = REMOTE, procedure: int = 1, length: int = 0
) -> bytes:
    return relays._HEADER.pack(length or 28 + len(body), program, 1, procedure, kind, serial, 0) + body


def exchange(ends: Ends, serial: int, body: bytes = b"") -> None:
    call, reply = message(CALL, serial, b"question"), message(REPLY, serial, body)
    ends.client.sendall(call)
    assert ends.pod.recv(len(call), socket.MSG_WAITALL) == call
    threading.Thread(target=ends.pod.sendall, args=(reply,)).start()
    received = b""
    while len(received) < len(reply):
        received += ends.client.recv(65536)
    assert received == reply


def is_cut(ends: Ends) -> str:
    with contextlib.suppress(ConnectionResetError):
        while ends.client.recv(65536):
            pass
    assert ends.link.lost is not None
    return ends.link.lost


def test_calls_and_answers_pass(ends: Ends) -> None:
    for serial in range(10):
        exchange(ends, serial)
    exchange(ends, 10, bytes(relays.MAX_MESSAGE - 28))


def test_messages_in_pieces_are_passed_on_whole(ends: Ends) -> None:
    ends.client.sendall(message(CALL, 1) + message(CALL, 2))
    ends.pod.recv(56, socket.MSG_WAITALL)
    replies = message(REPLY, 1, b"first") + message(REPLY, 2, b"second")
    for position in range(33):
        ends.pod.sendall(replies[position : position + 1])
    assert ends.client.recv(1000) == replies[:33]
    ends.pod.sendall(replies[33:])
    assert ends.client.recv(1000) == replies[33:]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (message(REPLY, 7), "an unexpected message"),
        (message(REPLY, 1, procedure=2), "an unexpected message"),
        (message(REPLY, 1, program=QEMU), "an unexpected message"),
        (message(REPLY, 1, length=27), "an unexpected message"),
        (message(REPLY, 1, length=relays.MAX_MESSAGE + 1), f"a message of {relays.MAX_MESSAGE + 1} bytes"),
        (message(REPLY, 1, length=0xFFFFFFFF), "a message of 4294967295 bytes"),
        (message(5, 1), "an unexpected message"),  # with descriptors
        (message(3, 1), "an unexpected message"),  # a stream's
        (message(CALL, 1), "an unexpected message"),
        (message(EVENT, procedure=318), "an unexpected message"),  # libvirt would crash
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a message of"),
    ],
)
def test_what_is_no_answer_ends_the_connection(ends: Ends, data: bytes, word: str) -> None:
    ends.client.sendall(message(CALL, 1))
    ends.pod.recv(28, socket.MSG_WAITALL)
    ends.pod.sendall(data)
    assert word in is_cut(ends)


def test_events_pass_once_they_were_asked_for(ends: Ends) -> None:
    ends.link.takes_events = True
    event, sign = message(EVENT, procedure=318), message(EVENT, procedure=1, program=KEEPALIVE)
    ends.pod.sendall(event + sign)
    assert ends.client.recv(56, socket.MSG_WAITALL) == event + sign
    ends.pod.sendall(message(EVENT, procedure=319))  # a reboot, which nobody wants to hear of
    assert "an unexpected message" in is_cut(ends)


def test_nobody_identifies_itself_to_a_pod(ends: Ends) -> None:
    ends.client.sendall(message(CALL, 1, procedure=67))
    assert "asks for credentials" in is_cut(ends)
    assert ends.pod.recv(100) == b""


def test_a_deadline_ends_the_connection_and_no_other(relay: Relay, ends: Ends) -> None:
    another = Ends(relay)
    began = time.monotonic()
    with another.link.within(30, "something else"), ends.link.within(0.1, "an answer"):
        assert is_cut(ends) == "did not answer within 0.1 s (an answer)"
    assert time.monotonic() - began < 2
    exchange(another, 1)
    with another.link.within(0.05, "an answer"):
        pass
    time.sleep(0.1)
    exchange(another, 2)
    another.link.cut("test")
    another.client.close()
    another.pod.close()


def test_the_end_of_one_side_is_the_other_s(relay: Relay) -> None:
    ends = Ends(relay)
    exchange(ends, 1)
    ends.pod.close()
    assert is_cut(ends) == "closed the connection"
    ends = Ends(relay)
    ends.client.close()
    assert ends.pod.recv(100) == b""


def test_endless_senders_are_not_read_for_a_while(ends: Ends) -> None:
    ends.link.takes_events = True
    events = message(EVENT, procedure=318, body=bytes(36)) * 256
    stop = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                ends.pod.send(events)

    thread = threading.Thread(target=send)
    thread.start()
    taken, began, spent = 0, time.monotonic(), time.process_time()
    ends.client.settimeout(0.1)
    while time.monotonic() - began < 1:
        with contextlib.suppress(TimeoutError):
            taken += len(ends.client.recv(65536))
    assert taken // 64 < relays._UNITS + 2 * relays._UNITS_RATE + 65536 // 64
    assert time.process_time() - spent < 0.5
    stop.set()
    ends.link.cut("test")
    thread.join(60)
    assert not thread.is_alive()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_left(relay: Relay) -> None:
    before = descriptors()
    for _ in range(20):
        ends = Ends(relay)
        exchange(ends, 1)
        ends.link.cut("test")
        is_cut(ends)
        ends.client.close()
        ends.pod.close()
    pod, other = socket.socketpair()
    link = relay.link(other)  # nobody connects
    link.opened()
    link.cut("test")
    assert pod.recv(1) == b""
    pod.close()
    assert len(relay) == 0
    assert descriptors() == before
