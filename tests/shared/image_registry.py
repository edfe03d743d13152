# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian's docker-registry with TLS, with or without a password, and images to push."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import socket
import subprocess
import tarfile
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from ssl import create_default_context
from typing import Any

USER, PASSWORD = "alice", "only-for-tests"
#: bcrypt of the password, the only form that the registry takes.
_HASH = "$2b$05$GEzFYHzwNhaDpXZ2i2meAOdumfE3nErniMYs9r3H13Zb/ZNWGjPFa"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"


def layer(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    """Return a compressed layer with files, by name and content, or with members as they are."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return gzip.compress(raw.getvalue(), mtime=0)


class ImageRegistry:
    """A registry.

    :ivar address: host and port. :ivar authority: file with the authority of its certificate.
    """

    def __init__(self, folder: Path, host: str, private: bool, listen: str) -> None:
        self._folder, self.authority = folder, folder / "registry.crt"
        with socket.create_server((listen, 0)) as free:
            port = free.getsockname()[1]
        self.address, self._local = f"{host}:{port}", f"127.0.0.1:{port}"
        names = f"subjectAltName=IP:{host},IP:127.0.0.1"
        command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-subj", "/CN=registry", "-addext", names, "-days", "2"]
        files = ["-keyout", str(folder / "registry.key"), "-out", str(self.authority)]
        subprocess.run([*command, *files], check=True, capture_output=True)
        (folder / "htpasswd").write_text(f"{USER}:{_HASH}\n")
        access = {"auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}} if private else {}
        certificate = {"certificate": str(self.authority), "key": str(folder / "registry.key")}
        configuration = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": f"{listen}:{port}", "tls": certificate},
            "log": {"level": "error"},
            **access,
        }
        (folder / "config.yml").write_text(json.dumps(configuration))
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log
            )
        while True:
            assert self._process.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)

    def push(self, name: str, *layers: bytes, tag: str = "1") -> str:
        """Store an image of layers; return its manifest's digest."""
        return self._manifest(name, tag, self._image(name, layers, "amd64"), _MANIFEST)

    def push_platforms(self, name: str, tag: str = "1", **layers: bytes) -> str:
        """Store an image of one layer for each of several architectures; return its index's digest."""
        entries = []
        for architecture, blob in layers.items():
            raw = self._image(name, [blob], architecture)
            digest = self._manifest(name, _digest(raw), raw, _MANIFEST)
            platform = {"os": "linux", "architecture": architecture}
            entries.append({"mediaType": _MANIFEST, "digest": digest, "size": len(raw), "platform": platform})
        raw = json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}).encode()
        return self._manifest(name, tag, raw, _INDEX)

    def _image(self, name: str, layers: Sequence[bytes], architecture: str) -> bytes:
        config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers"}}).encode()
        for blob in (config, *layers):
            place = self._ask("POST", f"/v2/{name}/blobs/uploads/", b"").headers["Location"]
            place = place.replace(f"https://{self.address}", "").replace(f"https://{self._local}", "")
            sign = "&" if "?" in place else "?"
            self._ask("PUT", f"{place}{sign}digest={_digest(blob)}", blob, "application/octet-stream")
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(config, _CONFIG),
                "layers": [_descriptor(blob, _LAYER) for blob in layers],
            }
        ).encode()

    def _manifest(self, name: str, tag: str, raw: bytes, kind: str) -> str:
        self._ask("PUT", f"/v2/{name}/manifests/{tag}", raw, kind)
        return _digest(raw)

    def _ask(self, method: str, path: str, body: bytes, kind: str = "application/json") -> Any:
        login = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        headers = {"Content-Type": kind, "Authorization": f"Basic {login}"}
        request = urllib.request.Request(f"https://{self._local}{path}", body, headers, method=method)
        trust = create_default_context(cafile=str(self.authority))
        return urllib.request.urlopen(request, timeout=60, context=trust)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def registry_at(
    folder: Path, host: str = "127.0.0.1", *, private: bool = True, listen: str = "127.0.0.1"
) -> Iterator[ImageRegistry]:
    """Run one.

    :param host: its address for those who pull. :param listen: where it listens.
    """
    found = ImageRegistry(folder, host, private, listen)
    try:
        yield found
    finally:
        found.close()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(data: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _digest(data), "size": len(data)}
