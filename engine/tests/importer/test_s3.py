# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects in buckets, from a server that verifies signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from bucket import PASSWORD, USER, Bucket
from file_server import FileServer, serving

from turtles.importer import http, s3
from turtles.importer.errors import ImportFailed, ImportRefused
from turtles.importer.progress import Progress
from turtles.importer.request import Request
from turtles.importer.target import Target

MIB = 1 << 20


@pytest.fixture
def bucket() -> Any:
    server = Bucket()
    yield server
    server.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / "accessKeyId").write_text(f"{USER}\n")
    (folder / "secretKey").write_text(PASSWORD)
    return folder


def run(url: str, folder: Path, secret: Path | None) -> bytes:
    claim = folder / "claim"
    claim.mkdir(exist_ok=True)
    sign = s3.signer(secret) if secret is not None else None
    http.run(http.Job(Request(url, sign=sign), Target(claim, 8 * MIB)), Progress("uid"))
    return (claim / "disk.img").read_bytes()


def test_an_object_is_read_by_who_may(bucket: Bucket, secret: Path, tmp_path: Path) -> None:
    path = "/images/a%20disk/x%2Fy.img"
    bucket.files[path] = b"x" * 3 * MIB
    # In two parts: each request is signed
    bucket.breaks = [2 * MIB]
    assert run(bucket.url + path, tmp_path, secret) == b"x" * 3 * MIB + bytes(5 * MIB)
    assert [headers.get("range") for _, headers in bucket.requests] == [None, f"bytes={2 * MIB}-"]
    (secret / "secretKey").write_text("another")
    with pytest.raises(ImportFailed, match="the server answered 403"):
        run(bucket.url + path, tmp_path, secret)
    (secret / "secretKey").unlink()
    with pytest.raises(ImportRefused, match="needs the keys accessKeyId and secretKey"):
        run(bucket.url + path, tmp_path, secret)


def test_an_object_that_everybody_may_read(server: FileServer, tmp_path: Path) -> None:
    server.files["/images/disk"] = b"public"
    assert run(f"{server.url}/images/disk", tmp_path, None).startswith(b"public")
    assert "authorization" not in server.requests[0][1]


def test_another_server_gets_no_signature(server: FileServer, secret: Path, tmp_path: Path) -> None:
    with serving() as other:
        other.files["/disk"] = b"elsewhere"
        # Another name of the same machine: what counts is the host
        server.redirects["/images/disk"] = f"http://localhost:{other.port}/disk"
        assert run(f"{server.url}/images/disk", tmp_path, secret).startswith(b"elsewhere")
        assert not {"authorization", "x-amz-date", "x-amz-content-sha256"} & set(other.requests[0][1])
    assert "authorization" in server.requests[0][1]


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("s3.eu-central-1.amazonaws.com", "eu-central-1"),
        ("images.s3.us-west-2.amazonaws.com", "us-west-2"),
        ("images.s3-ap-southeast-1.amazonaws.com", "ap-southeast-1"),
        ("images.s3.dualstack.eu-west-1.amazonaws.com", "eu-west-1"),
        ("s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("s3.amazonaws.com", "us-east-1"),
        ("minio.example.com:9000", "us-east-1"),
    ],
)
def test_the_region_is_in_the_address(host: str, region: str) -> None:
    url = f"https://{host}/images/disk"
    assert urlsplit(url).netloc == host
    assert s3.region_of(url) == region
