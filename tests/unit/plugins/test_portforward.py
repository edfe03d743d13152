# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program by which ssh reaches guests through the API, against a server that returns what it gets."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from aiohttp import WSMsgType, web
from ansible_collections.turtles.kubevirt.plugins.plugin_utils import _forward

PATH = "/apis/subresources.kubevirt.io/v1/namespaces/shop/virtualmachineinstances/web/portforward/22"


@dataclass
class Server:
    url: str = ""
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        headers = request.headers
        self.asked.append((request.path, headers.get("Authorization"), headers.get("Sec-WebSocket-Protocol")))
        if request.path != PATH:
            status = {"kind": "Status", "code": 404, "reason": "NotFound", "message": "there is no such machine"}
            return web.json_response(status, status=404)
        stream = web.WebSocketResponse(protocols=[_forward.PROTOCOL])
        await stream.prepare(request)
        async for message in stream:
            if message.type == WSMsgType.BINARY:
                await stream.send_bytes(message.data.upper())
        return stream


@pytest.fixture
def server() -> Iterator[Server]:
    found, ready, loop = Server(), threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        application = web.Application()
        application.router.add_get("/{path:.*}", found.forward)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found.url = "http://127.0.0.1:%d" % site._server.sockets[0].getsockname()[1]
        ready.set()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(60)
    yield found
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)


def forward(options: dict, name: str, data: bytes) -> subprocess.CompletedProcess:
    environment = {**os.environ, _forward.OPTIONS: json.dumps(options)}
    command = _forward.command("shop", name, 22)
    return subprocess.run(
        ["/bin/sh", "-c", command], input=data, env=environment, capture_output=True, check=False, timeout=60
    )


def test_bytes_come_and_go(server: Server):
    data = bytes(range(256)) * 4096
    done = forward({"host": server.url, "api_key": "secret"}, "web", data)
    assert (done.returncode, done.stderr) == (0, b"")
    # What was under way when the input ended may be lost, as with any connection that is closed.
    assert data.upper().startswith(done.stdout[:65536])
    assert server.asked == [(PATH, "Bearer secret", _forward.PROTOCOL)]


def test_a_refusal_names_the_machine_and_the_reason(server: Server):
    done = forward({"host": server.url, "api_key": "secret"}, "nobody", b"")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.decode() == "VirtualMachineInstance shop/nobody, port 22: there is no such machine\n"


def test_a_server_that_is_not_there_is_named():
    done = forward({"host": "http://127.0.0.1:1", "api_key": "secret"}, "web", b"")
    assert done.returncode == 1
    assert "The Kubernetes API at http://127.0.0.1:1" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
