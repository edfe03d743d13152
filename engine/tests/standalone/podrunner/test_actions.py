# SPDX-License-Identifier: GPL-3.0-or-later
"""What probes make of servers that answer, and of those that do what they want."""

import socket
import threading
import time

import pytest

from turtles.standalone.podrunner.actions import Target, perform


def target(run=lambda command, seconds: (0, ""), **container):
    """Return a container on this machine."""
    return Target({"name": "c", **container}, "127.0.0.1", run, threading.Event())


@pytest.fixture
def server():
    """Serves one connection with a function; returns the port, and what was asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked = []

    def serve(answer):
        def work():
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(4096).decode())
                answer(connection)

        threading.Thread(target=work, daemon=True).start()
        return listener.getsockname()[1]

    yield serve, asked
    listener.close()


@pytest.mark.parametrize(
    ("line", "good", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, ""),
        (b"HTTP/1.0 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n", True, ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False, "HTTP probe failed with statuscode: 404"),
        (b"SSH-2.0-x\r\n", False, "the answer is not HTTP"),
        (b"HTTP/1.1 2x0 OK\r\n", False, "the answer is not HTTP"),
        (b"", False, "the answer is not HTTP"),
    ],
)
def test_answers(server, line, good, said):
    serve, asked = server
    port = serve(lambda connection: connection.sendall(line))
    headers = [{"name": "X-Own", "value": "v"}, {"name": "host", "value": "example.org"}]
    found = perform({"httpGet": {"port": port, "path": "/x", "httpHeaders": headers}}, target(), 5)
    assert found[0] is good
    assert said in found[1]
    (request,) = asked
    assert request.startswith("GET /x HTTP/1.1\r\n")
    assert "host: example.org\r\n" in request
    assert "Host:" not in request
    assert "X-Own: v\r\n" in request


def test_who_answers_byte_by_byte_does_not_take_longer_than_a_probe_may(server):
    def drip(connection):
        try:
            while True:
                connection.sendall(b"H")
                time.sleep(0.05)
        except OSError:
            return

    serve, _ = server
    port = serve(drip)
    started = time.monotonic()
    good, said = perform({"httpGet": {"port": port}}, target(), 0.4)
    assert not good
    assert "failed" in said
    assert time.monotonic() - started < 2


def test_requests_have_no_further_lines(server):
    serve, _ = server
    port = serve(lambda connection: None)
    good, said = perform({"httpGet": {"port": port, "path": "/\r\nX: y"}}, target(), 5)
    assert (good, "line break" in said) == (False, True)


def test_ports(server):
    serve, _ = server
    port = serve(lambda connection: None)
    assert perform({"tcpSocket": {"port": "p"}}, target(ports=[{"name": "p", "containerPort": port}]), 5) == (True, "")
    assert perform({"tcpSocket": {"port": "q"}}, target(), 5) == (False, "the container has no port 'q'")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    good, said = perform({"tcpSocket": {"port": free}}, target(), 5)
    assert (good, "refused" in said) == (False, True)


@pytest.mark.parametrize(
    ("ended", "expected"),
    [((0, "fine"), (True, "fine")), ((1, "bad"), (False, "bad")), ((None, ""), (False, "command timed out after 2s"))],
)
def test_commands(ended, expected):
    assert perform({"exec": {"command": ["x"]}}, target(lambda command, seconds: ended), 2) == expected
