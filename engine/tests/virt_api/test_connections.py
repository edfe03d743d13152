# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from aiohttp import ClientSession, WSServerHandshakeError, web
from aiohttp.test_utils import TestServer

from turtles.virt_api.connections import Connections

PATH = "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/{resource}/{name}/{sub:.+}"
WEB = "/apis/subresources.kubevirt.io/v1/namespaces/ns/virtualmachineinstances/web/{}"


def counted(connections: Connections) -> dict[str, float]:
    return {sample.name: sample.value for sample in connections.source.samples()}


async def serve(connections: Connections) -> TestServer:
    async def handler(request: web.Request) -> web.StreamResponse:
        if "refused" in request.query:
            raise web.HTTPConflict
        if "Upgrade" not in request.headers:
            return web.json_response(counted(connections))
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        async for _ in answer:
            pass
        return answer

    application = web.Application(middlewares=[connections.middleware])
    application.router.add_route("*", PATH, handler)
    server = TestServer(application)
    await server.start_server()
    return server


async def test_connections_count_as_long_as_they_last() -> None:
    connections = Connections(lambda: 7.0)
    server = await serve(connections)
    url = f"http://{server.host}:{server.port}{WEB}"
    async with ClientSession() as session:
        one, two = [await session.ws_connect(url.format(sub)) for sub in ("console", "console")]
        port = await session.ws_connect(url.format("portforward/22"))
        async with session.get(url.format("console")) as answer:
            assert await answer.json() == {
                "kubevirt_console_active_connections": 2.0,
                "kubevirt_portforward_active_tunnels": 1.0,
                "kubevirt_vmi_last_api_connection_timestamp_seconds": 7.0,
            }
        (first, *_) = connections.source.samples()
        assert first.labels == {"namespace": "ns", "vmi": "web"}
        with pytest.raises(WSServerHandshakeError):
            await session.ws_connect(f"{url.format('vnc')}?refused")
        for connection in (one, two, port):
            await connection.close()
    await server.close()
    assert counted(connections) == {"kubevirt_vmi_last_api_connection_timestamp_seconds": 7.0}
