# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Images that the module sends to a real HTTPS server, which plays the upload proxy."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiohttp import web
from ansible_collections.turtles.kubevirt.plugins.modules import image_upload

IMAGE = bytes(range(256)) * 8192
DIGEST = hashlib.sha256(IMAGE).hexdigest()
CONFIG = "/apis/cdi.kubevirt.io/v1beta1/cdiconfigs/config"


class Proxy:
    """An upload proxy. `answers` has what it does with uploads, one after the other: a status, or None to break off."""

    def __init__(self, api, folder):
        self.answers, self.received, self.tokens, self.has_async = [], [], [], True
        self.done = lambda: api.update(self.path, {"status": {"phase": "Succeeded", "progress": "100.0%"}})
        certificate, key = folder / "proxy.pem", folder / "proxy.key"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=proxy"
        files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
        self.authority = certificate.read_text()
        self.path = "/apis/cdi.kubevirt.io/v1beta1/namespaces/default/datavolumes/disk"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self._answer(200 if outer.has_async or not self.path.endswith("async") else 404)

            def do_POST(self):
                outer.tokens.append(self.headers["Authorization"])
                status = outer.answers.pop(0) if outer.answers else 200
                length = int(self.headers["Content-Length"])
                if status is None:
                    self.rfile.read(length // 2)
                    self.connection.close()
                    return
                if status == 400:
                    # Before all of it is there
                    self._answer(status, "A larger PVC is required.")
                    return
                outer.received.append((self.path, self.rfile.read(length)))
                if status == 200:
                    outer.done()
                self._answer(status)

            def _answer(self, status, text=""):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(text.encode())

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


@pytest.fixture
def proxy(api, tmp_path, monkeypatch):
    """A proxy, and an engine: it takes uploads at once, and gives a token for each request."""
    monkeypatch.setattr(image_upload, "PAUSE", 0)
    found = Proxy(api, tmp_path)
    status = {"uploadProxyURL": found.url, "uploadProxyCA": found.authority}
    api.objects[CONFIG] = {"metadata": {"name": "config"}, "status": status}
    tokens = iter(range(100))

    def intercept(method, path):
        if not path.endswith("uploadtokenrequests"):
            return None
        return web.json_response({"status": {"token": f"token-{next(tokens)}"}})

    def admit(method, path, obj):
        if obj.get("kind") == "DataVolume" and method == "POST":
            obj["status"] = {"phase": "UploadReady"}

    api.intercept, api.admit = intercept, admit
    yield found
    found.close()


@pytest.fixture
def options(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(IMAGE)
    return {"name": "disk", "namespace": "default", "src": str(path), "size": "1Gi", "wait_timeout": 20}


def test_an_image_is_uploaded_once(api, proxy, run, options, tmp_path):
    assert run("image_upload", check=True, **options)["changed"]
    assert not proxy.received
    made = run("image_upload", **options, labels={"team": "a"})
    assert (made["changed"], made["phase"], made["bytes"]) == (True, "Succeeded", len(IMAGE))
    assert made["checksum"] == f"sha256:{DIGEST}"
    assert proxy.received == [("/v1beta1/upload-async", IMAGE)]
    assert proxy.tokens == ["Bearer token-0"]
    assert "token-0" not in str(made)
    assert made["result"]["spec"] == {
        "source": {"upload": {}},
        "storage": {"resources": {"requests": {"storage": "1Gi"}}},
    }
    again = run("image_upload", **options)
    assert (again["changed"], again["bytes"]) == (False, 0)
    md5 = hashlib.md5(IMAGE, usedforsecurity=False).hexdigest()
    assert not run("image_upload", **options, checksum=f"md5:{md5}")["changed"]
    (tmp_path / "disk.img").write_bytes(IMAGE[1:])
    assert "was created from another file" in run("image_upload", **options).msg
    assert len(proxy.received) == 1


def test_a_proxy_that_has_no_second_path(proxy, run, options):
    proxy.has_async = False
    assert run("image_upload", **options, upload_proxy_url=proxy.url)["changed"]
    assert proxy.received == [("/v1beta1/upload", IMAGE)]


def test_files_of_an_archive(proxy, run, options):
    made = run("image_upload", **options, archive=True)
    assert proxy.received == [("/v1beta1/upload-archive", IMAGE)]
    assert made["result"]["spec"]["contentType"] == "archive"
    assert not run("image_upload", **options, archive=True)["changed"]
    assert "exists with the contentType archive, which archive=false doesn't fit" in run("image_upload", **options).msg


def test_an_upload_that_breaks_off_is_begun_again(proxy, run, options):
    proxy.answers = [None, 503, 401]
    assert run("image_upload", **options)["phase"] == "Succeeded"
    assert proxy.received[-1][1] == IMAGE
    assert proxy.tokens == [f"Bearer token-{number}" for number in range(4)]


def test_retries_come_to_an_end(proxy, run, options):
    proxy.answers = [503] * 10
    failed = run("image_upload", **options, retries=2)
    assert failed["changed"]
    assert "503" in failed.msg
    assert len(proxy.tokens) == 3


def test_an_image_that_is_refused(proxy, run, options):
    proxy.answers = [400]
    assert "rejected the image (400): A larger PVC is required." in run("image_upload", **options).msg


def test_an_image_that_turns_out_to_be_hostile(api, proxy, run, options):
    condition = {"type": "Running", "status": "False", "reason": "Error", "message": "it has a backing file"}
    broken = {"phase": "UploadScheduled", "restartCount": 1, "conditions": [condition]}
    proxy.done = lambda: api.update(proxy.path, {"status": broken})
    failed = run("image_upload", **options)
    assert "the image can't be used" in failed.msg
    assert "it has a backing file" in failed.msg
    # The next one is taken, though it is said still
    api.update(proxy.path, {"status": {**broken, "phase": "UploadReady"}})
    proxy.done = lambda: api.update(proxy.path, {"status": {"phase": "Succeeded"}})
    assert run("image_upload", **options)["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"src": "/nowhere"}, "src: /nowhere can't be read"),
        ({"size": None}, "size: missing for a new disk"),
        ({"checksum": "sha256:00"}, "doesn't have one of the forms"),
        ({"checksum": f"sha256:{'0' * 64}"}, "it is another file, or is corrupt"),
        ({"upload_proxy_url": "http://127.0.0.1"}, "isn't an https URL"),
        ({"upload_proxy_ca": "/nowhere"}, "upload_proxy_ca: /nowhere can't be read"),
    ],
)
def test_options_that_cannot_be(proxy, run, options, more, words):
    assert words in run("image_upload", **{**options, **more}).msg
    assert not proxy.received


def test_a_proxy_that_nobody_knows(api, proxy, run, options):
    with contextlib.suppress(KeyError):
        del api.objects[CONFIG]
    assert "upload_proxy_url: missing" in run("image_upload", **options).msg
    # Without the object its authority isn't known
    assert "isn't trusted" in run("image_upload", **options, upload_proxy_url=proxy.url).msg
    assert run("image_upload", **options, upload_proxy_url=proxy.url, upload_proxy_insecure=True)["changed"]


def test_a_disk_that_something_else_was_made_of(api, proxy, run, options):
    run("data_volume", name="disk", namespace="default", source={"blank": {}}, size="1Gi", wait=False)
    assert "but not for an upload" in run("image_upload", **options).msg
