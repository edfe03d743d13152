# SPDX-License-Identifier: GPL-3.0-or-later
"""virt-handler's server, asked by virt-api's client and by strangers. Guests are sockets and what is called on them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from turtles import endpoint, pki
from turtles.api import labels, node_server
from turtles.api.node_server import Endpoint
from turtles.handler import vsock
from turtles.handler.consoles import Consoles
from turtles.handler.errors import LauncherBusy, LibvirtError
from turtles.handler.guest import Guests
from turtles.handler.operations import Operations
from turtles.handler.server import NodeServer
from turtles.handler.state import Store
from turtles.kube.client import NotFound
from turtles.virt_api import certificates
from turtles.virt_api.nodes import Nodes
from turtles.virt_api.status import Failure

KEY, UID = ("default", "vmi"), "u"


def vmi(uid: str = UID, phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": "vmi", "uid": uid},
        "spec": {},
        "status": {"phase": phase, "nodeName": "node-1"},
    }


class Domain:
    """A guest whose agent and libvirtd answer what the test says."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.answers = {"guest-get-users": "[]"}

    def __getattr__(self, name: str) -> Any:
        def called(**options: Any) -> None:
            if self.error is not None:
                raise self.error
            self.calls.append(" ".join([name, *(f"{key}={value}" for key, value in options.items())]))

        return called

    def ask_agent(self, command: str) -> str:
        name = command.removeprefix('{"execute": "').removesuffix('"}')
        if name not in self.answers:
            raise LibvirtError(f"The command {name} has not been found")
        return f'{{"return": {self.answers[name]}}}'


class Launcher:
    """Devices are sockets that the test has the other end of."""

    def __init__(self, name: str = "default_vmi") -> None:
        self.name = name
        self.domain = Domain()
        self.devices: list[tuple[str, socket.socket]] = []
        self.connected = threading.Condition()

    def live_domain(self, name: str) -> Domain:
        assert name == self.name
        return self.domain

    def connect(self, path: PurePosixPath) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with self.connected:
            self.devices.append((path.name, theirs))
            self.connected.notify_all()
        return ours

    def close(self) -> None:
        for _, device in self.devices:
            device.close()

    def device(self, number: int) -> socket.socket:
        with self.connected:
            assert self.connected.wait_for(lambda: len(self.devices) > number, 10)
        device = self.devices[number][1]
        device.settimeout(60)
        return device


class Rig:
    """A node with one guest, and a virt-api that reaches it."""

    def __init__(self, store: Any) -> None:
        self.guests = Guests(Store(store))
        self.guest = self.guests.track(KEY, UID)
        self.launcher = Launcher()
        self.guest.launcher = self.launcher  # type: ignore[assignment]
        self.events: list[tuple[str, str]] = []
        self.queue: list[Any] = []
        self.stored = vmi()
        cluster = SimpleNamespace(
            get=lambda key: self.stored,
            event=lambda obj, type_, reason, message: self.events.append((reason, message)),
            enqueue=self.queue.append,
        )
        operations = Operations(self.guests, cluster)  # type: ignore[arg-type]
        self.server = NodeServer(operations, Consoles(), "127.0.0.1", 0, bind="127.0.0.1")
        self.certificates = certificates.make(["virt-api"], datetime.now(UTC))
        self.annotation: str | None = self.server.endpoint.annotation()
        self.nodes = Nodes(SimpleNamespace(get=self.node))  # type: ignore[arg-type]
        self.nodes.identify(self.certificates)
        self.server.trust(self.certificates.bundle)

    def node(self, resource: Any, namespace: Any, name: str) -> dict[str, Any]:
        if name != "node-1":
            raise NotFound(404, "NotFound", name)
        return {"metadata": {"annotations": {labels.NODE_SERVER: self.annotation} if self.annotation else {}}}


