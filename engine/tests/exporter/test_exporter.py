# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads from a real export server."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import os
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from turtles import endpoint, pki
from turtles.exporter import main as command
from turtles.exporter import server as servers
from turtles.exporter.content import Unreadable, Volume
from turtles.exporter.server import Exports, Server

DISK = bytes(range(256)) * 12345
HEADER = "x-kubevirt-export-token"


class Rig:
    """A server with a claim that has a disk and one that has files, and its client."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.token = folder, "s3cret"
        for each in ("disk", "files", "files/etc", "files/lost+found", "manifests"):
            (folder / each).mkdir()
        (folder / "disk/disk.img").write_bytes(DISK)
        (folder / "files/etc/a file").write_text("hello")
        (folder / "files/lost+found/x").write_text("lost")
        (folder / "outside").write_text("not yours")
        (folder / "files/escape").symlink_to(folder)
        (folder / "files/etc/passwd").symlink_to("/etc/passwd")
        (folder / "token").write_text(f"{self.token}\n")
        vm = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "web"}}
        (folder / "manifests/internal").write_text(json.dumps({"kind": "List", "items": [vm]}))
        volumes = {"root": Volume(folder / "disk", True), "etc": Volume(folder / "files", False)}
        self.served = Exports("e", volumes, folder / "token", folder / "manifests")
        pair = pki.issue(None, "e", ["localhost"], datetime.now(UTC), timedelta(days=1))
        context = endpoint.server_context()
        endpoint.load(context, pair.certificate_pem, pair.key_pem)
        self.server = Server(endpoint.listen("127.0.0.1", 0), context, self.served)
        self.port = self.server.server_address[1]
        self._context = ssl.create_default_context(cadata=pair.certificate_pem)
        self._context.check_hostname = False
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def open(
        self, path: str, method: str = "GET", token: str | None = None, **headers: str
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=self._context)
        given = self.token if token is None else token
        connection.request(method, path, headers={**({HEADER: given} if given else {}), **headers})
        return connection.getresponse()

    def get(self, path: str, **options: Any) -> tuple[int, bytes, http.client.HTTPMessage]:
        answer = self.open(path, **options)
        return answer.status, answer.read(), answer.headers


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    found = Rig(tmp_path)
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_a_device(rig: Rig) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a loop device")
    image = rig.folder / "disk/disk.img"
    image.write_bytes(DISK[: len(DISK) // 512 * 512])
    made = subprocess.run(
        ["losetup", "--find", "--show", "--read-only", image], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"there are no loop devices here: {made.stderr}")
    device = Path(made.stdout.strip())
    try:
        rig.served.volumes["root"] = Volume(device, True)  # type: ignore[index]
        status, body, headers = rig.get("/volumes/root/disk.img")
        assert (status, body) == (200, image.read_bytes())
        status, body, _ = rig.get("/volumes/root/disk.img", Range="bytes=512-1023")
        assert (status, body) == (206, image.read_bytes()[512:1024])
        assert gzip.decompress(rig.get("/volumes/root/disk.img.gz")[1]) == image.read_bytes()
        # What is written to it leaves no trace in its times
        assert headers["ETag"]
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_disk(rig: Rig) -> None:
    status, body, headers = rig.get("/volumes/root/disk.img")
    assert (status, body, headers["Accept-Ranges"]) == (200, DISK, "bytes")
    answer = rig.open("/volumes/root/disk.img", method="HEAD")
    assert (answer.status, answer.headers["Content-Length"], answer.read()) == (200, str(len(DISK)), b"")
    status, body, headers = rig.get("/volumes/root/disk.img.gz")
    assert (status, gzip.decompress(body)) == (200, DISK)
    assert rig.get("/volumes/root/disk.img.gz")[1] == body
    assert rig.served.sent > len(DISK)


@pytest.mark.parametrize(
    ("wanted", "status", "start", "end"),
    [
        ("bytes=100-", 206, 100, len(DISK)),
        ("bytes=0-0", 206, 0, 1),
        ("bytes=5-9999999999", 206, 5, len(DISK)),
        ("bytes=-7", 206, len(DISK) - 7, len(DISK)),
        ("bytes=-9999999999", 206, 0, len(DISK)),
        # What there needn't be an answer to
        ("bytes=1-2,4-5", 200, 0, len(DISK)),
        ("bytes=-", 200, 0, len(DISK)),
        ("lines=1-2", 200, 0, len(DISK)),
    ],
)
def test_a_part_of_a_disk(rig: Rig, wanted: str, status: int, start: int, end: int) -> None:
    found, body, headers = rig.get("/volumes/root/disk.img", Range=wanted)
    assert (found, body) == (status, DISK[start:end])
    if status == 206:
        assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(DISK)}"


@pytest.mark.parametrize("wanted", [f"bytes={len(DISK)}-", "bytes=9-5", "bytes=-0"])
def test_a_part_that_there_is_not(rig: Rig, wanted: str) -> None:
    status, body, headers = rig.get("/volumes/root/disk.img", Range=wanted)
    assert (status, body, headers["Content-Range"]) == (416, b"", f"bytes */{len(DISK)}")


def test_the_rest_of_another_disk_is_not_sent(rig: Rig) -> None:
    tag = rig.get("/volumes/root/disk.img", Range="bytes=0-9")[2]["ETag"]
    assert rig.get("/volumes/root/disk.img", Range="bytes=10-", **{"If-Range": tag})[0] == 206
    os.utime(rig.folder / "disk/disk.img", (1, 1))
    status, body, _ = rig.get("/volumes/root/disk.img", Range="bytes=10-", **{"If-Range": tag})
    assert (status, body) == (200, DISK)


@pytest.mark.parametrize(
    "path", ["/", "/volumes/root/disk.img", "/volumes/none/disk.img", "/internal/manifests/secret", "/volumes/etc/dir/"]
)
def test_nothing_without_the_token(rig: Rig, path: str) -> None:
    assert rig.get(path, token="")[0] == 401
    assert rig.get(path, token="s3cre")[0] == 401
    assert rig.get(f"{path}?{HEADER}=wrong", token="")[0] == 401


def test_a_token_in_the_query_and_one_that_changes(rig: Rig) -> None:
    assert rig.get(f"/volumes/root/disk.img?{HEADER}=s3cret", token="", Range="bytes=0-0")[0] == 206
    (rig.folder / "token").write_text("another")
    assert rig.get("/volumes/root/disk.img")[0] == 401
    (rig.folder / "token").write_text("")
    assert rig.get("/volumes/root/disk.img", token="")[0] == 401
    (rig.folder / "token").unlink()
    assert rig.get("/volumes/root/disk.img")[0] == 500


def test_files(rig: Rig) -> None:
    status, body, headers = rig.get("/volumes/etc/dir/")
    assert status == 200
    assert b'<a href="etc/">etc/</a>' in body
    assert b"escape" not in body
    assert headers["Content-Type"].startswith("text/html")
    assert rig.get("/volumes/etc/dir/etc/a%20file")[:2] == (200, b"hello")
    assert rig.get("/volumes/etc/dir/etc/a%20file", Range="bytes=1-2")[:2] == (206, b"el")
    status, _, headers = rig.get("/volumes/etc/dir/etc")
    assert (status, headers["Location"]) == (301, "etc/")
    status, body, _ = rig.get("/volumes/etc/disk.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert "./etc/a file" in archive.getnames()
        assert not any("lost+found" in name for name in archive.getnames())


@pytest.mark.parametrize(
    "path",
    [
        "/volumes/etc/dir/../../outside",
        "/volumes/etc/dir/..%2f..%2foutside",
        "/volumes/etc/dir/%2e%2e/outside",
        "/volumes/etc/dir/escape/outside",
        "/volumes/etc/dir/etc/passwd",
        "/volumes/etc/dir/none",
        "/volumes/etc/dir/etc/a%00file",
        "/volumes/etc/disk.img",
        "/volumes/root/dir/",
        "/volumes/root/disk.tar.gz",
        "/volumes/root/",
        "/external/manifests/all",
        "/manifests/all",
    ],
)
def test_what_there_is_not(rig: Rig, path: str) -> None:
    assert rig.get(path)[0] == 404


def test_a_name_of_any_bytes(rig: Rig) -> None:
    name = b"caf\xe9 <&>"
    (rig.folder / "files/etc" / os.fsdecode(name)).write_bytes(b"latin-1")
    status, body, _ = rig.get("/volumes/etc/dir/etc/")
    assert (status, b'<a href="caf%E9%20%3C%26%3E">caf\xe9 &lt;&amp;&gt;</a>' in body) == (200, True), body
    assert rig.get("/volumes/etc/dir/etc/caf%E9%20%3C%26%3E")[:2] == (200, b"latin-1")
    assert rig.get("/volumes/etc/dir/etc/caf%E9")[:2] == (404, b"caf\\udce9: No such file or directory\n")


def test_a_disk_that_leads_elsewhere(rig: Rig) -> None:
    disk = rig.folder / "disk/disk.img"
    disk.unlink()
    disk.symlink_to(rig.folder / "outside")
    assert rig.get("/volumes/root/disk.img")[0] == 404
    disk.unlink()
    os.mkfifo(disk)
    status, body, _ = rig.get("/volumes/root/disk.img")
    assert (status, b"regular file" in body) == (404, True)


def test_manifests(rig: Rig) -> None:
    found = json.loads(rig.get("/internal/manifests/all")[1])
    assert (found["kind"], found["items"][0]["kind"]) == ("List", "VirtualMachine")
    status, body, headers = rig.get("/external/manifests/secret", Accept="application/yaml")
    assert (status, headers["Content-Type"]) == (200, "application/yaml")
    # What begins with a brace kubectl takes for JSON alone
    assert body.startswith(b"---\n")
    (secret,) = yaml.safe_load_all(body)
    assert secret["metadata"]["name"] == "header-secret-e"
    assert secret["stringData"] == {"token": f"{HEADER}:s3cret"}


def test_a_disk_that_becomes_shorter_is_not_taken_for_whole(rig: Rig) -> None:
    (rig.folder / "disk/disk.img").write_bytes(bytes(64 << 20))
    answer = rig.open("/volumes/root/disk.img.gz")
    answer.read(1)
    os.truncate(rig.folder / "disk/disk.img", 0)
    with pytest.raises((http.client.IncompleteRead, OSError)):
        answer.read()


def test_downloads_are_counted(rig: Rig) -> None:
    for _ in range(servers.DOWNLOADS):
        assert rig.served.downloads.acquire(blocking=False)
    status, body, _ = rig.get("/volumes/root/disk.img")
    assert (status, b"try again later" in body) == (503, True)
    rig.served.downloads.release()
    assert rig.get("/volumes/root/disk.img")[0] == 200
    # Each gives its place back
    assert rig.get("/volumes/root/disk.img")[0] == 200


@pytest.mark.parametrize(("is_disk", "words"), [(True, "no disk was ever created on it"), (False, "can't be read")])
def test_an_empty_claim(tmp_path: Path, is_disk: bool, words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        Volume(tmp_path / ("." if is_disk else "none"), is_disk).check()


@pytest.mark.parametrize(
    ("token", "made", "code", "words"),
    [
        ("t", True, 0, "export has expired"),
        ("t", False, 1, "volume root: it has no disk.img"),
        ("", True, 1, "no usable key token"),
        (None, True, 1, "no usable key token"),
    ],
)
def test_the_command_says_why_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, made: bool, code: int, words: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr(command.termination, "leave", said.append)
    if made:
        (tmp_path / "disk.img").write_bytes(DISK)
    if token is not None:
        (tmp_path / "token").write_text(token)
    pair = pki.issue(None, "e", ["e"], datetime.now(UTC), timedelta(days=1))
    (tmp_path / "tls.crt").write_text(pair.certificate_pem)
    (tmp_path / "tls.key").write_text(pair.key_pem)
    arguments = ["--export=e", f"--disk=root={tmp_path}", "--deadline=2020-01-01T00:00:00Z", "--port=0"]
    arguments += [f"--identity={tmp_path}", f"--token={tmp_path / 'token'}"]
    assert command.main(arguments) == code
    assert words in said[-1]
