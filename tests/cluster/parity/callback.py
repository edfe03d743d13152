# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that both API servers call: admission and conversion webhooks, and an aggregated API.

A webhook's path says in its last part how it answers, and in the part before it which server asks. ``$webhook/deny`` in
the corpus is the URL of the webhook that denies. Below ``/apis`` is a resource ``echoes``, which tells what it was
asked.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Review = dict[str, Any]


@dataclass(frozen=True)
class Callback:
    """A running server."""

    url: str
    address: str
    port: int
    #: Its certificate's authority, base64 of PEM, as a caBundle has it.
    ca: str


def _patch(*operations: Review) -> Review:
    text = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": text}


def _echo(request: Review) -> Review:
    # What the server said is shown to the corpus as an annotation of the object.
    shown = {
        "kind": request["kind"],
        "resource": request["resource"],
        "requestKind": request.get("requestKind"),
        "requestResource": request.get("requestResource"),
        "operation": request["operation"],
        "subResource": request.get("subResource"),
        "requestSubResource": request.get("requestSubResource"),
        "name": request.get("name"),
        "namespace": request.get("namespace"),
        "dryRun": request.get("dryRun"),
        "username": request["userInfo"]["username"] and "somebody",
        "has_object": request.get("object") is not None,
        "has_old": request.get("oldObject") is not None,
        "options": {name: value for name, value in (request.get("options") or {}).items() if name != "fieldManager"},
    }
    value = json.dumps(shown, sort_keys=True)
    if request.get("object") is None:
        return {"allowed": False, "status": {"message": value, "code": 400, "reason": "BadRequest"}}
    present = "annotations" in request["object"]["metadata"]
    start = [] if present else [{"op": "add", "path": "/metadata/annotations", "value": {}}]
    return _patch(*start, {"op": "add", "path": "/metadata/annotations/review", "value": value})


ANSWERS: dict[str, Callable[[Review], Review]] = {
    "allow": lambda _: {"allowed": True},
    "warn": lambda _: {"allowed": True, "warnings": ["think twice", 'say "yes"']},
    "deny": lambda _: {"allowed": False},
    "deny-message": lambda _: {"allowed": False, "status": {"message": "not on a Monday"}},
    "deny-status": lambda _: {
        "allowed": False,
        "status": {
            "code": 402,
            "reason": "PaymentRequired",
            "message": "pay first",
            "details": {"causes": [{"reason": "FieldValueInvalid", "message": "too cheap", "field": "data.price"}]},
        },
    },
    "label": lambda _: _patch({"op": "add", "path": "/metadata/labels", "value": {"mutated": "yes"}}),
    "data": lambda _: _patch({"op": "add", "path": "/data/mutated", "value": "yes"}),
    "bad-patch": lambda _: _patch({"op": "remove", "path": "/nothing/here"}),
    "no-patch-type": lambda _: {"allowed": True, "patch": base64.b64encode(b"[]").decode()},
    "rename": lambda _: _patch({"op": "replace", "path": "/metadata/name", "value": "renamed"}),
    "echo": _echo,
}


#: Headers that an aggregated request is told by.
SHOWN = ("X-Remote-User", "X-Remote-Group", "Impersonate-User", "Authorization", "Content-Type", "Accept", "X-Own")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._aggregated(b"")

    def do_POST(self) -> None:
        if self.path.startswith("/apis/"):
            self._aggregated(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        else:
            self._webhook()

    do_PUT = do_PATCH = do_DELETE = do_POST

    def _aggregated(self, body: bytes) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if len(parts) == 3:
            echoes = {"name": "echoes", "singularName": "echo", "namespaced": True, "kind": "Echo", "verbs": ["get"]}
            listed = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{parts[1]}/{parts[2]}"}
            self._send(200, json.dumps({**listed, "resources": [echoes]}))
            return
        shown = {name: self.headers.get_all(name) for name in SHOWN if name in self.headers}
        asked = {"method": self.command, "path": self.path, "headers": shown, "body": body.decode()}
        self._send(418 if parts[-1] == "teapot" else 200, json.dumps({"kind": "Echo", **asked}))

    def _webhook(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        how = self.path.partition("?")[0].rpartition("/")[2]
        if how == "convert":
            self._send(200, json.dumps(_convert(body)))
        elif how == "500":
            self._send(500, "broken")
        elif how == "garbage":
            self._send(200, "{")
        elif how == "hang":
            time.sleep(3)
            self._send(200, "{}")
        else:
            request = body["request"]
            answer = {"uid": "somebody else's" if how == "wrong-uid" else request["uid"]}
            answer |= ANSWERS.get(how, ANSWERS["allow"])(request)
            version = "admission.k8s.io/v2" if how == "wrong-version" else body["apiVersion"]
            self._send(200, json.dumps({"apiVersion": version, "kind": "AdmissionReview", "response": answer}))

    def _send(self, code: int, text: str) -> None:
        data = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def _convert(body: Review) -> Review:
    """Convert between v1, which has spec.size, and v2, which has spec.width and spec.height."""
    request = body["request"]
    if any((obj.get("spec") or {}).get("size") == "refuse" for obj in request["objects"]):
        refusal = {"uid": request["uid"], "result": {"status": "Failure", "message": "no such size"}}
        return {"apiVersion": body["apiVersion"], "kind": "ConversionReview", "response": refusal}
    converted = []
    for obj in request["objects"]:
        obj = {**obj, "apiVersion": request["desiredAPIVersion"]}
        spec = dict(obj.get("spec") or {})
        if obj["apiVersion"].endswith("/v2") and "size" in spec:
            width, _dummy, height = spec.pop("size").partition("x")
            spec |= {"width": int(width), "height": int(height)}
        elif obj["apiVersion"].endswith("/v1") and "width" in spec:
            spec["size"] = f"{spec.pop('width')}x{spec.pop('height')}"
        if spec:
            obj["spec"] = spec
        converted.append(obj)
    response: Review = {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted}
    return {"apiVersion": body["apiVersion"], "kind": "ConversionReview", "response": response}


def _certificate(folder: Path, address: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "parity callback")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "callback.pem").touch(0o600)
    (folder / "callback.pem").write_bytes(private + pem)
    return base64.b64encode(pem).decode()


@contextlib.contextmanager
def callback(folder: Path, address: str = "127.0.0.1") -> Iterator[Callback]:
    """Run the server on a free port of an address that the API servers reach, its key in ``folder``."""
    authority = _certificate(folder, address)
    server = ThreadingHTTPServer((address, 0), _Handler)
    server.daemon_threads = True
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "callback.pem")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Callback(f"https://{address}:{server.server_port}", address, server.server_port, authority)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
