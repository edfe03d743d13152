# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads by way of virt-api from a real export server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from turtles import endpoint, pki
from turtles.api import exports
from turtles.exporter.content import Volume
from turtles.exporter.server import Exports, Server
from turtles.kube.kubevirt import EXPORT
from turtles.kube.resources import POD
from turtles.virt_api import certificates
from turtles.virt_api.exports import ExportProxy
from turtles.virt_api.nodes import Nodes

from .fakes import FakeClient

DISK = bytes(range(256)) * 40960
ROOT = "api/export.kubevirt.io/{}/namespaces/ns/virtualmachineexports/e/"
V1 = ROOT.format("v1")


class Rig:
    """The proxy, and an export server on this machine that the API has as a Pod."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = datetime.now(UTC)
        (folder / "disk.img").write_bytes(DISK)
        (folder / "token").write_text("s3cret")
        pair = pki.issue(None, "e", ["e"], now, timedelta(days=1))
        context = endpoint.server_context()
        endpoint.load(context, pair.certificate_pem, pair.key_pem)
        served = Exports(
            "e", {"root": Volume(folder, True), "all": Volume(folder, False)}, folder / "token", folder / "manifests"
        )
        self.server = Server(endpoint.listen("127.0.0.1", 0), context, served)
        monkeypatch.setattr(exports, "PORT", self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.client = FakeClient()
        nodes = Nodes(self.client)  # type: ignore[arg-type]
        nodes.identify(certificates.make(["127.0.0.1"], now))
        self.proxy = ExportProxy(self.client, nodes)  # type: ignore[arg-type]
        self.certificate = pair.certificate_pem

    def put(self, phase: str = "Ready", ready: bool = True, owner: str = "u-e", certificate: str = "") -> None:
        metadata = {"name": "e", "namespace": "ns", "uid": "u-e"}
        self.client.objects[EXPORT.path("ns", "e")] = {"metadata": metadata, "status": {"phase": phase}}
        references = [{"kind": exports.KIND, "name": "e", "uid": owner, "controller": True}]
        annotations = {exports.CERTIFICATE: certificate or self.certificate}
        metadata = {"name": "virt-export-e", "namespace": "ns", "annotations": annotations}
        status = {"podIP": "127.0.0.1", "containerStatuses": [{"ready": ready}]}
        pod = {"metadata": {**metadata, "ownerReferences": references}, "status": status}
        self.client.objects[POD.path("ns", "virt-export-e")] = pod

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Any]:
        application = web.Application()
        self.proxy.add_to(application.router)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        async with aiohttp.ClientSession(auto_decompress=False) as session:

            async def ask(path: str, method: str = "GET", token: str = "s3cret", **headers: str) -> Any:
                headers = {**({exports.TOKEN_HEADER: token} if token else {}), **headers}
                url = f"http://127.0.0.1:{port}/{path}"
                async with session.request(method, url, headers=headers, allow_redirects=False) as answer:
                    return answer.status, await answer.read(), answer.headers

            yield ask
        await runner.cleanup()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    found = Rig(tmp_path, monkeypatch)
    yield found
    found.server.shutdown()
    found.server.server_close()


async def test_what_is_passed_on(rig: Rig) -> None:
    rig.put()
    async with rig.run() as ask:
        for version in exports.VERSIONS:
            status, body, headers = await ask(f"{ROOT.format(version)}volumes/root/disk.img")
            assert (status, body == DISK, headers["Content-Length"]) == (200, True, str(len(DISK)))
        status, body, headers = await ask(f"{V1}volumes/root/disk.img", method="HEAD")
        assert (status, body, headers["Content-Length"]) == (200, b"", str(len(DISK)))
        tag = headers["ETag"]
        status, body, headers = await ask(f"{V1}volumes/root/disk.img", Range="bytes=5-9", **{"If-Range": tag})
        assert (status, body, headers["Content-Range"]) == (206, DISK[5:10], f"bytes 5-9/{len(DISK)}")
        status, body, headers = await ask(f"{V1}volumes/root/disk.img.gz")
        assert (status, body[:2], headers["Content-Type"]) == (200, b"\x1f\x8b", "application/gzip")
        query = f"?{exports.TOKEN_HEADER}=s3cret"
        assert (await ask(f"{V1}volumes/root/disk.img{query}", token=""))[0] == 200
        assert (await ask(f"{V1}volumes/all/dir/no%20such%20file"))[0] == 404


async def test_what_is_refused(rig: Rig) -> None:
    path = f"{V1}volumes/root/disk.img"
    async with rig.run() as ask:
        assert (await ask(path))[0] == 404
        rig.put()
        for token in ("", "wrong"):
            assert (await ask(path, token=token))[0] == 401
        assert (await ask(path, method="POST"))[0] == 405
        other = pki.issue(None, "e", ["e"], datetime.now(UTC), timedelta(days=1)).certificate_pem
        for wrong in (
            {"phase": "Pending"},
            {"ready": False},
            {"owner": "u-other"},
            {"certificate": other},
            {"certificate": "junk"},
        ):
            rig.put(**wrong)
            assert (await ask(path))[0] == 503, wrong


async def test_a_download_that_breaks_off_is_not_taken_for_whole(rig: Rig, tmp_path: Path) -> None:
    rig.put()
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate(256 << 20)
    async with rig.run() as ask:
        download = asyncio.create_task(ask(f"{V1}volumes/root/disk.img.gz"))
        for _ in range(200):
            if rig.server.RequestHandlerClass.served.sent:  # type: ignore[attr-defined]
                break
            await asyncio.sleep(0.01)
        (tmp_path / "disk.img").write_bytes(b"")
        with pytest.raises(aiohttp.ClientError):
            await download
