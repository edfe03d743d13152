# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens, and uploads by way of the proxy into a real upload server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from turtles import pki
from turtles.api import cdi, uploads
from turtles.importer import upload
from turtles.importer.progress import Progress
from turtles.importer.target import Target
from turtles.kube.resources import POD, PVC
from turtles.virt_api import certificates
from turtles.virt_api.nodes import Nodes
from turtles.virt_api.status import Failure
from turtles.virt_api.upload_tokens import LIFETIME, Tokens
from turtles.virt_api.uploads import UploadProxy

from .fakes import FakeClient
from .test_server import JANE, Rig, front_proxy

TOKENS = f"/apis/{uploads.GROUP}/{uploads.VERSION}/namespaces/ns/{uploads.PLURAL}"
REQUEST = {"spec": {"pvcName": "disk"}}
IMAGE = bytes(range(256)) * 4096


def claim(uid: str = "pvc", **annotations: str) -> tuple[Any, dict[str, Any]]:
    metadata = {"name": "disk", "namespace": "ns", "uid": uid, "annotations": {uploads.TARGET: "", **annotations}}
    return PVC, {"metadata": metadata}


def test_a_token_is_for_one_claim_and_five_minutes() -> None:
    now = [1000.0]
    client = FakeClient(claim())
    tokens = Tokens(client, "kubevirt", lambda: now[0])  # type: ignore[arg-type]
    token = tokens.request("ns", REQUEST)["status"]["token"]
    # Another replica has the same key
    other = Tokens(client, "kubevirt", lambda: now[0])  # type: ignore[arg-type]
    found = other.verify(token)
    assert (found.namespace, found.name, found.uid) == ("ns", "disk", "pvc")
    now[0] += LIFETIME + 1
    with pytest.raises(Failure, match="expired") as error:
        other.verify(token)
    assert error.value.code == 401
    stranger = Tokens(FakeClient(claim()), "kubevirt", lambda: 1000.0)  # type: ignore[arg-type]
    with pytest.raises(Failure, match="not valid"):
        stranger.verify(token)


@pytest.mark.parametrize(
    ("body", "code"),
    [({}, 422), ({"spec": {"pvcName": 1}}, 422), ({"spec": {"pvcName": "none"}}, 404), ({"spec": []}, 422)],
)
def test_requests_that_name_no_claim(body: dict[str, Any], code: int) -> None:
    tokens = Tokens(FakeClient(claim()), "kubevirt")  # type: ignore[arg-type]
    with pytest.raises(Failure) as error:
        tokens.request("ns", body)
    assert error.value.code == code


def test_a_claim_that_no_upload_fills() -> None:
    tokens = Tokens(FakeClient((PVC, {"metadata": {"name": "disk", "namespace": "ns"}})), "kubevirt")  # type: ignore[arg-type]
    with pytest.raises(Failure, match="source upload"):
        tokens.request("ns", REQUEST)


def populated(kind: str = "VolumeUploadSource") -> tuple[Any, dict[str, Any]]:
    """A claim that a populator fills."""
    reference = {"apiGroup": "cdi.kubevirt.io", "kind": kind, "name": "own"}
    return PVC, {
        "metadata": {"name": "disk", "namespace": "ns", "uid": "pvc"},
        "spec": {"dataSourceRef": reference},
    }


def test_a_claim_that_a_populator_fills() -> None:
    tokens = Tokens(FakeClient(populated()), "kubevirt")  # type: ignore[arg-type]
    assert tokens.request("ns", REQUEST)["status"]["token"]
    tokens = Tokens(FakeClient(populated("VolumeImportSource")), "kubevirt")  # type: ignore[arg-type]
    with pytest.raises(Failure, match="VolumeUploadSource as its dataSourceRef"):
        tokens.request("ns", REQUEST)


