# SPDX-License-Identifier: GPL-3.0-or-later
"""Consoles, screens and ports as users' clients see them: WebSockets of the server, with guests that the test plays."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from turtles.kube.kubevirt import VM, VMI
from turtles.virt_api import streams
from turtles.virt_api.status import Failure

from .fakes import FakeClient
from .test_instances import CONFLICT, NOT_FOUND, vmi
from .test_server import JANE, Rig, front_proxy

BASE = "/apis/subresources.kubevirt.io/v1/namespaces/default"
VMI_URL = f"{BASE}/virtualmachineinstances/vmi"
NO_SERIAL = {"domain": {"devices": {"autoattachSerialConsole": False}}}
NO_SCREEN = {"domain": {"devices": {"autoattachGraphicsDevice": False}}}
DEVICES = {"domain": {"devices": {"clientPassthrough": {}, "autoattachVSOCK": True}}}
ADDRESS = {"interfaces": [{"name": "default", "ipAddress": "127.0.0.1"}]}


class Devices:
    """Nodes whose guests' devices the test has the other end of."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, bool]] = []
        self.query: dict[str, str] = {}
        self.device: socket.socket | None = None
        self._connected = asyncio.Event()

    async def screen(self) -> socket.socket:
        """The guest's end of the device, once somebody is connected to it."""
        await self._connected.wait()
        assert self.device is not None
        return self.device

    async def open(
        self, obj: Any, stream: str, *, preserve: bool = False, **query: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if preserve and self.opened:
            raise Failure(409, "Active VNC connection. Request denied.")
        self.opened.append((stream, preserve))
        self.query = query
        ours, self.device = socket.socketpair()
        ours.setblocking(False)
        self.device.settimeout(60)
        self._connected.set()
        return await asyncio.open_unix_connection(sock=ours)


class Server:
    """The server, a user's session, and what is behind."""

    def __init__(
        self, url: str, session: aiohttp.ClientSession, tls: Any, devices: Devices, client: FakeClient
    ) -> None:
        self.url, self.session, self.tls, self.devices, self.client = url, session, tls, devices, client

    def connect(self, path: str) -> Any:
        return self.session.ws_connect(
            self.url + path, headers=JANE, ssl=self.tls, protocols=["plain.kubevirt.io"], max_msg_size=0
        )

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path, headers=JANE, ssl=self.tls) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else await answer.read()


@contextlib.asynccontextmanager
async def serving(tmp_path: Any, obj: Any = None, *others: Any) -> Any:
    rig = Rig()
    devices = Devices()
    rig.client = FakeClient(*([(VMI, obj)] if obj else []), *others)
    rig.server._client = rig.client  # type: ignore[assignment]
    rig.server._streams = streams.handlers(rig.client, devices)  # type: ignore[arg-type]
    identity, trusted = front_proxy(tmp_path)
    rig.server.trust(trusted)
    async with rig.run() as url, aiohttp.ClientSession() as session:
        yield Server(url, session, rig.client_context(identity), devices, rig.client)
        if devices.device is not None:
            devices.device.close()


@pytest.mark.parametrize(
    ("path", "opened", "query"),
    [
        ("console", ("console", False), {}),
        ("vnc", ("vnc", False), {}),
        ("vnc?preserveSession=true", ("vnc", True), {}),
        ("console?preserveSession=true", ("console", True), {}),
        ("console?preserveSession=maybe", ("console", False), {}),
        ("usbredir", ("usbredir", False), {}),
        ("vsock?port=22", ("vsock", False), {"port": "22", "tls": "true"}),
        ("vsock?port=4294967295&tls=False", ("vsock", False), {"port": "4294967295", "tls": "false"}),
    ],
)
async def test_a_device(tmp_path, path, opened, query):
    async with serving(tmp_path, vmi(spec=DEVICES)) as server:
        async with server.connect(f"{VMI_URL}/{path}") as user:
            assert user.protocol == "plain.kubevirt.io"
            assert server.devices.opened == [opened]
            assert server.devices.query == query
            device = server.devices.device
            assert device is not None
            await user.send_bytes(b"\0\xffls\n")
            assert await asyncio.to_thread(device.recv, 100) == b"\0\xffls\n"
            device.sendall(b"x" * 50_000)
            received = b""
            while len(received) < 50_000:
                message = await user.receive(10)
                assert message.type == WSMsgType.BINARY
                assert len(message.data) <= 10240
                received += message.data
            assert received == b"x" * 50_000
            device.close()
            assert (await user.receive(10)).type == WSMsgType.CLOSE
        (review,) = server.client.reviews
        assert review["resourceAttributes"]["subresource"] == opened[0]
        assert review["resourceAttributes"]["verb"] == "get"


