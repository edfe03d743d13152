# SPDX-License-Identifier: GPL-3.0-or-later
"""A real server process on a free loopback port, and a client of a few lines."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

COMMAND = [sys.executable, "-m", "turtles.standalone.main"]
WIDGET_SCHEMA = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "string", "enum": ["small", "large"]},
                "replicas": {"type": "integer", "minimum": 0, "default": 1},
                "parts": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
                },
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
SUBRESOURCES = {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}
WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.io"},
    "spec": {
        "group": "example.io",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
        "versions": [
            {
                "name": name, "served": True, "storage": name == "v1", "subresources": SUBRESOURCES,
                "schema": {"openAPIV3Schema": WIDGET_SCHEMA},
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "string", "jsonPath": ".spec.size"},
                    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
                ],
            }
            for name in ("v1", "v1alpha3")
        ],
    },
}  # fmt: skip
WIDGET_PATH = "/apis/example.io/v1/namespaces/default/widgets"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def widget(name: str, **spec: object) -> dict:
    metadata = {"name": name, "namespace": "default", "labels": {"app": name}}
    return {"apiVersion": "example.io/v1", "kind": "Widget", "metadata": metadata, "spec": {"size": "small", **spec}}


class Server:
    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        self.config, self.data = root / "etc", root / "data"
        self.process: subprocess.Popen | None = None
        self.init()
        self.tls = ssl.create_default_context(cafile=str(self.config / "pki/ca.crt"))

    def init(self, *more: str) -> dict:
        command = [*COMMAND, "init", "--config-dir", str(self.config), "--data-dir", str(self.data), "--port",
                   str(self.port), "--node-name", "n1", *more]  # fmt: skip
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    def start(self, *options: str) -> "Server":
        command = [*COMMAND, "apiserver", "--config-dir", str(self.config), "--data-dir", str(self.data), "--port",
                   str(self.port), *options]  # fmt: skip
        self.log = open(self.root / "log", "ab")  # noqa: SIM115
        environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.call("GET", "/readyz", token="")[0] == 200:
                    return self
            assert self.process.poll() is None, (self.root / "log").read_text()
            time.sleep(0.02)
        # So that the log says where it is.
        self.stop(signal.SIGABRT)
        raise AssertionError("the server doesn't get ready: " + (self.root / "log").read_text()[-5000:])

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.log.close()
        self.process = None
        return code

    def token(self, name: str = "admin") -> str:
        return yaml.safe_load((self.config / f"{name}.kubeconfig").read_text())["users"][0]["user"]["token"]

    def call(
        self, method: str, path: str, body: object = None, content_type: str = "application/json",
        token: str | None = None, headers: dict | None = None, timeout: float = 30,
    ) -> tuple[int, dict]:  # fmt: skip
        code, _, raw = self.raw(method, path, body, content_type, token, headers, timeout)
        try:
            return code, json.loads(raw)
        except ValueError:
            return code, {"text": raw.decode(errors="replace")}

    def raw(
        self, method: str, path: str, body: object = None, content_type: str = "application/json",
        token: str | None = None, headers: dict | None = None, timeout: float = 30,
    ) -> tuple[int, dict, bytes]:  # fmt: skip
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", data, method=method)
        token = self.token() if token is None else token
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        if data is not None:
            request.add_header("Content-Type", content_type)
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=timeout) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def watch(self, path: str, seconds: int = 1) -> list[dict]:
        """Return a watch's events of ``seconds``."""
        mark = "&" if "?" in path else "?"
        _, _, raw = self.raw("GET", f"{path}{mark}watch=1&timeoutSeconds={seconds}", timeout=seconds + 10)
        return [json.loads(line) for line in raw.splitlines()]

    def until(self, check, seconds: float = 30):
        deadline = time.monotonic() + seconds
        while not (result := check()):
            assert time.monotonic() < deadline, "the condition is not met"
            time.sleep(0.02)
        return result

    def kubectl(self, *arguments: str, stdin: str = "", kubeconfig: str = "admin", check: bool = True) -> str:
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.config / f"{kubeconfig}.kubeconfig"),
            "HOME": str(self.root),
        }
        result = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, env=environment)
        assert not check or result.returncode == 0, result.stderr
        return result.stdout + result.stderr


def kubectl_minor() -> int:
    """The minor version of the installed kubectl 1.x; -1 if there is none."""
    if shutil.which("kubectl") is None:
        return -1
    command = ["kubectl", "version", "--client", "-o", "json"]
    version = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return int(re.sub(r"\D.*", "", version["clientVersion"]["minor"]))


any_kubectl = pytest.mark.skipif(kubectl_minor() < 0, reason="kubectl is not installed")
# Validation and application of fields by the server, auth whoami, patch --subresource: Debian 12's is older.
new_kubectl = pytest.mark.skipif(kubectl_minor() < 28, reason="needs kubectl 1.28 or newer")


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, not started."""
    server = Server(tmp_path)
    yield server
    if server.process is not None:
        server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with the kind Widget, shared by tests that clean up after themselves or use own names."""
    one = Server(tmp_path_factory.mktemp("apiserver")).start()
    try:
        assert one.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", WIDGETS)[0] == 201
        # Before that, Pods are refused.
        one.until(lambda: one.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")[0] == 200)
        yield one
    finally:
        code = one.stop()
    assert code == 0