class Uploads:
    """The proxy, and an upload server on this machine that the API has as a Pod."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = datetime.now(UTC)
        serving = certificates.make(["127.0.0.1"], now)
        self.client = FakeClient(claim())
        self.tokens, nodes = Tokens(self.client, "kubevirt"), Nodes(self.client)  # type: ignore[arg-type]
        nodes.identify(serving)
        self.proxy = UploadProxy(self.client, self.tokens, nodes, patience=0.1)  # type: ignore[arg-type]
        self.claim = folder / "claim"
        for each in ("claim", "scratch", "server"):
            (folder / each).mkdir()
        pair = pki.issue(None, "upload", ["upload"], now, timedelta(days=1))
        files = {"tls.crt": pair.certificate_pem, "tls.key": pair.key_pem, "ca.crt": serving.bundle}
        for name, text in files.items():
            (folder / "server" / name).write_text(text)
        self.certificate = pair.certificate_pem
        ready = threading.Event()
        job = upload.Job(lambda: Target(self.claim, 2 << 20), folder / "server", folder / "scratch", 3600, port=0)

        def listening(port: int) -> None:
            monkeypatch.setattr(uploads, "PORT", port)
            ready.set()

        self.thread = threading.Thread(target=upload.run, args=(job, Progress("uid"), listening), daemon=True)
        self.thread.start()
        assert ready.wait(60)
        self.token = self.tokens.request("ns", REQUEST)["status"]["token"]

    def put_pod(self, ready: bool = True, name: str = "cdi-upload-disk") -> None:
        metadata = {
            "name": name,
            "namespace": "ns",
            "annotations": {uploads.CERTIFICATE: self.certificate},
        }
        status = {"podIP": "127.0.0.1", "containerStatuses": [{"ready": ready}]}
        self.client.objects[POD.path("ns", name)] = {"metadata": metadata, "status": status}

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Callable[..., Awaitable[tuple[int, str]]]]:
        application = web.Application()
        self.proxy.add_to(application.router)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        async with aiohttp.ClientSession() as session:

            async def send(
                path: str, data: Any = None, token: str = self.token, method: str = "POST"
            ) -> tuple[int, str]:
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                url = f"http://127.0.0.1:{port}/{path}"
                async with session.request(method, url, data=data, headers=headers) as answer:
                    return answer.status, await answer.text()

            yield send
        await runner.cleanup()

    def disk(self) -> bytes:
        self.thread.join(60)
        return (self.claim / "disk.img").read_bytes()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    return Uploads(tmp_path, monkeypatch)


def form() -> aiohttp.FormData:
    data = aiohttp.FormData()
    data.add_field("note", "not this")
    data.add_field("file", IMAGE, filename="disk.img")
    return data


async def pieces() -> AsyncIterator[bytes]:
    for start in range(0, len(IMAGE), 65536):
        yield IMAGE[start : start + 65536]


@pytest.mark.parametrize(
    ("path", "make"),
    [
        ("v1beta1/upload", lambda: IMAGE),
        ("v1alpha1/upload-async", lambda: IMAGE),
        ("v1beta1/upload-async", pieces),
        ("v1beta1/upload-form", form),
        ("v1alpha1/upload-form-async", form),
    ],
)
async def test_an_image_reaches_the_claim(rig: Uploads, path: str, make: Callable[[], Any]) -> None:
    rig.put_pod()
    async with rig.run() as send:
        assert await send(path, method="HEAD") == (200, "")
        assert await send(path, make()) == (200, "")
    disk = await asyncio.to_thread(rig.disk)
    assert disk == IMAGE + bytes((2 << 20) - len(IMAGE))


async def test_an_archive_goes_to_a_server_for_archives(rig: Uploads) -> None:
    rig.put_pod()
    async with rig.run() as send:
        assert await send("v1beta1/upload-archive", method="HEAD") == (200, "")
        status, words = await send("v1beta1/upload-archive", IMAGE)
    assert (status, words) == (400, "this claim takes a disk image, and no archive: its contentType is kubevirt")


async def test_an_image_reaches_the_claim_that_is_filled_in_the_place_of_another(rig: Uploads) -> None:
    resource, filled = populated()
    rig.client.objects[resource.path("ns", "disk")] = filled
    rig.put_pod(name="cdi-upload-prime-pvc")
    async with rig.run() as send:
        status, words = await send("v1beta1/upload", IMAGE)
    assert status == 200, words
    assert rig.disk()[: len(IMAGE)] == IMAGE


async def test_what_the_proxy_refuses(rig: Uploads) -> None:
    path = "v1beta1/upload"
    async with rig.run() as send:
        for token in ("", "x.y.z"):
            status, words = await send(path, IMAGE, token)
            assert (status, "UploadTokenRequest" in words) == (401, True), words
            assert (await send(path, method="HEAD", token=token))[0] == 401
        status, words = await send(path, IMAGE)
        assert (status, "no upload server yet" in words) == (503, True)
        rig.put_pod(ready=False)
        assert (await send(path, IMAGE))[0] == 503
        rig.put_pod()
        rig.client.objects[POD.path("ns", "cdi-upload-disk")]["metadata"]["annotations"][uploads.CERTIFICATE] = "junk"
        status, words = await send(path, IMAGE)
        assert (status, "unreadable certificate" in words) == (503, True)
        rig.put_pod()
        status, words = await send(path, bytes(4 << 20))
        assert (status, "larger PVC is required" in words) == (400, True), words
        assert (await send("v1beta1/upload-form", IMAGE))[0] == 400
        for other, expected in (
            (claim("another"), 401),
            (claim(**{cdi.POD_PHASE: "Succeeded"}), 409),
            (claim(**{cdi.POD_PHASE: "Failed"}), 409),
        ):
            rig.client.objects[PVC.path("ns", "disk")] = other[1]
            assert (await send(path, IMAGE))[0] == expected
        del rig.client.objects[PVC.path("ns", "disk")]
        assert (await send(path, IMAGE))[0] == 404


async def test_tokens_by_the_aggregated_api(tmp_path: Path) -> None:
    rig = Rig()
    identity, trusted = front_proxy(tmp_path)
    rig.server.trust(trusted)
    rig.client.objects[PVC.path("ns", "disk")] = claim()[1]
    async with rig.run() as url, aiohttp.ClientSession() as session:
        tls = rig.client_context(identity)
        async with session.post(url + TOKENS, json=REQUEST, headers=JANE, ssl=tls) as answer:
            assert answer.status == 201
            assert (await answer.json())["status"]["token"]
        review = rig.client.reviews[-1]["resourceAttributes"]
        assert (review["group"], review["resource"], review["verb"]) == (uploads.GROUP, uploads.PLURAL, "create")
        rig.client.allowed = False
        async with session.post(url + TOKENS, json=REQUEST, headers=JANE, ssl=tls) as answer:
            assert answer.status == 403
        async with session.post(url + TOKENS, json=REQUEST, ssl=rig.client_context()) as answer:
            assert answer.status == 401
        async with session.get(f"{url}/apis/{uploads.GROUP}/{uploads.VERSION}", ssl=tls) as answer:
            assert (await answer.json())["resources"][0]["kind"] == uploads.KIND
