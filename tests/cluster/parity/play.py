# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays a theme to a server and keeps what it answers."""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import re
import socket
import ssl
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
import yaml
from corpus import Request, Theme, dig

#: Headers that are part of an answer.
HEADERS = ("content-type", "warning", "retry-after", "www-authenticate", "cache-control", "allow", "location", "vary")
PATIENCE = 30.0
#: How long a watch must stay silent for its events to count as all there are, in seconds.
SILENCE = 0.3


@dataclass
class Answer:
    """What a server said."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None


class Server:
    """A Kubernetes API server and the administrator's way in."""

    def __init__(self, name: str, kubeconfig: Path) -> None:
        """Read the current context of ``kubeconfig``; ``name`` tells the servers apart."""
        self.name = name
        config = yaml.safe_load(kubeconfig.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
        self.url = cluster["server"].rstrip("/")
        self._files = tempfile.TemporaryDirectory(prefix="parity-")
        tls = ssl.create_default_context(cafile=self._file(cluster, "certificate-authority"))
        tls.check_hostname = not cluster.get("insecure-skip-tls-verify")
        anonymous = ssl.create_default_context(cafile=self._file(cluster, "certificate-authority"))
        anonymous.check_hostname = tls.check_hostname
        if user.get("client-certificate") or user.get("client-certificate-data"):
            tls.load_cert_chain(self._file(user, "client-certificate") or "", self._file(user, "client-key"))
        self.credentials = {"Authorization": f"Bearer {user['token']}"} if user.get("token") else {}
        options: dict[str, Any] = {"retries": False, "timeout": urllib3.Timeout(connect=10, read=60), "maxsize": 20}
        self.pool = urllib3.PoolManager(ssl_context=tls, **options)
        self.anonymous = urllib3.PoolManager(ssl_context=anonymous, **options)

    def close(self) -> None:
        """Let go of connections and files."""
        self.pool.clear()
        self.anonymous.clear()
        self._files.cleanup()

    @property
    def way_back(self) -> str:
        """Return the address of this machine that the server sees: where programs listen that it is to call."""
        address = urlsplit(self.url)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # Connecting a datagram socket sends nothing; it chooses the route.
            probe.connect((address.hostname or "", address.port or 443))
            found: str = probe.getsockname()[0]
        return found

    def _file(self, data: dict[str, Any], name: str) -> str | None:
        if data.get(f"{name}-data"):
            path = Path(self._files.name) / name
            path.write_bytes(base64.b64decode(data[f"{name}-data"]))
            path.chmod(0o600)
            return str(path)
        found: str | None = data.get(name)
        return found


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


class _Watch:
    """Reads a watch's events in a thread."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._events: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        buffer = b""
        try:
            while data := self._response.read1(65536):
                buffer += data
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    self._events.put(json.loads(line))
            if buffer:
                self._events.put(json.loads(buffer))
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError):
            pass
        self._events.put(None)

    def collect(self, wanted: int) -> list[Any]:
        """Return the ``wanted`` events, and those after them that there shouldn't be."""
        events: list[Any] = []
        while True:
            try:
                event = self._events.get(timeout=SILENCE if len(events) >= wanted else PATIENCE)
            except queue.Empty:
                break
            if event is None:
                events.append("the server ended the watch")
                break
            events.append(event)
        # Closing from another thread than the reader's may block: shutting the connection down ends its read.
        with contextlib.suppress(Exception):
            self._response.shutdown()
        return events


class Player:
    """Plays themes to one server."""

    def __init__(
        self, server: Server, tag: str, variables: dict[str, str], masks: dict[str, str] | None = None
    ) -> None:
        """Play to ``server``.

        :param tag: what ``$id`` is, and what the themes' namespaces end with.
        :param variables: what else is filled into requests; ``$server`` in it is the server's name.
        :param masks: what answers say of the place where this runs, and what is shown instead.
        """
        self.server, self.tag = server, tag
        self._common, self._masks = variables, masks or {}
        self.variables: dict[str, str] = {}
        self._watches: dict[str, _Watch] = {}

    def begin(self, theme: Theme) -> None:
        """Make the theme's namespace."""
        self._watches = {}
        namespace = f"parity-{theme.name}-{self.tag}"
        own = {name: value.replace("$server", self.server.name) for name, value in self._common.items()}
        self.variables = {"ns": namespace, "id": self.tag, **own}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {"parity": "own"}}}
        answer = self._once(Request(theme.name, "", "POST", "/api/v1/namespaces", body))
        assert answer.code == 201, answer
        # Pods can be made once the namespace has its service account.
        account = Request(theme.name, "", path="serviceaccounts/default", until={"code": 200})
        assert self.play(account).code == 200, "the namespace gets no service account"

    def end(self, theme: Theme) -> None:
        """Remove what the theme made."""
        for watch in self._watches.values():
            watch.collect(0)
        for path in [*theme.cleanup, "/api/v1/namespaces/$ns"]:
            self._once(Request(theme.name, "", "DELETE", path))

    def play(self, request: Request) -> Answer:
        """Return what the server answers to a request."""
        if request.collect:
            watch = self._watches.pop(request.collect, None)
            events: Any = watch.collect(request.events) if watch else "the watch was refused"
            return Answer(0, {}, self._masked(events))
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._once(request)
            if not request.until or _is(answer, request.until) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        for name, path in request.save.items():
            self.variables[name] = str(dig(answer.body, path))
        if request.pick:
            answer.body = {path: dig(answer.body, self._fill(path)) for path in request.pick}
        answer.body = self._masked(answer.body)
        return answer

    def _masked(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._masked(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._masked(item) for item in value]
        if isinstance(value, str):
            for text, shown in self._masks.items():
                value = value.replace(text, shown)
        return value

    def _once(self, request: Request) -> Answer:
        path = self._fill(request.path)
        if not path.startswith("/"):
            path = f"/api/v1/namespaces/{self.variables['ns']}/{path}"
        headers = urllib3.HTTPHeaderDict({name: self._fill(value) for name, value in request.headers.items()})
        pool = self.server.pool
        if request.token is None:
            headers.extend(self.server.credentials)
        else:
            pool = self.server.anonymous
            if request.token:
                headers["Authorization"] = f"Bearer {self._fill(request.token)}"
        if request.user:
            headers["Impersonate-User"] = self._fill(request.user)
        for group in request.groups:
            headers.add("Impersonate-Group", self._fill(group))
        body = None
        if request.body is not None:
            text = request.body if isinstance(request.body, str) else json.dumps(request.body)
            body = self._fill(text).encode()
            if request.type:
                headers.setdefault("Content-Type", request.type)
        try:
            response = pool.request(
                request.method, self.server.url + path, body=body, headers=headers, preload_content=not request.watch
            )
        except urllib3.exceptions.HTTPError as error:
            return Answer(0, {}, {"message": f"no answer: {error}"})
        found = {name: response.headers[name] for name in response.headers if name.lower() in HEADERS}
        shown = {name.lower(): value for name, value in found.items()}
        if request.watch and response.status == 200:
            self._watches[request.watch] = _Watch(response)
            return Answer(response.status, shown)
        return Answer(response.status, shown, _body(response.data, shown.get("content-type", "")))

    def _fill(self, text: Any) -> str:
        return re.sub(r"\$([a-z]\w*)", lambda match: self.variables.get(match[1], match[0]), str(text))


def _is(answer: Answer, wanted: dict[str, Any]) -> bool:
    return all((answer.code if path == "code" else dig(answer.body, path)) == value for path, value in wanted.items())


def _body(raw: bytes, content_type: str) -> Any:
    try:
        if "json" in content_type or raw[:1] == b"{":
            lines = raw.splitlines()
            return json.loads(raw) if len(lines) < 2 else [json.loads(line) for line in lines]
        if "yaml" in content_type:
            return yaml.safe_load(raw)
    except ValueError:
        with contextlib.suppress(ValueError):
            return json.loads(raw)
    return raw.decode(errors="replace")
