# SPDX-License-Identifier: GPL-3.0-or-later
"""Webhooks and aggregation against real servers of the test's own."""

import asyncio
import base64
import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from turtles import pki

from ..conftest import WIDGET_PATH, Server, free_port, widget

SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"


class Backend:
    """An HTTPS server that answers webhooks and an aggregated group."""

    def __init__(self, directory, front_proxy_ca) -> None:
        self.ca = pki.authority("backend", datetime.now(UTC), timedelta(days=1))
        self.port = free_port()
        self.seen: list[dict] = []
        self.answers: dict = {}
        names = ["127.0.0.1", "backend.default.svc"]
        pair = pki.issue(self.ca, "backend", names, datetime.now(UTC), timedelta(days=1))
        (directory / "key").write_text(pair.key_pem)
        (directory / "crt").write_text(pair.certificate_pem)
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=front_proxy_ca)
        self.tls.load_cert_chain(directory / "crt", directory / "key")
        self.tls.verify_mode = ssl.CERT_OPTIONAL
        self.bundle = base64.b64encode(self.ca.certificate_pem.encode()).decode()
        self.started = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.started.wait(60)

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.setup())
        self.loop.run_forever()

    async def setup(self) -> None:
        app = web.Application()
        app.router.add_post("/{hook}", self.hook)
        app.router.add_get("/apis/sub.example.io/v1", self.resources)
        app.router.add_route("*", "/apis/sub.example.io/v1/{rest:.*}", self.aggregated)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, ssl_context=self.tls).start()
        self.started.set()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(60)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(60)

    async def hook(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.seen.append(review["request"])
        answer = self.answers.get(request.match_info["hook"], {})
        if "sleep" in answer:
            await asyncio.sleep(answer["sleep"])
        response = {"uid": review["request"]["uid"], "allowed": True, **answer}
        return web.json_response({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})

    async def resources(self, request: web.Request) -> web.Response:
        one = {"name": "things", "singularName": "thing", "namespaced": True, "kind": "Thing", "verbs": ["get"]}
        body = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "sub.example.io/v1", "resources": [one]}
        return web.json_response(body)

    async def aggregated(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade"):
            if refusal := self.answers.get(request.path.rpartition("/")[2]):
                return web.Response(status=409, **refusal)
            socket = web.WebSocketResponse(protocols=("plain.kubevirt.io",))
            await socket.prepare(request)
            async for message in socket:
                await socket.send_bytes(b"echo " + message.data)
            return socket
        if request.method == "PUT":
            return web.Response(status=202)
        if request.method == "DELETE":
            # Done, and then the connection breaks.
            request.transport.abort()
        certificate = request.transport.get_extra_info("peercert")
        subject = dict(part[0] for part in certificate["subject"]) if certificate else {}
        headers = request.headers
        body = {
            "user": headers["X-Remote-User"],
            "groups": headers.getall("X-Remote-Group"),
            "path": request.path_qs,
            "client": subject.get("commonName"),
            "authorization": headers.get("Authorization"),
            "more": {name: headers[name] for name in headers if name.startswith(("X-Remote-Extra", "X-Remote-Ui"))},
            "protocols": headers.get("Sec-WebSocket-Protocol"),
        }
        return web.json_response(body)


@pytest.fixture
def backend(server: Server, tmp_path) -> Iterator[Backend]:
    one = Backend(tmp_path, str(server.config / "pki/front-proxy-ca.crt"))
    subsets = [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": one.port}]}]
    server.call("DELETE", "/api/v1/namespaces/default/endpoints/backend")
    endpoints = {"metadata": {"name": "backend"}, "subsets": subsets}
    assert server.call("POST", "/api/v1/namespaces/default/endpoints", endpoints)[0] == 201
    yield one
    for plural in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
        server.call("DELETE", f"{CONFIGURATIONS}/{plural}/test")
    server.call("DELETE", "/apis/apiregistration.k8s.io/v1/apiservices/v1.sub.example.io")
    one.stop()


def configure(server: Server, backend: Backend, kind: str, **changes: object) -> None:
    rule = {"apiGroups": ["example.io"], "apiVersions": ["v1"], "resources": ["widgets"], "operations": ["*"]}
    name = kind.lower()
    webhook = {
        "name": f"{name}.test.example.io",
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": f"https://127.0.0.1:{backend.port}/{name}", "caBundle": backend.bundle},
        **changes,
    }
    body = {"metadata": {"name": "test"}, "webhooks": [webhook]}
    code, status = server.call("POST", f"{CONFIGURATIONS}/{name}webhookconfigurations", body)
    assert code == 201, status


def test_mutating_webhook_patches_in_its_version(server: Server, backend: Backend) -> None:
    patch = base64.b64encode(json.dumps([{"op": "add", "path": "/spec/replicas", "value": 7}]).encode()).decode()
    backend.answers["mutating"] = {"patchType": "JSONPatch", "patch": patch, "warnings": ["mind"]}
    configure(server, backend, "Mutating")
    path = WIDGET_PATH.replace("v1", "v1alpha3")
    body = {**widget("mutated"), "apiVersion": "example.io/v1alpha3"}
    code, headers, raw = server.raw("POST", path, body)
    made = json.loads(raw)
    assert (code, made["spec"]["replicas"], made["apiVersion"]) == (201, 7, "example.io/v1alpha3")
    assert headers["Warning"] == '299 - "mind"'
    request = backend.seen[0]
    assert (request["operation"], request["kind"]["version"], request["requestKind"]["version"]) == (
        "CREATE",
        "v1",
        "v1alpha3",
    )
    assert request["object"]["apiVersion"] == "example.io/v1"
    assert request["userInfo"]["username"] == "admin"
    server.call("DELETE", f"{WIDGET_PATH}/mutated")
    assert backend.seen[-1]["operation"] == "DELETE"
    assert backend.seen[-1]["oldObject"]["metadata"]["name"] == "mutated"


def test_validating_webhook_by_service_refuses_with_its_status(server: Server, backend: Backend) -> None:
    service = {"namespace": "default", "name": "backend", "path": "/validating"}
    configure(server, backend, "Validating", clientConfig={"service": service, "caBundle": backend.bundle})
    causes = [{"reason": "FieldValueInvalid", "message": "no", "field": "spec.size"}]
    status = {"code": 422, "reason": "Invalid", "message": "no such size", "details": {"causes": causes}}
    backend.answers["validating"] = {"allowed": False, "status": status}
    code, found = server.call("POST", WIDGET_PATH, widget("refused"))
    assert (code, found["reason"], found["details"]["causes"]) == (422, "Invalid", causes)
    text = 'admission webhook "validating.test.example.io" denied the request: no such size'
    assert found["message"] == text
    assert server.call("GET", f"{WIDGET_PATH}/refused")[0] == 404


def test_webhook_is_asked_about_connections(server: Server, backend: Backend) -> None:
    pods = "/api/v1/namespaces/default/pods"
    pod = {"metadata": {"name": "reached"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i:1"}]}}
    assert server.call("POST", pods, pod)[0] == 201
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"], "operations": ["CONNECT"]}
    configure(server, backend, "Validating", rules=[rule])
    backend.answers["validating"] = {"allowed": False, "status": {"code": 403, "message": "not here"}}
    code, found = server.call("POST", f"{pods}/reached/exec?command=id&command=-u&stdout=1&container=c")
    assert (code, found["message"]) == (
        403,
        'admission webhook "validating.test.example.io" denied the request: not here',
    )
    (request,) = backend.seen
    assert (request["operation"], request["subResource"], request["name"]) == ("CONNECT", "exec", "reached")
    assert request["kind"] == {"group": "", "version": "v1", "kind": "PodExecOptions"}
    assert request["resource"]["resource"] == "pods"
    assert request["object"]["command"] == ["id", "-u"]
    server.call("DELETE", f"{pods}/reached?gracePeriodSeconds=0")


@pytest.mark.parametrize(("policy", "code"), [("Fail", 500), ("Ignore", 201)])
def test_hanging_webhook_obeys_timeout_and_failure_policy(
    server: Server, backend: Backend, policy: str, code: int
) -> None:
    backend.answers["validating"] = {"sleep": 5}
    configure(server, backend, "Validating", failurePolicy=policy, timeoutSeconds=1)
    name = f"hung-{policy.lower()}"
    found, status = server.call("POST", WIDGET_PATH, widget(name), timeout=4)
    assert found == code
    if policy == "Fail":
        assert 'failed calling webhook "validating.test.example.io"' in status["message"]


def test_selectors_of_a_webhook(server: Server, backend: Backend) -> None:
    configure(server, backend, "Validating", objectSelector={"matchLabels": {"app": "other"}})
    server.call("POST", WIDGET_PATH, widget("unseen"))
    assert backend.seen == []


@pytest.mark.parametrize(
    ("expression", "asked"),
    [
        ("!(request.userInfo.username in ['system:node:a', 'admin'])", False),
        ("!(request.userInfo.username in ['system:node:a', 'administrator'])", True),
        ("request.userInfo.username != 'admin'", False),
    ],
)
def test_users_a_webhook_is_not_asked_about(server: Server, backend: Backend, expression: str, asked: bool) -> None:
    configure(server, backend, "Validating", matchConditions=[{"name": "others", "expression": expression}])
    server.call("POST", WIDGET_PATH, widget("conditional"))
    server.call("DELETE", f"{WIDGET_PATH}/conditional")
    assert bool(backend.seen) is asked


def register(server: Server, backend: Backend) -> None:
    spec = {
        "group": "sub.example.io",
        "version": "v1",
        "groupPriorityMinimum": 1000,
        "versionPriority": 15,
        "service": {"namespace": "default", "name": "backend"},
        "caBundle": backend.bundle,
    }
    body = {"metadata": {"name": "v1.sub.example.io"}, "spec": spec}
    assert server.call("POST", "/apis/apiregistration.k8s.io/v1/apiservices", body)[0] == 201
    server.until(lambda: available(server) == ["True"])


def test_aggregation(server: Server, backend: Backend) -> None:
    register(server, backend)
    path = "/apis/sub.example.io/v1/namespaces/default/things/x?a=b%2Fc"
    code, found = server.call("GET", path, headers={"X-Remote-User": "root"})
    assert found == {
        "user": "admin",
        "groups": ["system:masters", "system:authenticated"],
        "path": path,
        "client": "front-proxy-client",
        "authorization": None,
        "more": {},
        "protocols": None,
    }
    somebody = {
        "Impersonate-User": "jane",
        "Impersonate-Group": "system:masters",
        "Impersonate-Uid": "u1",
        "Impersonate-Extra-example.io%2Fscopes": "a",
    }
    found = server.call("GET", path, headers=somebody)[1]
    assert (found["user"], found["more"]) == ("jane", {"X-Remote-Uid": "u1", "X-Remote-Extra-example.io%2Fscopes": "a"})
    code, _, raw = server.raw("PUT", "/apis/sub.example.io/v1/namespaces/default/things/x/start", {})
    assert (code, raw) == (202, b"")
    code, listed = server.call("GET", "/apis/sub.example.io/v1")
    assert listed["resources"][0]["name"] == "things"
    assert "sub.example.io" in [group["name"] for group in server.call("GET", "/apis")[1]["groups"]]
    node = server.token("podrunner")
    assert server.call("GET", path, token=node)[0] == 403
    assert "True" in available(server)
    server.call("DELETE", "/api/v1/namespaces/default/endpoints/backend")
    server.until(lambda: "False" in available(server))


def test_token_in_a_subprotocol_is_for_websockets_only(server: Server) -> None:
    token = base64.urlsafe_b64encode(server.token().encode()).decode().rstrip("=")
    headers = {"Sec-WebSocket-Protocol": f"base64url.bearer.authorization.k8s.io.{token}"}
    assert server.call("GET", "/api/v1/nodes", token="", headers=headers)[0] == 403


def test_address_with_a_host_reaches_the_service(server: Server, backend: Backend) -> None:
    """RFC 9112, section 3.2.2: a server must accept the absolute form."""
    register(server, backend)
    path = "/apis/sub.example.io/v1/namespaces/default/things/x?a=b"
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.tls, timeout=60)
    with contextlib.closing(connection):
        headers = {"Authorization": f"Bearer {server.token()}"}
        connection.request("GET", f"http://elsewhere.example{path}", headers=headers)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["path"]) == (200, path)


def available(server: Server) -> list[str]:
    _, obj = server.call("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.sub.example.io")
    conditions = obj.get("status", {}).get("conditions", [])
    return [one["status"] for one in conditions if one["type"] == "Available"]


async def test_aggregated_websocket(server: Server, backend: Backend) -> None:
    await asyncio.to_thread(register, server, backend)
    url = f"https://127.0.0.1:{server.port}/apis/sub.example.io/v1/namespaces/default/things/x/vnc"
    headers = {"Authorization": f"Bearer {server.token()}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, ssl=server.tls, headers=headers, protocols=["plain.kubevirt.io"]) as socket,
    ):
        assert socket.protocol == "plain.kubevirt.io"
        await socket.send_bytes(b"\x00\xff")
        message = await socket.receive(5)
        assert (message.type, message.data) == (WSMsgType.BINARY, b"echo \x00\xff")


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        (
            {"body": b'{"kind": "Status", "reason": "AlreadyExists", "message": "VMI is paused"}'},
            "AlreadyExists",
            "VMI is paused",
        ),
        ({"text": "not a Status"}, "Conflict", "Invalid response status"),
        ({"body": b"{}"}, "Conflict", "Invalid response status"),
    ],
)
async def test_a_refused_websocket_is_explained(server: Server, backend: Backend, answer, reason, message) -> None:
    await asyncio.to_thread(register, server, backend)
    backend.answers["console"] = answer
    url = f"https://127.0.0.1:{server.port}/apis/sub.example.io/v1/namespaces/default/things/x/console"
    headers = {
        "Authorization": f"Bearer {server.token()}",
        **{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode(),
    }
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, ssl=server.tls, headers=headers) as refused,
    ):
        status = await refused.json()
        assert (refused.status, status["code"], status["kind"]) == (409, 409, "Status")
        assert (status["reason"], status["message"]) == (reason, message)