@pytest.fixture
def rig(tmp_path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.server.close()
    rig.launcher.close()


@pytest.mark.parametrize(
    ("operation", "options", "calls"),
    [
        ("pause", {}, ["pause"]),
        ("unpause", {}, ["unpause"]),
        ("reset", {}, ["reset"]),
        ("softreboot", {"byAgent": True}, ["reboot by_agent=True"]),
        ("softreboot", {}, ["reboot by_agent=False"]),
        ("freeze", {"unfreezeTimeout": 60}, ["freeze"]),
        ("unfreeze", {}, ["thaw"]),
    ],
)
def test_operations(rig, operation, options, calls):
    assert rig.nodes.call(vmi(), operation, options) is None
    assert rig.launcher.domain.calls == calls
    assert rig.queue == [KEY], "what follows from it is reported"
    assert rig.events == (
        [("SoftRebooted", "VirtualMachineInstance soft rebooted")]
        if calls[0][0] == "r" and ("by_agent" in calls[0])
        else []
    )


def test_a_freeze_ends_in_time_even_if_this_agent_does_not_live_to_see_it(rig, tmp_path):
    before = time.monotonic()
    rig.nodes.call(vmi(), "freeze", {"unfreezeTimeout": 60})
    thaw_at = Store(tmp_path).load(UID).thaw_at
    assert thaw_at is not None
    assert before + 60 <= thaw_at <= time.monotonic() + 60
    rig.nodes.call(vmi(), "unfreeze")
    assert Store(tmp_path).load(UID).thaw_at is None
    rig.nodes.call(vmi(), "freeze", {"unfreezeTimeout": 0})
    assert Store(tmp_path).load(UID).thaw_at is None


def test_what_the_agent_knows(rig):
    rig.launcher.domain.answers = {
        "guest-info": '{"version": "9.2.0"}',
        "guest-get-users": '[{"user": "root", "login-time": 1.5}]',
        "guest-get-fsinfo": '[{"name": "vda1", "mountpoint": "/", "type": "ext4"}]',
    }
    info = rig.nodes.call(vmi(), node_server.GUEST_INFO)
    assert info["guestAgentVersion"] == "9.2.0"
    assert info["userList"] == [{"userName": "root", "loginTime": 1.5}]
    assert "hostname" not in info, "an agent may have commands switched off"
    assert rig.nodes.call(vmi(), node_server.USERS) == {
        "metadata": {},
        "items": [{"userName": "root", "loginTime": 1.5}],
    }
    assert rig.nodes.call(vmi(), node_server.FILESYSTEMS)["items"][0]["mountPoint"] == "/"


def refusal(call: Any) -> tuple[int, str]:
    with pytest.raises(Failure) as raised:
        call()
    return raised.value.code, raised.value.message


def test_silent_guests_of_one_namespace_leave_places_for_others(rig, monkeypatch):
    """Each request about one of them waits, up to a minute and a half."""
    other = rig.guests.track(("other", "vmi"), "o")
    other.launcher = Launcher("other_vmi")
    go_on = threading.Event()
    monkeypatch.setattr(
        rig.launcher.domain, "ask_agent", lambda command: go_on.wait(30) and '{"return": []}', raising=False
    )
    answered: list[Any] = []
    waiting = [
        threading.Thread(target=lambda: answered.append(rig.nodes.call(vmi(), node_server.USERS))) for _ in range(40)
    ]
    for thread in waiting:
        thread.start()
    others = {"metadata": {"namespace": "other", "name": "vmi", "uid": "o"}, "status": vmi()["status"]}
    try:
        for _ in range(3):
            rig.nodes.call(others, "pause")
        assert answered == []
    finally:
        go_on.set()
    for thread in waiting:
        thread.join(30)
    assert len(answered) == 40
    other.launcher.close()


def test_operations_that_fail(rig):
    call = rig.nodes.call
    elsewhere = "VirtualMachineInstance default/vmi is not running on this node"
    assert refusal(lambda: call(vmi("another"), "pause")) == (404, elsewhere)
    assert refusal(lambda: call(vmi(), "fly")) == (404, "unknown operation 'fly'")
    assert refusal(lambda: call(vmi(phase="Pending"), "reset")) == (
        400,
        "Unable to connect to VirtualMachineInstance because phase is Pending instead of Running or Scheduled",
    )
    rig.launcher.domain.error = LibvirtError("domain is not running")
    assert refusal(lambda: call(vmi(), "pause")) == (500, "Internal error occurred: domain is not running")
    rig.launcher.domain.error = LauncherBusy("libvirtd did not answer within 10 s")
    assert refusal(lambda: call(vmi(), "pause")) == (
        503,
        "the guest can't be reached: libvirtd did not answer within 10 s",
    )
    assert refusal(lambda: call(vmi(), node_server.FILESYSTEMS))[0] == 500
    rig.guest.launcher = None
    assert refusal(lambda: call(vmi(), "pause"))[0] == 404


def test_nodes_that_cannot_be_asked(rig):
    elsewhere = vmi()
    elsewhere["status"]["nodeName"] = "node-2"
    missing = "node 'node-2' has no virt-handler that accepts requests (annotation kubevirt.io/virt-handler-server)"
    assert refusal(lambda: rig.nodes.call(elsewhere, "pause")) == (503, missing)
    rig.annotation = "{}"
    assert refusal(lambda: rig.nodes.call(vmi(), "pause"))[0] == 503
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = rig.server.endpoint
        rig.annotation = Endpoint("127.0.0.1", free.getsockname()[1], found.certificate).annotation()
        assert "does not answer: [Errno 111] Connection refused" in refusal(lambda: rig.nodes.call(vmi(), "pause"))[1]
    # Somebody else listens where virt-handler was
    other, _ = endpoint.own_certificate("127.0.0.1")
    rig.annotation = Endpoint("127.0.0.1", found.port, other).annotation()
    assert "certificate verify failed" in refusal(lambda: rig.nodes.call(vmi(), "pause"))[1]
    assert rig.launcher.domain.calls == []


def stranger(rig: Rig, identity: pki.Pair | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if identity is not None:
        endpoint.load(context, identity.certificate_pem, identity.key_pem)
    target = f"{node_server.path(vmi(), 'pause')}?uid={UID}"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", rig.server.endpoint.port)) as plain:
        plain.settimeout(60)
        with context.wrap_socket(plain) as connection:
            connection.sendall(f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            return connection.recv(100)
    return b""


def test_strangers_are_not_served(rig):
    now, day = datetime.now(UTC), timedelta(days=1)
    ours = pki.Pair(*load_authority(rig))
    virt_api = pki.issue(ours, node_server.CLIENT, [], now, day, client=True)
    assert stranger(rig, virt_api).startswith(b"HTTP/1.1 200")
    rig.launcher.domain.calls.clear()
    for identity in (
        None,
        pki.issue(pki.authority("another", now, day), node_server.CLIENT, [], now, day, client=True),
        pki.issue(ours, "virt-api", [], now, day, client=True),
        pki.issue(ours, node_server.CLIENT, [], now, day),  # for a server, as the certificate that virt-api serves with
        pki.issue(None, node_server.CLIENT, [], now, day, client=True),
    ):
        assert stranger(rig, identity) == b""
    # An authority that was replaced
    rig.server.trust(certificates.make(["virt-api"], now).bundle)
    assert stranger(rig, virt_api) == b""
    assert rig.launcher.domain.calls == []


def load_authority(rig: Rig) -> tuple[Any, Any]:
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(rig.certificates.bundle.encode())
    return certificate, pki.load_key(rig.certificates.authority_key.encode())


async def test_a_console_carries_bytes_both_ways(rig):
    reader, writer = await rig.nodes.open(vmi(), node_server.CONSOLE)
    device = await asyncio.to_thread(rig.launcher.device, 0)
    assert rig.launcher.devices[0][0] == "virt-serial0"
    writer.write(b"root\n")
    assert await asyncio.to_thread(device.recv, 100) == b"root\n"
    device.sendall(b"\0\xff# ")
    assert await reader.readexactly(4) == b"\0\xff# "
    device.close()
    assert await asyncio.wait_for(reader.read(), 10) == b"", "it ends with the device"
    writer.transport.abort()


async def test_a_new_session_ends_the_one_before(rig):
    first, first_writer = await rig.nodes.open(vmi(), node_server.VNC)
    await asyncio.to_thread(rig.launcher.device, 0)
    with pytest.raises(Failure, match="Active VNC connection") as raised:
        await rig.nodes.open(vmi(), node_server.VNC, preserve=True)
    assert raised.value.code == 409
    # Neither another device's session nor a look at the screen is in its way
    for stream in (node_server.CONSOLE, node_server.SCREEN):
        _, writer = await rig.nodes.open(vmi(), stream, preserve=True)
        writer.transport.abort()
    second, second_writer = await rig.nodes.open(vmi(), node_server.VNC)
    assert await asyncio.wait_for(first.read(), 10) == b""
    device = await asyncio.to_thread(rig.launcher.device, 3)
    device.sendall(b"RFB")
    assert await second.readexactly(3) == b"RFB"
    second_writer.transport.abort()
    first_writer.transport.abort()
    assert await asyncio.to_thread(device.recv, 1) == b"", "the device is free again"
    _, writer = await open_when_free(rig)
    writer.transport.abort()


async def open_when_free(rig: Rig, stream: str = node_server.VNC) -> Any:
    async with asyncio.timeout(10):
        while True:
            try:
                return await rig.nodes.open(vmi(), stream, preserve=True)
            except Failure:
                await asyncio.sleep(0.01)


async def test_sessions_with_usb_ports_stand_beside_each_other(rig):
    writers = [(await rig.nodes.open(vmi(), node_server.USB))[1] for _ in range(4)]
    names = [name for name, _ in rig.launcher.devices]
    assert names == [f"virt-usbredir-{port}" for port in range(4)]
    with pytest.raises(Failure, match="all 4 USB ports for devices of clients are in use") as raised:
        await rig.nodes.open(vmi(), node_server.USB)
    assert raised.value.code == 503
    writers[2].transport.abort()
    reader, writers[2] = await open_when_free(rig, node_server.USB)
    assert rig.launcher.devices[4][0] == "virt-usbredir-2"
    rig.launcher.device(4).sendall(b"hello")
    assert await reader.readexactly(5) == b"hello"
    for writer in writers:
        writer.transport.abort()


@pytest.fixture
def kernel(monkeypatch) -> list[tuple[int, int]]:
    """A kernel whose guests listen on VSOCK ports, as echo servers; what is dialed."""
    dialed: list[tuple[int, int]] = []
    context = endpoint.server_context()
    endpoint.load(context, *endpoint.own_certificate("guest"))

    async def dial(address: int, port: int) -> socket.socket:
        dialed.append((address, port))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        threading.Thread(target=serve, args=(theirs, context if port == 443 else None), daemon=True).start()
        return ours

    monkeypatch.setattr(vsock, "_dial", dial)
    return dialed


def serve(connection: socket.socket, context: ssl.SSLContext | None) -> None:
    with contextlib.suppress(OSError), connection:
        if context is not None:
            connection = context.wrap_socket(connection, server_side=True)
        connection.sendall(connection.recv(100))


@pytest.mark.parametrize(("port", "tls"), [("22", "false"), ("443", "true")])
async def test_programs_of_the_guest_by_vsock(rig, kernel, port, tls):
    rig.stored["status"]["VSOCKCID"] = 7
    reader, writer = await rig.nodes.open(vmi(), node_server.VSOCK, port=port, tls=tls)
    writer.write(b"knock")
    assert await asyncio.wait_for(reader.readexactly(5), 10) == b"knock"
    assert await asyncio.wait_for(reader.read(), 10) == b"", "it ends with the program"
    assert kernel == [(7, int(port))]
    writer.transport.abort()


@pytest.mark.parametrize(
    ("address", "query", "code", "message"),
    [
        (None, {"port": "22"}, 400, "the guest has no VSOCK address"),
        (1, {"port": "22"}, 400, "the guest has no VSOCK address"),
        (2, {"port": "22"}, 400, "the guest has no VSOCK address"),
        (7, {"port": "-1"}, 400, "port must be a number"),
        (7, {}, 400, "port must be a number"),
        (7, {"port": str(2**32)}, 400, "port must be a number"),
        (7, {"port": "22", "tls": "true"}, 500, "TLS handshake with 7:22 failed"),
    ],
)
async def test_vsock_that_is_not_possible(rig, kernel, address, query, code, message):
    if address is not None:
        rig.stored["status"]["VSOCKCID"] = address
    with pytest.raises(Failure, match=message) as raised:
        await rig.nodes.open(vmi(), node_server.VSOCK, **query)
    assert raised.value.code == code


async def test_a_device_that_is_not_there(rig):
    rig.launcher.connect = lambda path: (_ for _ in ()).throw(FileNotFoundError(2, "No such file", str(path)))
    with pytest.raises(Failure, match="virt-vnc can't be reached") as raised:
        await rig.nodes.open(vmi(), node_server.VNC)
    assert raised.value.code == 503


def test_requests_that_are_none(rig):
    now, day = datetime.now(UTC), timedelta(days=1)
    identity = pki.issue(pki.Pair(*load_authority(rig)), node_server.CLIENT, [], now, day, client=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    endpoint.load(context, identity.certificate_pem, identity.key_pem)
    path = node_server.path(vmi(), "pause") + f"?uid={UID}"
    for request, answer in (
        (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", b"HTTP/1.1 404"),
        (b"nonsense\r\n\r\n", b""),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", b""),
        (f"PUT {path} HTTP/1.1\r\nHost: node\r\nContent-Length: 1000000\r\n\r\n".encode(), b""),
        (f"PUT {path} HTTP/1.1\r\nHost: node\r\nContent-Length: -1\r\n\r\n".encode(), b""),
        (f"PUT {path} HTTP/1.1\r\nHost: node\r\nContent-Length: 2\r\n\r\n[]".encode(), b"HTTP/1.1 400"),
        (f"PUT {path.replace('pause', 'vnc')} HTTP/1.1\r\nHost: node\r\n\r\n".encode(), b"HTTP/1.1 400"),
    ):
        with (
            socket.create_connection(("127.0.0.1", rig.server.endpoint.port)) as plain,
            context.wrap_socket(plain) as connection,
        ):
            connection.settimeout(60)
            connection.sendall(request)
            with contextlib.suppress(ConnectionError):
                assert connection.recv(1000)[: len(answer)] == answer
    assert rig.launcher.domain.calls == []
    assert rig.nodes.call(vmi(), "pause") is None
