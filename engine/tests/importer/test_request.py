# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers, credentials, redirects and certificates, with real servers."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from file_server import FileServer, serving

from turtles.importer.errors import ImportFailed, ImportRefused
from turtles.importer.request import Request, credentials, headers, secret_headers
from turtles.importer.transfer import Transfer


def fetch(request: Request) -> bytes:
    return b"".join(Transfer(request, 1 << 20))


def test_headers_and_credentials(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "accessKeyId").write_text("user")
    (tmp_path / "secretKey").write_text("pass:word")
    more = tmp_path / "more"
    more.mkdir()
    (more / "a").write_text("X-Token: secret\n")
    server.files["/disk"] = b"data"
    secret = credentials(tmp_path) | secret_headers([more])
    assert fetch(Request(f"{server.url}/disk", headers(["Accept: x/y"]), secret)) == b"data"
    sent = server.requests[0][1]
    assert (sent["accept"], sent["x-token"]) == ("x/y", "secret")
    assert sent["authorization"] == "Basic dXNlcjpwYXNzOndvcmQ="
    assert "secret" not in repr(Request("u", secret_headers=secret))


def test_another_server_gets_no_secrets(server: FileServer) -> None:
    server.files["/disk"] = b"data"
    with serving() as first:
        first.redirects = {"/disk": "/here", "/here": f"{server.url}/disk"}
        secret = {"Authorization": "Basic x", "X-Token": "secret"}
        assert fetch(Request(f"{first.url}/disk", {"X-Plain": "yes"}, secret)) == b"data"
        assert first.requests[1][1]["x-token"] == "secret"
    assert not {"authorization", "x-token", "x-plain"} & server.requests[0][1].keys()


def test_redirects_end(server: FileServer) -> None:
    server.redirects = {"/disk": "/disk"}
    with pytest.raises(ImportFailed, match="too many redirects"):
        fetch(Request(f"{server.url}/disk"))


def test_a_redirect_leads_to_no_file(server: FileServer) -> None:
    server.redirects = {"/disk": "file:///etc/passwd"}
    with pytest.raises(ImportFailed, match="No host specified"):
        fetch(Request(f"{server.url}/disk"))


@pytest.mark.parametrize("line", ["no colon", "bad name: x", ": x", "x: a\rb"])
def test_bad_headers_are_not_repeated(line: str) -> None:
    with pytest.raises(ImportRefused) as failure:
        headers([line])
    assert line not in str(failure.value)


def test_credentials_that_lack_a_key(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="needs the keys accessKeyId and secretKey"):
        credentials(tmp_path)


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[FileServer, Path]]:
    """A server with a self-signed certificate, and a folder with it."""
    folder = tmp_path / "authorities"
    folder.mkdir()
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(tmp_path / "key"), "-out", str(folder / "ca.pem")]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", tmp_path / "key")
    with serving(context) as server:
        server.files["/disk"] = b"data"
        yield server, folder


def test_certificates(tls: tuple[FileServer, Path]) -> None:
    server, folder = tls
    url = f"{server.url}/disk"
    with pytest.raises(ImportFailed, match=r"can't be verified \(.*self-signed certificate.*name its authority with"):
        fetch(Request(url))
    assert fetch(Request(url, authorities=folder)) == b"data"
    assert fetch(Request(url, verify=False)) == b"data"


def test_authorities_that_are_none(tls: tuple[FileServer, Path]) -> None:
    server, folder = tls
    (folder / "ca.pem").write_text("no certificate")
    with pytest.raises(ImportRefused, match="CA certificates of certConfigMap can't be used"):
        fetch(Request(f"{server.url}/disk", authorities=folder))


class Proxy(FileServer):
    """Answers for other servers."""

    def _answer(self, request: Any) -> None:
        request.path = urlsplit(request.path).path
        super()._answer(request)


def test_a_server_is_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy()
    try:
        proxy.files["/disk"] = b"by proxy"
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,.internal.example.com")
        assert b"".join(Transfer(Request("http://images.example.com/disk"), 100)) == b"by proxy"
        assert proxy.requests[0][0] == "http://images.example.com/disk"
        with serving() as direct:
            direct.files["/disk"] = b"directly"
            assert b"".join(Transfer(Request(f"{direct.url}/disk"), 100)) == b"directly"
    finally:
        proxy.close()
