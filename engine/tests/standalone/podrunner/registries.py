# SPDX-License-Identifier: GPL-3.0-or-later
"""Registries of images: Debian's, with and without credentials, and one that misbehaves as tests want it to."""

import base64
import gzip
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PASSWORD = "only-for-tests"
# bcrypt of it, the only form the registry takes
_HASH = "$2b$05$GEzFYHzwNhaDpXZ2i2meAOdumfE3nErniMYs9r3H13Zb/ZNWGjPFa"
USERS = ("alice", "bob")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def digest_of(data):
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(**files):
    """Return a compressed layer with files of a folder ``disk``."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"disk/{name}")
            info.size, info.uid, info.gid = len(content), os.getuid(), os.getgid()
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0)


def descriptor(data, kind="application/vnd.oci.image.layer.v1.tar+gzip"):
    """Return what a manifest says of a blob."""
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}


CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers"}}).encode()


def manifest(*layers):
    """Return the manifest of an image of layers, given as blobs or as what the manifest is to say of them."""
    entries = [entry if isinstance(entry, dict) else descriptor(entry) for entry in layers]
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "layers": entries,
            "config": descriptor(CONFIG, "application/vnd.oci.image.config.v1+json"),
        }
    ).encode()


def secret(name, registry, user="alice", password=PASSWORD, namespace="default", uid=None):
    """Return a pull secret."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    data = json.dumps({"auths": {registry: {"auth": auth}}}).encode()
    return {
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "uid": uid or f"uid-of-{name}"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(data).decode()},
    }


def programs(word):
    """Return the processes that have a word in their arguments, but us."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and entry.name != str(os.getpid()):
                found += [int(entry.name)] * (word.encode() in (entry / "cmdline").read_bytes())
    return found


class Registry:
    """Debian's docker-registry on the loopback interface.

    :param private: whether it wants one of USERS.
    """

    def __init__(self, folder, private):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._folder, self._private, self._process = folder, private, None
        (folder / "htpasswd").write_text("".join(f"{user}:{_HASH}\n" for user in USERS))
        auth = {"auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}} if private else {}
        (folder / "config.yml").write_text(
            json.dumps(
                {
                    "version": "0.1",
                    "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
                    "http": {"addr": self.address},
                    "log": {"level": "error"},
                    **auth,
                }
            )
        )
        self.start()

    def start(self):
        """Start it and wait until it answers."""
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", self._folder / "config.yml"], stdout=log, stderr=log
            )
        while True:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            with suppress(OSError), socket.create_connection(self.address.split(":")):
                return
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)

    def stop(self):
        """End it."""
        self._process.kill()
        self._process.wait()

    def push(self, name, *layers, tag="1"):
        """Store an image; return its reference."""
        raw = manifest(*layers)
        for blob in (CONFIG, *layers):
            place = self._ask("POST", f"/v2/{name}/blobs/uploads/", b"").headers["Location"]
            sign = "&" if "?" in place else "?"
            self._ask("PUT", f"{place}{sign}digest={digest_of(blob)}", blob, "application/octet-stream")
        self._ask("PUT", f"/v2/{name}/manifests/{tag}", raw, MANIFEST)
        return f"{self.address}/{name}:{tag}"

    def _ask(self, method, path, body, kind="application/json"):
        url = path if path.startswith("http") else f"http://{self.address}{path}"
        headers = {"Content-Type": kind}
        if self._private:
            headers["Authorization"] = "Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
        return urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=60)


class Misbehaving:
    """A registry of a few lines that keeps or breaks its word.

    ``manifests`` by tag or digest and ``blobs`` by digest; what is callable is called with the handler instead.
    """

    def __init__(self):
        self.manifests, self.blobs, self.asked = {}, {digest_of(CONFIG): CONFIG}, []
        self.stopping = threading.Event()
        self.seen = threading.Condition()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                registry.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self):
        """End it."""
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, name, *layers, blobs=()):
        """Offer an image with layers (or what its manifest says of them); return its reference."""
        raw = manifest(*layers)
        for blob in (*layers, *blobs):
            if isinstance(blob, bytes):
                self.blobs[digest_of(blob)] = blob
        self.manifests[f"{name}:1"] = self.manifests[f"{name}:{digest_of(raw)}"] = raw
        return f"{self.address}/{name}:1"

    def endless(self, name, size=1000, pause=0.0, piece=bytes(1 << 16)):
        """Offer an image whose layer has no end, whatever its size is said to be."""

        def send(handler):
            handler.send_response(200)
            handler.send_header("Connection", "close")
            handler.end_headers()
            with suppress(OSError):
                while not self.stopping.wait(pause):
                    handler.wfile.write(piece)
            handler.close_connection = True

        digest = digest_of(name.encode())
        self.blobs[digest] = send
        return self.add(name, {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size})

    def silent(self, handler):
        """Answer nothing."""
        self.stopping.wait()
        handler.close_connection = True

    def answer(self, handler):
        """Answer a request."""
        with self.seen:
            self.asked.append(handler.path)
            self.seen.notify_all()
        name, _, rest = handler.path.removeprefix("/v2/").rpartition("/manifests/")
        content, kind = b"{}", "application/json"
        if name:
            content = self.manifests.get(f"{name}:{rest}")
            kind = INDEX if isinstance(content, bytes) and b'"manifests"' in content else MANIFEST
        elif "/blobs/" in handler.path:
            content, kind = self.blobs.get(handler.path.rpartition("/")[2]), "application/octet-stream"
        if callable(content):
            content(handler)
            return
        handler.send_response(200 if content is not None else 404)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content or b"")))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content or b"")

    def wait_asked(self, part, seconds=60, count=1):
        """Wait until something was asked for."""
        with self.seen:
            assert self.seen.wait_for(lambda: sum(part in path for path in self.asked) >= count, seconds), self.asked
