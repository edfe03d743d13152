# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disks that the module downloads from a real HTTPS server, which plays that of an export."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import ssl
import stat
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiohttp import web
from ansible_collections.turtles.kubevirt.plugins.module_utils import _download, _export_download

DISK = bytes(range(256)) * 4096 + bytes(4 << 20) + b"end"
ROOT = "/api/export.kubevirt.io/v1/namespaces/default/virtualmachineexports/web"
PATH = "/apis/export.kubevirt.io/v1/namespaces/default/virtualmachineexports/web"
VERSION = "/apis/export.kubevirt.io/v1"
SNAPSHOT = "/apis/snapshot.kubevirt.io/v1beta1/namespaces/default/virtualmachinesnapshots/before"


class Exporter:
    """The server of an export. `breaks` has after how many bytes it breaks off, one after the other, or a status."""

    def __init__(self, folder):
        self.disk, self.tag, self.breaks, self.requests, self.is_new = DISK, '"1"', [], [], True
        certificate, key = folder / "server.pem", folder / "server.key"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=export"
        files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
        self.authority = certificate.read_text()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                asked = self.headers.get("Range", "")
                outer.requests.append((self.command, self.path.removeprefix(ROOT), asked))
                if self.headers.get("x-kubevirt-export-token") != "s3cret":
                    self._answer(401, b"no", {})
                    return
                headers = {}
                if self.path.endswith("/manifests/all"):
                    body = json.dumps({"kind": "List", "items": []}).encode()
                elif self.path.endswith(".gz"):
                    body = gzip.compress(outer.disk, mtime=0)
                else:
                    body, headers = outer.disk, {"ETag": outer.tag, "Accept-Ranges": "bytes"}
                status = 200
                if asked and headers and self.headers.get("If-Range") == outer.tag:
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                    status, body = 206, body[start:]
                stop = outer.breaks.pop(0) if outer.breaks and self.command == "GET" else None
                if stop in (503, 403):
                    self._answer(stop, b"words", {})
                else:
                    self._answer(status, body, headers, stop)

            def _answer(self, status, body, headers, stop=None):
                self.send_response(status)
                for name, value in {**headers, "Content-Length": len(body), "Connection": "close"}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.close_connection = True
                if self.command == "GET":
                    self.wfile.write(body[:stop])

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def links(self, root=None):
        base = f"{self.url}{ROOT if root is None else root}"
        formats = [{"format": "raw", "url": f"{base}/volumes/root/disk.img"}]
        formats.append({"format": "gzip", "url": f"{base}/volumes/root/disk.img.gz"})
        files = [{"format": "tar.gz", "url": f"{base}/volumes/etc/disk.tar.gz"}]
        volumes = [{"name": "root", "formats": formats}, {"name": "etc", "formats": files}]
        manifests = [{"type": "all", "url": f"{base}/external/manifests/all"}]
        return {"cert": self.authority, "volumes": volumes, "manifests": manifests}


@pytest.fixture
def exporter(api, tmp_path, monkeypatch):
    """A server, and an engine that makes exports ready at once."""
    monkeypatch.setattr(_export_download, "PAUSE", 0)
    found = Exporter(tmp_path)

    def intercept(method, path):
        is_known = path == VERSION and found.is_new
        return web.json_response({"resources": [{"name": "virtualmachineexports"}]}) if is_known else None

    secret = {"metadata": {"name": "token"}, "data": {"token": base64.b64encode(b"s3cret").decode()}}
    api.objects["/api/v1/namespaces/default/secrets/token"] = secret

    def admit(method, path, obj):
        if obj.get("kind") == "VirtualMachineExport" and method == "POST":
            links = {"external": found.links()}
            obj["status"] = {"phase": "Ready", "tokenSecretRef": "token", "links": links}

    api.admit, api.intercept = admit, intercept
    yield found
    found.close()


@pytest.fixture
def options(tmp_path):
    dest = str(tmp_path / "dest")
    return {"name": "web", "namespace": "default", "vm": "web", "dest": dest, "volumes": ["root"], "wait_timeout": 20}