def test_aggregation_without_backend_is_unavailable(server: Server, backend: Backend) -> None:
    register(server, backend)
    server.call("DELETE", "/api/v1/namespaces/default/endpoints/backend")
    path = "/apis/sub.example.io/v1/namespaces/default/things/x"
    code, status = server.call("GET", path)
    assert (code, status["reason"]) == (503, "ServiceUnavailable")
    assert server.raw("GET", path)[1]["Retry-After"] == "1"
    assert server.call("GET", "/apis")[0] == 200


def test_nothing_is_passed_on_to_a_service_that_is_not_available(server: Server, backend: Backend) -> None:
    """What kube-aggregator's proxy goes by is the condition Available alone."""
    register(server, backend)
    path = f"{SERVICES}/v1.sub.example.io"
    assert server.call("GET", "/apis/sub.example.io/v1/namespaces/default/things/x")[0] == 200
    # Names a port that the Service doesn't have, though its Endpoints are reached whatever their port is.
    port = {"spec": {"ports": [{"port": 443}]}}
    server.call("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": "backend"}, **port})
    merge = "application/merge-patch+json"
    server.call("PATCH", path, {"spec": {"service": {"port": 444}}}, merge)
    try:
        server.until(lambda: available(server) == ["False"])
        for one in ("/apis/sub.example.io/v1/namespaces/default/things/x", "/apis/sub.example.io/v1"):
            code, headers, raw = server.raw("GET", one)
            assert (code, json.loads(raw)["reason"], headers["Retry-After"]) == (503, "ServiceUnavailable", "1"), one
        server.call("PATCH", path, {"spec": {"service": {"port": 443}}}, merge)
        server.call("DELETE", "/api/v1/namespaces/default/services/backend")
        server.until(lambda: available(server) == ["True"])
        assert server.call("GET", "/apis/sub.example.io/v1/namespaces/default/things/x")[0] == 200
    finally:
        server.call("DELETE", "/api/v1/namespaces/default/services/backend")


