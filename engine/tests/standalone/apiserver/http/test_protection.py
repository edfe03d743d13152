# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that ask too much, too slowly, or never read; and the log of who asked what."""

import asyncio
import base64
import contextlib
import gzip
import http.client
import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from turtles.standalone.apiserver.access.auth import User
from turtles.standalone.apiserver.access.rbac import Attributes
from turtles.standalone.apiserver.http import limits
from turtles.standalone.apiserver.http.audit import Policy, PolicyError, Rule
from turtles.standalone.apiserver.http.limits import Limits, LimitSettings
from turtles.standalone.apiserver.views import negotiate
from turtles.standalone.apiserver.wire.errors import StatusError

from ..conftest import Server

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"

RULE = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}


def connect(server: Server, buffer: int = 0) -> ssl.SSLSocket:
    plain = socket.socket()
    if buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    plain.settimeout(60)
    plain.connect(("127.0.0.1", server.port))
    return server.tls.wrap_socket(plain, server_hostname="localhost")


def request_head(server: Server, method: str, path: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {server.token()}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def memory(server: Server) -> float:
    """Return the server's own memory in MB."""
    text = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) / 1024


def patched(server: Server, module: str, change: str) -> None:
    """Start a server with a module of it changed: no test waits for a minute."""
    text = f"import turtles.standalone.apiserver.{module} as module\nmodule.{change}\n"
    (server.root / "sitecustomize.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(server.root), prepend=os.pathsep)
        server.start()


def ended(one: socket.socket) -> bool:
    """Whether the server ends a connection; reads what comes until then."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while one.recv(65536):
            pass
    return True


# -- sizes


def test_body_over_the_limit_is_413(server: Server) -> None:
    body = b'{"data": {"a": "' + b"x" * (3 * 1024 * 1024) + b'"}}'
    code, status = server.call("POST", CONFIG_MAPS, body)
    assert (code, status["reason"]) == (413, "RequestEntityTooLarge")
    assert server.call("GET", CONFIG_MAPS)[0] == 200


def test_packed_body_can_t_grow(server: Server) -> None:
    before = memory(server)
    bomb = gzip.compress(b'{"a":"' + b"x" * 200_000_000 + b'"}')
    assert len(bomb) < 300_000
    code, _ = server.call("POST", CONFIG_MAPS, bomb, headers={"Content-Encoding": "gzip"})
    assert code in (400, 413)
    assert memory(server) < before + 30


# -- slowness


def test_connection_without_a_request_ends(stopped: Server) -> None:
    stopped.start("--idle-timeout-seconds", "1")
    silent, slow, idle = (connect(stopped) for _ in range(3))
    slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: local")
    idle.sendall(request_head(stopped, "GET", "/healthz"))
    assert b"200 OK" in idle.recv(65536)
    for one in (silent, slow, idle):
        assert ended(one)
    watching = stopped.watch(f"{CONFIG_MAPS}?allowWatchBookmarks=true", seconds=3)
    assert watching is not None, "a watch is no idle connection"


def test_body_that_does_not_come_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(dict):
        async def read(self) -> bytes:
            await asyncio.sleep(60)
            return b""

    monkeypatch.setattr(negotiate, "BODY_SECONDS", 0.05)
    with pytest.raises(StatusError) as raised:
        asyncio.run(negotiate.read_body(Slow()))
    assert (raised.value.code, raised.value.reason) == (408, "Timeout")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
def test_watcher_that_does_not_read_is_cut_off(stopped: Server) -> None:
    """Without that, what it doesn't read stays in the server's memory for as long as it likes."""
    patched(stopped, "http.limits", "UNREAD_SECONDS = 2")

    def long_running() -> str:
        text = stopped.raw("GET", "/metrics")[2].decode()
        return re.search(r"^apiserver_longrunning_requests (\d+)", text, re.M)[1]

    stuck = connect(stopped, buffer=4096)
    stuck.sendall(request_head(stopped, "GET", f"{CONFIG_MAPS}?watch=1"))
    assert b"200 OK" in stuck.recv(1000)
    assert long_running() == "1"
    stopped.call("POST", CONFIG_MAPS, {"metadata": {"name": "a"}})
    for number in range(12):
        body = {"data": {"a": "abcdefghijkl"[number] * 800_000}}
        assert stopped.call("PATCH", f"{CONFIG_MAPS}/a", body, "application/merge-patch+json")[0] == 200

    stopped.until(lambda: long_running() == "0", 60)
    assert stopped.call("GET", f"{CONFIG_MAPS}/a")[0] == 200


def test_too_many_connections(stopped: Server) -> None:
    stopped.start("--max-connections", "5")
    held = [connect(stopped) for _ in range(5)]
    for one in held:
        one.sendall(request_head(stopped, "GET", "/healthz"))
        assert b"200 OK" in one.recv(65536)
    with contextlib.suppress(OSError):
        assert ended(connect(stopped))
    for one in held:
        one.close()
    stopped.until(lambda: _ready(stopped), 10)


def _ready(server: Server) -> bool:
    with contextlib.suppress(OSError):
        return server.call("GET", "/readyz")[0] == 200
    return False


# -- how much at once


def test_requests_in_flight() -> None:
    one = Limits(LimitSettings(reading=4, mutating=2))
    alice, bob, carol = (User(name, ()) for name in ("alice", "bob", "carol"))
    create, read = Attributes("create", resource="pods"), Attributes("get", resource="pods")
    with contextlib.ExitStack() as stack:
        stack.enter_context(one.seat(alice, create, False))
        with pytest.raises(StatusError) as raised, one.seat(alice, create, False):
            pass
        assert (raised.value.code, raised.value.details) == (429, {"retryAfterSeconds": 1})
        stack.enter_context(one.seat(alice, read, False))
        stack.enter_context(one.seat(bob, create, False))
        with pytest.raises(StatusError), one.seat(carol, create, False):
            pass
        for _ in range(10):
            stack.enter_context(one.seat(carol, Attributes("watch", resource="pods"), True))
        stack.enter_context(one.seat(carol, Attributes("get", path="/readyz"), False))
    assert not one.inflight[""] + one.inflight["mutating"] + one.long_running
    with one.seat(alice, create, False):
        pass


def test_upgrade_takes_a_place_like_any_request(server: Server) -> None:
    """A header doesn't make a request one that lasts, which would be without limit."""

    def lasting() -> str:
        _, _, raw = server.raw("GET", "/metrics", headers={"Upgrade": "websocket"})
        return re.findall(rb"^apiserver_longrunning_requests (\d+)", raw, re.M)[0].decode()

    # Watches of earlier tests may still be ending.
    server.until(lambda: lasting() == "0", 60)


def test_requests_a_second(stopped: Server) -> None:
    stopped.start("--max-requests-per-second", "5")
    node = stopped.token("podrunner")
    answers = [stopped.raw("GET", "/api/v1/nodes", token=node) for _ in range(30)]
    refused = [(headers["Retry-After"], json.loads(raw)["reason"]) for code, headers, raw in answers if code == 429]
    assert len(refused) > 5
    assert set(refused) == {("1", "TooManyRequests")}
    assert sum(code == 200 for code, _, _ in answers) >= 10, "a burst is allowed"
    assert stopped.call("GET", "/api/v1/nodes")[0] == 200, "others aren't concerned"
    assert stopped.call("GET", "/readyz", token="")[0] == 200


def test_slow_webhook_holds_places_of_one_user_only(stopped: Server) -> None:
    """What waits for a webhook counts; another user's writes still go through, and more of the same get 429."""
    gate, asked = threading.Event(), threading.Semaphore(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.release()
            gate.wait(60)
            body = json.dumps({**review, "response": {"uid": review["request"]["uid"], "allowed": True}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    stopped.start("--max-mutating-requests-inflight", "6")
    with https_server(stopped, Handler) as (url, bundle):
        hook = {
            "name": "slow.example.io",
            "clientConfig": {"url": url, "caBundle": bundle},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 30,
            "rules": [RULE],
        }
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        assert stopped.call("POST", path, {"metadata": {"name": "slow"}, "webhooks": [hook]})[0] == 201
        codes: list[int] = []

        def create(number: int) -> None:
            codes.append(stopped.call("POST", CONFIG_MAPS, {"metadata": {"name": f"n{number}"}}, timeout=60)[0])

        threads = [threading.Thread(target=create, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert asked.acquire(timeout=30)
        code, status = stopped.call("POST", SECRETS, {"metadata": {"name": "more"}})
        assert (code, status["reason"]) == (429, "TooManyRequests")
        event = {"metadata": {"name": "e", "namespace": "default"}, "involvedObject": {"namespace": "default"}}
        code, _ = stopped.call("POST", "/api/v1/namespaces/default/events", event, token=stopped.token("podrunner"))
        assert code == 201, "another user's"
        gate.set()
        for thread in threads:
            thread.join()
        assert codes == [201] * 3


@contextlib.contextmanager
def https_server(server: Server, handler: type[BaseHTTPRequestHandler]) -> Iterator[tuple[str, str]]:
    """Serve with the API server's own certificate; give the address and the authority for a webhook."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as one:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.config / "pki/apiserver.crt", server.config / "pki/apiserver.key")
        one.socket = context.wrap_socket(one.socket, server_side=True)
        threading.Thread(target=one.serve_forever, daemon=True).start()
        bundle = base64.b64encode((server.config / "pki/ca.crt").read_bytes()).decode()
        yield f"https://localhost:{one.server_port}/", bundle
        one.shutdown()


def test_webhook_that_answers_without_end(stopped: Server) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(2000):
                    self.wfile.write(b" " * 100_000)

        def log_message(self, *_: object) -> None:
            pass

    stopped.start()
    with https_server(stopped, Handler) as (url, bundle):
        hook = {
            "name": "endless.example.io",
            "clientConfig": {"url": url, "caBundle": bundle},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 20,
            "rules": [RULE],
        }
        path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
        assert stopped.call("POST", path, {"metadata": {"name": "endless"}, "webhooks": [hook]})[0] == 201
        before = memory(stopped)
        code, status = stopped.call("POST", CONFIG_MAPS, {"metadata": {"name": "a"}}, timeout=60)
        assert (code, "has more than" in status["message"]) == (500, True), status
        assert memory(stopped) < before + 60


def test_aggregated_service_that_falls_silent(stopped: Server) -> None:
    gate = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = self.path == "/apis/silent.example.io/v1"
            if listed or self.path.endswith("half"):
                self.send_response(200)
                self.send_header("Content-Length", "2" if listed else "100")
                self.end_headers()
                self.wfile.write(b"{}" if listed else b"half of it")
            if not listed:
                gate.wait(60)

        def log_message(self, *_: object) -> None:
            pass

    patched(stopped, "views.aggregation", "READ_SECONDS = 1")
    with https_server(stopped, Handler) as (url, _):
        port = int(url.rstrip("/").rpartition(":")[2])
        endpoints = {
            "metadata": {"name": "silent"},
            "subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": port}]}],
        }
        assert stopped.call("POST", "/api/v1/namespaces/default/endpoints", endpoints)[0] == 201
        spec = {
            "group": "silent.example.io",
            "version": "v1",
            "groupPriorityMinimum": 100,
            "versionPriority": 10,
            "service": {"namespace": "default", "name": "silent"},
            "insecureSkipTLSVerify": True,
        }
        body = {"metadata": {"name": "v1.silent.example.io"}, "spec": spec}
        assert stopped.call("POST", "/apis/apiregistration.k8s.io/v1/apiservices", body)[0] == 201
        service = "/apis/apiregistration.k8s.io/v1/apiservices/v1.silent.example.io"
        stopped.until(lambda: "all checks passed" in stopped.raw("GET", service)[2].decode())
        code, status = stopped.call("GET", "/apis/silent.example.io/v1/things/a", timeout=60)
        assert (code, status["reason"]) == (504, "Timeout")
        assert "v1.silent.example.io" in status["message"]
        with pytest.raises((OSError, http.client.IncompleteRead)):
            stopped.raw("GET", "/apis/silent.example.io/v1/things/half", timeout=60)
        assert stopped.call("GET", "/readyz")[0] == 200
        gate.set()


def test_metrics(server: Server) -> None:
    server.call("GET", CONFIG_MAPS)
    server.call("GET", "/api/v1/made%22up%0a", token="")
    code, headers, raw = server.raw("GET", "/metrics")
    text = raw.decode()
    assert (code, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    assert re.search(r'^apiserver_request_total\{verb="LIST",resource="configmaps",code="200"\} [1-9]', text, re.M)
    assert re.search(r'^apiserver_storage_objects\{resource="namespaces"\} [1-9]', text, re.M)
    assert re.search(r"^process_resident_memory_bytes [1-9]\d{6}", text, re.M)
    for line in text.splitlines():
        assert re.fullmatch(r'#.*|[a-z_]+(\{([a-z_]+="[^"]*",?)+\})? [0-9.e+-]+', line), line
    assert "made" not in text, "figures are of resources that there are"
    assert server.call("GET", "/metrics", token=server.token("podrunner"))[0] == 403


# -- audit

POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
  - level: None
    nonResourceURLs: ["/readyz*", "/healthz", "/livez", "/version"]
  - level: Metadata
    resources: [{group: "", resources: [secrets, "serviceaccounts/token"]}]
  - level: RequestResponse
    resources: [{group: "", resources: [configmaps]}]
    verbs: [create, patch]
  - level: Request
    resources: [{group: "", resources: [configmaps]}]
  - level: None
    users: [admin]
  - level: Metadata
"""


def events(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_audit_log_by_policy(stopped: Server) -> None:
    policy, path = stopped.root / "policy.yaml", stopped.root / "audit.log"
    policy.write_text(POLICY)
    stopped.start("--audit-policy-file", str(policy), "--audit-log-path", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    stopped.call("POST", SECRETS, {"metadata": {"name": "one"}, "stringData": {"password": "swordfish"}})
    stopped.call("GET", f"{SECRETS}/one")
    stopped.call(
        "POST",
        CONFIG_MAPS,
        {"metadata": {"name": "one"}, "data": {"a": "b"}},
        headers={"User-Agent": "test/1", "Audit-Id": "mine"},
    )
    stopped.call("DELETE", f"{CONFIG_MAPS}/one")
    stopped.watch(f"{CONFIG_MAPS}?x=y")
    stopped.call("GET", "/api/v1/nodes")
    stopped.call("GET", "/version")
    stopped.call("DELETE", "/api/v1/nodes/other", token=stopped.token("virt-handler"))
    stopped.call("GET", f"{CONFIG_MAPS}/none", headers={"Impersonate-User": "eve"})
    stopped.call("GET", SECRETS, token="guessed")
    stopped.stop()
    told = events(path)
    seen = [(one["verb"], one.get("objectRef", {}).get("resource"), one["level"], one["stage"]) for one in told]
    assert seen == [
        ("create", "secrets", "Metadata", "ResponseComplete"),
        ("get", "secrets", "Metadata", "ResponseComplete"),
        ("create", "configmaps", "RequestResponse", "ResponseComplete"),
        ("delete", "configmaps", "Request", "ResponseComplete"),
        ("watch", "configmaps", "Request", "ResponseStarted"),
        ("watch", "configmaps", "Request", "ResponseComplete"),
        ("delete", "nodes", "Metadata", "ResponseComplete"),
        ("get", "configmaps", "Request", "ResponseComplete"),
        ("get", None, "Metadata", "ResponseComplete"),
    ]
    assert "swordfish" not in path.read_text()
    assert "c3dvcmRmaXNo" not in path.read_text()
    created, refused, other = told[2], told[6], told[7]
    assert (created["kind"], created["apiVersion"], created["auditID"]) == ("Event", "audit.k8s.io/v1", "mine")
    assert created["user"] == {"username": "admin", "groups": ["system:masters", "system:authenticated"]}
    assert (created["sourceIPs"], created["userAgent"]) == (["127.0.0.1"], "test/1")
    assert created["requestObject"]["data"] == created["responseObject"]["data"] == {"a": "b"}
    assert created["responseStatus"] == {"metadata": {}, "code": 201}
    assert created["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert created["requestReceivedTimestamp"] <= created["stageTimestamp"]
    assert (refused["responseStatus"]["code"], refused["responseStatus"]["reason"]) == (403, "Forbidden")
    assert refused["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert (told[8]["responseStatus"]["code"], told[8]["requestURI"]) == (401, SECRETS)
    assert "guessed" not in path.read_text()
    assert (other["user"]["username"], other["impersonatedUser"]["username"]) == ("admin", "eve")


def test_audit_log_is_rotated(stopped: Server) -> None:
    path = stopped.root / "audit.log"
    stopped.start("--audit-log-path", str(path), "--audit-log-maxsize", "1", "--audit-log-maxbackup", "1")
    long = f"/api/v1/nodes?labelSelector=a%3D{'x' * 60}&pad={'y' * 7000}"
    for _ in range(160):
        stopped.call("GET", long)
    files = sorted(one.name for one in stopped.root.glob("audit.log*"))
    assert files == ["audit.log", "audit.log.1"]
    assert all(one.stat().st_size <= 1_000_000 for one in stopped.root.glob("audit.log*"))
    assert {one["level"] for one in events(path)} == {"Metadata"}, "without a policy"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kind: Other", "kind must be Policy"),
        ("kind: Policy\nrules: [{level: All}]", "level 'All' must be one of None, Metadata"),
        ("kind: Policy\nomitStages: [Never]\nrules: []", "'Never' must be one of"),
        ("kind: Policy\nrules: [{level: None, users: admin}]", "must be a list of strings"),
        ("{", "not a usable audit.k8s.io/v1 Policy"),
    ],
)
def test_policies_that_are_none(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "policy").write_text(text)
    with pytest.raises(PolicyError, match=re.escape(why)):
        Policy.load(tmp_path / "policy")


def test_rules_match_as_kubernetes_says() -> None:
    alice = User("alice", ("dev",))
    scale = Attributes("update", "apps", "v1", "deployments", "scale", "shop", "web")
    assert Rule("Metadata", resources=(("apps", ("deployments",), ()),)).matches(alice, scale) is False
    for named in ("deployments/scale", "deployments/*", "*/scale", "*"):
        assert Rule("Metadata", resources=(("apps", (named,), ()),)).matches(alice, scale), named
    assert Rule("Metadata", resources=(("apps", (), ()),), namespaces=("shop",)).matches(alice, scale)
    assert not Rule("Metadata", resources=(("apps", (), ("db",)),)).matches(alice, scale)
    assert not Rule("Metadata", resources=(("", (), ()),)).matches(alice, scale)
    assert Rule("Metadata", groups=("dev",), verbs=("update",)).matches(alice, scale)
    assert not Rule("Metadata", users=("bob",)).matches(alice, scale)
    assert Rule("Metadata", urls=("/api*",)).matches(alice, Attributes("get", path="/apis"))
    assert not Rule("Metadata", urls=("/api*",)).matches(alice, scale)
    assert not limits.is_long(scale)
