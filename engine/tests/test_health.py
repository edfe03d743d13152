# SPDX-License-Identifier: GPL-3.0-or-later
"""Health and figures of a component over HTTP."""

import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from turtles import endpoint
from turtles.health import HealthServer
from turtles.metrics import COUNTER, HISTOGRAM, Description, Sample, Source


class Rig:
    def __init__(self) -> None:
        self.ready = False
        described = Description("kubevirt_things_total", "Things.", COUNTER), Description("took", "Time.", HISTOGRAM)
        labels = {"name": 'a "b"\n'}
        samples = [
            Sample("kubevirt_things_total", labels, 3.0),
            Sample("took_bucket", {"le": "+Inf"}, 1.0),
            Sample("took_count", {}, 1.0),
            Sample("took_sum", {}, 0.5),
        ]
        self.server = HealthServer(
            "virt-test", "127.0.0.1", 0, lambda: self.ready, (Source(described, lambda: samples),)
        )

    def get(self, path: str) -> tuple[int, str]:
        try:
            # as a kubelet asks
            url, anybody = f"https://127.0.0.1:{self.server.port}{path}", ssl._create_unverified_context()
            with urllib.request.urlopen(url, context=anybody, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def rig() -> Iterator[Rig]:
    found = Rig()
    yield found
    found.server.close()


def test_alive_before_it_is_ready(rig: Rig) -> None:
    assert rig.get("/livez") == (200, "ok")
    assert rig.get("/readyz")[0] == 503
    rig.ready = True
    assert rig.get("/readyz") == (200, "ok")
    assert rig.get("/other")[0] == 404


def test_figures_in_prometheus_text_format(rig: Rig) -> None:
    code, text = rig.get("/metrics")
    assert code == 200
    assert "\nkubevirt_virt_test_ready_status 0.0\n" in text
    line = 'kubevirt_things_total{name="a \\"b\\"\\n"} 3.0\n'
    assert f"# HELP kubevirt_things_total Things.\n# TYPE kubevirt_things_total counter\n{line}" in text
    assert '# TYPE took histogram\ntook_bucket{le="+Inf"} 1.0\ntook_count 1.0\ntook_sum 0.5\n' in text
    resident = next(line for line in text.splitlines() if line.startswith("process_resident_memory_bytes "))
    assert float(resident.split()[1]) > 1e6


def test_a_byte_now_and_then_keeps_no_connection(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.server._server.RequestHandlerClass, "timeout", 1)
    with (
        socket.create_connection(("127.0.0.1", rig.server.port), timeout=10) as plain,
        ssl._create_unverified_context().wrap_socket(plain) as slow,
    ):
        slow.settimeout(0.2)
        slow.sendall(b"GET /livez HTTP/1.1\r\n")
        assert any(_is_ended_by(slow, b"a") for _ in range(100))


def _is_ended_by(connection: ssl.SSLSocket, data: bytes) -> bool:
    """Send data; say whether the other side has ended the connection."""
    try:
        connection.sendall(data)
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_there_is_an_end_of_connections(rig: Rig) -> None:
    connections = [socket.create_connection(("127.0.0.1", rig.server.port), timeout=10) for _ in range(101)]
    try:
        assert connections[-1].recv(1) == b""
    finally:
        for one in connections:
            one.close()
    # Their threads notice that they are gone
    for _ in range(100):
        try:
            assert rig.get("/livez") == (200, "ok")
            break
        except OSError:
            continue
    else:
        raise AssertionError("nobody is answered any more")


def test_who_does_not_speak_tls_keeps_nobody_waiting(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", rig.server.port), timeout=60) as silent:
        with socket.create_connection(("127.0.0.1", rig.server.port), timeout=60) as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
            said = b""
            while more := plain.recv(1000):
                said += more
        assert b"HTTP" not in said
        assert rig.get("/livez") == (200, "ok")
        silent.close()
    assert "Traceback" not in capfd.readouterr().err


def test_an_address_is_one_and_none_is_all_of_them() -> None:
    with endpoint.listen("127.0.0.1", 0) as one, endpoint.listen("", 0) as everywhere:
        assert one.getsockname()[0] == "127.0.0.1"
        for address in ("127.0.0.1", *(["::1"] if everywhere.family == socket.AF_INET6 else [])):
            socket.create_connection((address, everywhere.getsockname()[1]), timeout=60).close()