def test_a_webhook_whose_certificates_are_none_fails_when_it_is_called(server: Server, backend: Backend) -> None:
    client = {"url": f"https://127.0.0.1:{backend.port}/validating", "caBundle": "AAAA"}
    configure(server, backend, "Validating", clientConfig=client)
    code, status = server.call("POST", WIDGET_PATH, widget("uncertified"))
    assert (code, status["message"]) == (
        500,
        'Internal error occurred: failed calling webhook "validating.test.example.io": could not get REST client: '
        "unable to load root certificates: unable to parse bytes as PEM block",
    )


def test_what_a_service_may_have_done_is_not_to_be_repeated(server: Server, backend: Backend) -> None:
    register(server, backend)
    code, headers, _ = server.raw("DELETE", "/apis/sub.example.io/v1/namespaces/default/things/x")
    assert (code, "Retry-After" in headers) == (503, False)


def test_bad_requests_and_services_are_told(server: Server, backend: Backend) -> None:
    register(server, backend)
    code, status = server.call("PUT", "/apis/sub.example.io/v1/namespaces/default/things/x", b"x" * (4 << 20))
    assert (code, status["reason"]) == (413, "RequestEntityTooLarge")
    bundle = {"spec": {"caBundle": base64.b64encode(b"no certificate").decode()}}
    server.call("PATCH", f"{SERVICES}/v1.sub.example.io", bundle, "application/merge-patch+json")
    accept = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    assert server.call("GET", "/apis", headers=accept)[0] == 200
    assert server.call("GET", "/apis/sub.example.io/v1")[0] == 503
