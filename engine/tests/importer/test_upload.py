# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that a client sends to a real upload server."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from turtles import pki
from turtles.api import node_server
from turtles.importer import upload
from turtles.importer.errors import ImportFailed
from turtles.importer.folder import Folder
from turtles.importer.progress import Progress
from turtles.importer.target import Target

from .test_archives import archive, member
from .test_http import MIB, RAW, SIZE, needs_qemu_img

DAY = timedelta(days=1)
SYNC, ASYNC, ARCHIVE = "/v1beta1/upload", "/v1beta1/upload-async", "/v1beta1/upload-archive"


class Server:
    """An upload server on a claim, and its client."""

    def __init__(self, folder: Path, *, archives: bool = False) -> None:
        now = datetime.now(UTC)
        self.claim, self.scratch, identity = folder / "claim", folder / "scratch", folder / "identity"
        for each in (self.claim, self.scratch, identity):
            each.mkdir()
        self.authority = pki.authority("virt-api", now, DAY)
        pair = pki.issue(None, "upload", ["upload"], now, DAY)
        for name, text in (
            ("tls.crt", pair.certificate_pem),
            ("tls.key", pair.key_pem),
            ("ca.crt", self.authority.certificate_pem),
        ):
            (identity / name).write_text(text)
        self._certificate, self._folder = pair.certificate_pem, folder
        self.client = self.context(node_server.CLIENT)
        self.progress = Progress("uid")
        self.error: ImportFailed | None = None
        ready = threading.Event()

        def listening(port: int) -> None:
            self.port = port
            ready.set()

        self.begun = threading.Event()

        def target() -> Target:
            self.begun.set()
            return Target(self.claim, SIZE)

        files = Folder(self.claim, SIZE) if archives else None
        job = upload.Job(target, identity, self.scratch, 3600, port=0, folder=files)

        def run() -> None:
            try:
                upload.run(job, self.progress, listening)
            except ImportFailed as error:
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        assert ready.wait(60)

    def context(self, name: str, authority: pki.Pair | None = None) -> ssl.SSLContext:
        pair = pki.issue(authority or self.authority, name, [], datetime.now(UTC), DAY, client=True)
        path = self._folder / "client.pem"
        path.write_text(pair.certificate_pem + pair.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self._certificate)
        context.load_cert_chain(path)
        return context

    def connect(self, context: ssl.SSLContext | None = None) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context or self.client)

    def send(self, data: bytes | Iterable[bytes], path: str = SYNC, **headers: str) -> tuple[int, str]:
        connection = self.connect()
        with contextlib.closing(connection):
            connection.request("POST", path, data, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    @property
    def disk(self) -> bytes:
        self.thread.join(60)
        assert not self.thread.is_alive()
        return (self.claim / "disk.img").read_bytes()

    @property
    def left(self) -> list[str]:
        return sorted(path.name for folder in (self.claim, self.scratch) for path in folder.iterdir())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    yield found
    if found.thread.is_alive():
        assert found.send(RAW)[0] == 200, "an upload is possible whatever happened before"
    found.thread.join(60)
    assert not found.thread.is_alive()


def padded(data: bytes) -> bytes:
    return data + bytes(SIZE - len(data))


@pytest.mark.parametrize("path", [SYNC, ASYNC])
@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, lambda data: iter([data[:MIB], data[MIB:]])])
def test_what_is_raw(server: Server, path: str, pack: Any) -> None:
    assert server.send(pack(RAW), path) == (200, "")
    assert server.disk == padded(RAW)
    assert server.left == ["disk.img"]


@needs_qemu_img
@pytest.mark.parametrize("path", [SYNC, ASYNC])
def test_what_is_converted(server: Server, path: str, tmp_path: Path) -> None:
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(RAW)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    assert server.send(image.read_bytes(), path)[0] == 200
    assert server.disk == padded(RAW)
    assert server.progress.done == 1.0
    assert server.left == ["disk.img"]


def hostile() -> bytes:
    header = bytearray(65536)
    header[:24] = struct.pack(">4sIQII", b"QFI\xfb", 2, 512, 11, 16)
    return bytes(header)


def test_what_is_refused(server: Server) -> None:
    for data, words in (
        (hostile(), "backing file"),
        (gzip.compress(RAW)[:-100], "truncated"),
        (os.urandom(SIZE + 512), "larger PVC is required"),
        (gzip.compress(bytes(SIZE + 512)), "larger PVC is required"),
        (b"", "the upload is empty"),
    ):
        status, said = server.send(data)
        assert (status, words in said) == (400, True), said
        assert server.left == []


def test_what_is_too_large_before_it_is_sent(server: Server) -> None:
    connection = server.connect()
    with contextlib.closing(connection):
        connection.putrequest("POST", SYNC)
        connection.putheader("Content-Length", str(1 << 40))
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, b"larger PVC is required" in answer.read()) == (400, True)
    assert server.left == []


def test_a_client_that_leaves_and_comes_again(server: Server) -> None:
    connection = server.connect()
    connection.putrequest("POST", SYNC)
    connection.putheader("Content-Length", str(len(RAW)))
    connection.endheaders()
    connection.send(RAW[:MIB])
    assert server.begun.wait(60)
    # Meanwhile nobody else may
    assert server.send(RAW)[0] == 503
    connection.close()
    while (answer := server.send(RAW))[0] == 503:
        assert server.thread.is_alive()
    assert answer[0] == 200
    assert server.disk == padded(RAW)


def test_one_who_does_not_wait_is_told_by_the_process(tmp_path: Path) -> None:
    server = Server(tmp_path)
    assert server.send(hostile(), ASYNC)[0] == 200
    server.thread.join(60)
    assert "backing file" in str(server.error)
    assert server.left == []


def test_strangers(server: Server) -> None:
    stranger = pki.authority("stranger", datetime.now(UTC), DAY)
    for context, expected in (
        (server.context(node_server.CLIENT, stranger), None),
        (server.context("somebody"), 403),
    ):
        connection = server.connect(context)
        with contextlib.closing(connection):
            try:
                connection.request("POST", SYNC, RAW)
                status = connection.getresponse().status
            except OSError:
                status = None
            assert status == expected
    assert server.left == []
    assert server.send(RAW, "/elsewhere")[0] == 404


def test_files_of_an_archive(tmp_path: Path) -> None:
    server = Server(tmp_path, archives=True)
    assert server.send(RAW, ASYNC)[0] == 400
    status, words = server.send(archive(member("kept", b"x"), member("../out", b"x")), ARCHIVE)
    assert (status, "points outside it" in words, server.left) == (400, True, [])
    sent = server.begun
    sent.clear()

    def broken() -> Iterator[bytes]:
        yield archive(member("kept", b"x" * MIB))[:MIB]
        assert sent.wait(10)
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        server.send(broken(), ARCHIVE)
    files = gzip.compress(archive(member("folder/file", b"content")))
    while (answer := server.send(files, ARCHIVE))[0] == 503:
        pass
    assert answer == (200, "")
    server.thread.join(20)
    assert (server.claim / "folder/file").read_bytes() == b"content"
    assert server.left == ["folder"], "nothing of what broke off"


def test_an_archive_for_a_disk(server: Server) -> None:
    status, words = server.send(archive(member("a", b"x")), ARCHIVE)
    assert (status, "takes a disk image, and no archive" in words) == (400, True)