def test_an_export_is_made_once(api, exporter, run):
    options = {"name": "web", "namespace": "default", "vm": "web", "ttl": "1h"}
    assert run("export", check=True, **options)["changed"]
    made = run("export", **options)
    assert (made["changed"], made["phase"], made["volumes"]) == (True, "Ready", ["root", "etc"])
    source = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "web"}
    assert made["result"]["spec"] == {"source": source, "ttlDuration": "1h"}
    assert not run("export", **options)["changed"]
    assert (
        "vm: export default/web has VirtualMachine web, not VirtualMachine db"
        in run("export", **{**options, "vm": "db"}).msg
    )
    assert "can't be changed" in run("export", **{**options, "ttl": "2h"}).msg
    assert not run("export", name="web", namespace="default")["changed"]
    assert run("export", name="web", namespace="default", state="absent")["changed"]
    assert PATH not in api.objects
    assert not run("export", name="web", namespace="default", state="absent")["changed"]
    assert not exporter.requests


@pytest.mark.parametrize(("form", "name"), [("gzip", "root.img.gz"), ("raw", "root.img")])
def test_a_disk_is_downloaded_once(exporter, run, options, tmp_path, form, name):
    options["format"] = form
    made = run("export", **options)
    (file,) = made["files"]
    path = tmp_path / "dest" / name
    content = path.read_bytes()
    assert (gzip.decompress(content) if form == "gzip" else content) == DISK
    assert (file["path"], file["format"], file["downloaded"]) == (str(path), form, True)
    assert (file["bytes"], file["disk_bytes"]) == (len(content), len(DISK))
    assert file["checksum"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "dest").stat().st_mode) == 0o700
    assert "s3cret" not in str(made)
    assert str(path) in made["diff"]["after"]["files"]
    if form == "raw":
        assert path.stat().st_blocks * 512 < len(DISK)
    again = run("export", **options)
    assert (again["changed"], again["files"][0]) == (False, {**file, "downloaded": False})
    assert [each[0] for each in exporter.requests] == ["HEAD", "GET", "HEAD"]
    # The guest has written, or the file isn't what it was
    exporter.tag = '"2"'
    assert run("export", check=True, **options)["changed"]
    assert run("export", **options)["changed"]
    path.write_bytes(b"x")
    assert run("export", **options)["files"][0]["downloaded"]
    assert not list((tmp_path / "dest").glob("*.part*"))


def test_one_of_a_snapshot_does_not_change(api, exporter, run, options):
    api.objects[SNAPSHOT] = {"metadata": {"name": "before", "uid": "u-1"}}
    del options["vm"]
    options["snapshot"] = "before"
    assert run("export", **options)["changed"]
    # The claims of another export of it
    exporter.tag = '"2"'
    assert not run("export", **options)["changed"]
    api.objects[SNAPSHOT]["metadata"]["uid"] = "u-2"
    assert run("export", **options)["changed"]


def test_a_download_is_gone_on_with(exporter, run, options, tmp_path):
    options |= {"format": "raw", "retries": 1}
    middle = len(DISK) // 2
    # Each gets on a little, so that retries never come to an end
    exporter.breaks = [middle, 100, 503, 100]
    run("export", **options)
    assert (tmp_path / "dest/root.img").read_bytes() == DISK
    ranges = [asked for method, _path, asked in exporter.requests if method == "GET"]
    assert ranges == ["", f"bytes={middle}-", f"bytes={middle + 100}-", f"bytes={middle + 100}-",
                      f"bytes={middle + 200}-"]  # fmt: skip


def test_another_task_goes_on(exporter, run, options, tmp_path):
    options |= {"format": "raw", "retries": 0}
    exporter.breaks = [1000]
    failed = run("export", **options)
    assert "can't be downloaded" in failed.msg
    assert "1000 of" in failed.msg
    assert not (tmp_path / "dest/root.img").exists()
    assert stat.S_IMODE((tmp_path / "dest/root.img.part").stat().st_mode) == 0o600
    exporter.requests.clear()
    assert run("export", **options)["changed"]
    assert exporter.requests[-1] == ("GET", "/volumes/root/disk.img", "bytes=1000-")
    assert (tmp_path / "dest/root.img").read_bytes() == DISK