async def test_a_device_is_free_when_its_user_leaves(tmp_path):
    async with serving(tmp_path, vmi()) as server:
        user = await server.connect(f"{VMI_URL}/console")
        await user.close()
        assert await asyncio.to_thread(server.devices.device.recv, 1) == b""


@pytest.mark.parametrize(
    ("path", "obj", "code", "message"),
    [
        ("console", None, 404, NOT_FOUND),
        ("console", vmi(spec=NO_SERIAL), 400, "No serial consoles are present."),
        ("console", vmi("Failed"), 409, CONFLICT + "VMI is in failed status"),
        ("console", vmi("Scheduled"), 400, "VMI is not running"),
        ("vnc", vmi(spec=NO_SCREEN), 400, "No graphics devices are present."),
        ("vnc", vmi("Scheduling"), 400, "VMI is not running"),
        ("vnc/screenshot", vmi(spec=NO_SCREEN), 400, "No graphics devices are present."),
        ("vnc/screenshot", vmi("Succeeded"), 400, "VMI is not running"),
        ("usbredir", vmi(), 409, CONFLICT + "Not configured with USB Redirection"),
        ("vsock", vmi(), 400, "VSOCK is not attached."),
        ("vsock", vmi(spec=DEVICES), 400, "port must be a number from 0 to 4294967295, not ''"),
        ("vsock?port=x", vmi(spec=DEVICES), 400, "port must be a number from 0 to 4294967295, not 'x'"),
        ("vsock?port=1&tls=maybe", vmi(spec=DEVICES), 400, "tls must be true or false, not 'maybe'"),
        ("portforward/22", vmi("Running", "Paused", **ADDRESS), 409, CONFLICT + "VMI is paused"),
        ("portforward/22", vmi(), 400, "no network interfaces are present"),
        ("portforward/22", vmi(interfaces=[{"name": "default"}]), 400, "the guest has no IP address yet"),
        ("portforward/0", vmi(**ADDRESS), 400, "port must be a number from 1 to 65535, not '0'"),
        ("portforward/ssh", vmi(**ADDRESS), 400, "port must be a number from 1 to 65535, not 'ssh'"),
        ("portforward/" + "9" * 5000, vmi(**ADDRESS), 400, f"port must be a number from 1 to 65535, not '{'9' * 40}'"),
        (
            "vsock?port=" + "9" * 5000,
            vmi(spec=DEVICES),
            400,
            f"port must be a number from 0 to 4294967295, not '{'9' * 40}'",
        ),
        ("portforward/22/icmp", vmi(**ADDRESS), 400, "protocol must be tcp or udp, not 'icmp'"),
        (
            "portforward/1",
            vmi(**ADDRESS),
            500,
            "Internal error occurred: dialing VM: dial tcp 127.0.0.1:1: Connect call failed ('127.0.0.1', 1)",
        ),
    ],
)
async def test_refused(tmp_path, path, obj, code, message):
    headers = {
        **JANE,
        **{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }
    async with (
        serving(tmp_path, obj) as server,
        server.session.get(f"{server.url}{VMI_URL}/{path}", headers=headers, ssl=server.tls) as answer,
    ):
        status = await answer.json()
        assert (answer.status, status["code"], status["message"]) == (code, code, message)


async def test_who_does_not_speak_websocket(tmp_path):
    async with serving(tmp_path, vmi()) as server:
        code, status = await server.get(f"{VMI_URL}/console")
        assert (code, status["reason"]) == (400, "BadRequest")
        assert status["message"].startswith("websocket: the client is not using the websocket protocol")
        assert server.devices.opened == []


async def test_who_may_not(tmp_path):
    async with serving(tmp_path, vmi()) as server:
        server.client.allowed = False
        for path in ("console", "vnc", "portforward/22/tcp"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
                await server.connect(f"{VMI_URL}/{path}")
            assert raised.value.status == 403
        subresources = [review["resourceAttributes"]["subresource"] for review in server.client.reviews]
        assert subresources == ["console", "vnc", "portforward"]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(b"echo " + data)
    writer.close()


VM_OBJECT = {"metadata": {"namespace": "default", "name": "vmi", "uid": "v"}, "spec": {}}
OWNED = [{"kind": "VirtualMachine", "name": "vmi", "uid": "v", "controller": True}]


@pytest.mark.parametrize("url", [VMI_URL, f"{BASE}/virtualmachines/vmi"])
@pytest.mark.parametrize("suffix", ["", "/tcp"])
async def test_a_port(tmp_path, url, suffix):
    guest = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = guest.sockets[0].getsockname()[1]
    obj = vmi(**ADDRESS)
    obj["metadata"]["ownerReferences"] = OWNED
    async with (
        guest,
        serving(tmp_path, obj, (VM, VM_OBJECT)) as server,
        server.connect(f"{url}/portforward/{port}{suffix}") as user,
    ):
        await user.send_bytes(b"hello")
        assert (await user.receive(10)).data == b"echo hello"


async def test_datagrams_stay_what_they_are(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as guest:
        guest.bind(("127.0.0.1", 0))
        guest.settimeout(60)
        async with (
            serving(tmp_path, vmi(**ADDRESS)) as server,
            server.connect(f"{VMI_URL}/portforward/{guest.getsockname()[1]}/udp") as user,
        ):
            await user.send_bytes(b"one")
            await user.send_bytes(b"two")
            received = [await asyncio.to_thread(guest.recvfrom, 100) for _ in range(2)]
            assert [data for data, _ in received] == [b"one", b"two"]
            guest.sendto(b"three", received[0][1])
            assert (await user.receive(10)).data == b"three"


async def test_the_instance_of_another_machine_is_not_reached(tmp_path):
    async with serving(tmp_path, vmi(**ADDRESS), (VM, VM_OBJECT)) as server:
        code, status = await server.get(f"{BASE}/virtualmachines/vmi/portforward/22")
        assert (code, status["message"]) == (404, NOT_FOUND)


async def test_a_picture_of_the_screen(tmp_path):
    async with serving(tmp_path, vmi()) as server:
        waiting = asyncio.ensure_future(server.get(f"{VMI_URL}/vnc/screenshot"))
        (await server.devices.screen()).sendall(
            b"RFB 003.008\n\x01\x01"
            + struct.pack(">IHH16xI", 0, 1, 1, 0)
            + struct.pack(">BxHHHHHi", 0, 1, 0, 0, 1, 1, 0)
            + b"\xff\0\0\0"
        )
        code, picture = await waiting
        assert code == 200
        assert picture.startswith(b"\x89PNG")
        assert server.devices.opened == [("screen", False)]
        (review,) = server.client.reviews
        assert review["resourceAttributes"]["subresource"] == "vnc/screenshot"


async def test_no_picture(tmp_path):
    async with serving(tmp_path, vmi()) as server:
        waiting = asyncio.ensure_future(server.get(f"{VMI_URL}/vnc/screenshot"))
        (await server.devices.screen()).sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        code, status = await waiting
        assert code == 500
        assert status["message"] == "Internal error occurred: the guest's screen is not served by VNC"