def test_the_rest_of_another_disk_is_not_added(exporter, run, options, tmp_path):
    options |= {"format": "raw", "retries": 0}
    exporter.breaks = [1000]
    run("export", **options)
    exporter.disk, exporter.tag = b"other" * 1000, '"2"'
    assert run("export", **options)["changed"]
    assert (tmp_path / "dest/root.img").read_bytes() == exporter.disk


def test_what_cannot_be_gone_on_with_begins_again(exporter, run, options, tmp_path):
    exporter.breaks = [1000, 2000]
    run("export", **options)
    assert gzip.decompress((tmp_path / "dest/root.img.gz").read_bytes()) == DISK
    assert [asked for _method, _path, asked in exporter.requests] == [""] * 4


def test_all_volumes_and_the_manifest(exporter, run, options, tmp_path):
    options |= {"volumes": None, "manifest": True}
    made = run("export", **options)
    assert [(each["volume"], each["format"]) for each in made["files"]] == [
        ("root", "gzip"),
        ("etc", "tar.gz"),
        ("", "json"),
    ]
    assert json.loads((tmp_path / "dest/manifest.json").read_text())["kind"] == "List"
    assert not run("export", **options)["changed"]


def test_links_by_another_address(api, exporter, run, options, tmp_path):
    authority = tmp_path / "ca.pem"
    authority.write_text(exporter.authority)
    run("export", **{**options, "dest": None})
    links = api.objects[PATH]["status"]["links"]
    links["internal"] = {**exporter.links(root=""), "cert": ""}
    for volume in links["internal"]["volumes"]:
        for each in volume["formats"]:
            each["url"] = each["url"].replace(exporter.url, "https://virt-export-web.default.svc")
    del links["external"]
    assert "no external links" in run("export", **options).msg
    assert "has no address" in run("export", **options, link="internal").msg
    assert "isn't trusted" in run("export", **options, export_url=exporter.url).msg
    assert run("export", **options, export_url=exporter.url, export_ca=str(authority))["changed"]
    assert exporter.requests[-1][1] == "/volumes/root/disk.img.gz"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"volumes": ["none"]}, "the export has no none; it has root, etc"),
        ({"wait": False}, "needs wait=true"),
        ({"vm": None}, "vm, snapshot or claim: missing"),
        ({"export_ca": "/nowhere"}, "export_ca: /nowhere can't be read"),
        ({"dest": "/dev/null/x"}, "dest: /dev/null/x can't be used"),
    ],
)
def test_what_cannot_be(exporter, run, options, more, words):
    assert words in run("export", **{**options, **more}).msg


def test_a_server_that_refuses(api, exporter, run, options):
    exporter.breaks = [403]
    assert "answered 403" in run("export", **options).msg
    api.objects["/api/v1/namespaces/default/secrets/token"]["data"] = {"token": base64.b64encode(b"x").decode()}
    assert "doesn't accept the token" in run("export", **options).msg
    api.objects["/api/v1/namespaces/default/secrets/token"]["data"] = {}
    assert "no usable key token" in run("export", **options).msg


def test_an_export_that_does_not_become_ready(api, exporter, run, options, monkeypatch):
    def admit(method, path, obj):
        ready = {"type": "Ready", "status": "False", "reason": "InUse", "message": "Virtual Machine web is running"}
        obj["status"] = {"phase": "Pending", "conditions": [ready]}

    api.admit = admit
    failed = run("export", **{**options, "wait_timeout": 1})
    assert "isn't ready for downloads within 1 seconds" in failed.msg
    assert "Virtual Machine web is running" in failed.msg
    api.update(PATH, {"status": {"phase": "Skipped"}})
    assert "there is nothing to export" in run("export", **options).msg


def test_a_full_disk(exporter, run, options, monkeypatch):
    def full(self, piece):
        self.error = "No space left on device"
        raise OSError(28, self.error)

    monkeypatch.setattr(_download.Part, "write", full)
    assert "root.img.gz can't be written: No space left on device" in run("export", **options).msg


def test_an_older_kubevirt(api, exporter, run):
    exporter.is_new = False
    made = run("export", name="web", namespace="default", vm="web")
    assert made["result"]["apiVersion"] == "export.kubevirt.io/v1beta1"
    found = run("export_info", namespace="default")
    assert [each["metadata"]["name"] for each in found["resources"]] == ["web"]
