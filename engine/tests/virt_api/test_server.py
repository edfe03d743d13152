# SPDX-License-Identifier: GPL-3.0-or-later
"""The server over TLS, as the API server talks to it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from api.objects import talk_vm

from turtles import pki
from turtles.api.kind import Subresource
from turtles.api.kinds import KINDS
from turtles.api.kinds.vm import VM as VM_KIND
from turtles.api.kinds.vmi import VMI as VMI_KIND
from turtles.kube.kubevirt import VM
from turtles.virt_api import admission, certificates, discovery, manifests
from turtles.virt_api import server as server_module
from turtles.virt_api.authentication import FrontProxy
from turtles.virt_api.main import _command
from turtles.virt_api.server import Server, new_context

from .fakes import FakeClient

VM_URL = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/vm"
JANE = {"X-Remote-User": "jane", "X-Remote-Group": "people"}


class Rig:
    """A running server, and sessions of an API server (with its front proxy's certificate) and of a stranger."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        self.client = FakeClient(
            (VM, {"metadata": {"namespace": "default", "name": "vm"}, "spec": {"running": False}}),
        )
        self.ready = True
        self.context = new_context()
        self.serving = certificates.make(["127.0.0.1"], now)
        certificates.load(self.context, self.serving)
        # As a certificate for servers isn't one for clients, the proxy's is of a chain of its own
        self.server = Server(
            self.client,  # type: ignore[arg-type]
            admission.Admission(admission.engine_users("kubevirt")),
            self.context,
            lambda: self.ready,
        )

    @asynccontextmanager
    async def run(self):
        runner = self.server.runner()
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.context)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        try:
            yield f"https://127.0.0.1:{port}"
        finally:
            await runner.cleanup()

    def client_context(self, identity: str = "") -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.serving.bundle)
        if identity:
            context.load_cert_chain(identity)
        return context


def front_proxy(tmp_path: Path) -> tuple[str, FrontProxy]:
    """Make a client certificate, and what trusts it."""
    now = datetime.now(UTC)
    authority = pki.authority("front-proxy-ca", now, timedelta(days=1))
    client = pki.issue(authority, "front-proxy-client", [], now, timedelta(days=1), client=True)
    path = tmp_path / "client.pem"
    path.write_text(client.certificate_pem + client.key_pem)
    data = {"requestheader-client-ca-file": authority.certificate_pem}
    data["requestheader-allowed-names"] = '["front-proxy-client"]'
    return str(path), FrontProxy.from_configmap({"data": data})


async def test_subresources_for_whom_the_front_proxy_names(tmp_path):
    rig = Rig()
    identity, trusted = front_proxy(tmp_path)
    rig.server.trust(trusted)
    async with rig.run() as url, aiohttp.ClientSession() as session:
        tls = rig.client_context(identity)
        async with session.put(f"{url}{VM_URL}/start", data=b"", headers=JANE, ssl=tls) as answer:
            assert (answer.status, await answer.read()) == (202, b"")
        assert rig.client.patches[0][1]["spec"] == {"running": True}
        review = rig.client.reviews[0]
        assert (review["user"], review["groups"]) == ("jane", ["people"])
        assert review["resourceAttributes"] == {
            "group": "subresources.kubevirt.io",
            "version": "v1",
            "namespace": "default",
            "resource": "virtualmachines",
            "subresource": "start",
            "name": "vm",
            "verb": "update",
        }
        async with session.put(f"{url}{VM_URL}/stop", data=b"{}", headers=JANE, ssl=tls) as answer:
            found = await answer.json()
            assert (answer.status, found["kind"], found["reason"]) == (409, "Status", "Conflict")
        async with session.put(f"{url}{VM_URL}/stop", data=b"{", headers=JANE, ssl=tls) as answer:
            assert answer.status == 400
        async with session.get(f"{url}{VM_URL}/start", headers=JANE, ssl=tls) as answer:
            assert answer.status == 405
        async with session.put(f"{url}{VM_URL}/fly", headers=JANE, ssl=tls) as answer:
            found = await answer.json()
            assert (answer.status, found["message"]) == (404, "the server could not find the requested resource")
        rig.client.allowed = False
        async with session.put(f"{url}{VM_URL}/start", headers=JANE, ssl=tls) as answer:
            found = await answer.json()
            assert answer.status == 403
            assert 'User "jane" cannot update resource "virtualmachines/start"' in found["message"]
        # The server stops trusting the proxy without having to be started again
        rig.server.trust(FrontProxy())
        async with session.put(f"{url}{VM_URL}/start", headers=JANE, ssl=tls) as answer:
            assert answer.status == 401


async def test_machines_of_one_namespace_that_are_waited_for_leave_places_for_others(tmp_path, monkeypatch):
    rig = Rig()
    identity, trusted = front_proxy(tmp_path)
    rig.server.trust(trusted)
    go_on = threading.Event()

    def start(namespace: str, name: str, options: dict[str, Any]) -> None:
        assert namespace != "default" or go_on.wait(30)

    monkeypatch.setitem(rig.server._handlers, "start_vm", start)
    async with rig.run() as url, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tls = rig.client_context(identity)

        async def ask(namespace: str) -> int:
            path = VM_URL.replace("/default/", f"/{namespace}/")
            async with session.put(f"{url}{path}/start", data=b"", headers=JANE, ssl=tls) as answer:
                return answer.status

        waiting = [asyncio.ensure_future(ask("default")) for _ in range(100)]
        try:
            async with asyncio.timeout(20):
                assert [await ask("other") for _ in range(3)] == [202] * 3
            assert not any(one.done() for one in waiting)
        finally:
            go_on.set()
        assert await asyncio.gather(*waiting) == [202] * 100


async def test_operations_on_what_a_client_sends(tmp_path):
    rig = Rig()
    identity, trusted = front_proxy(tmp_path)
    rig.server.trust(trusted)
    path = "/apis/subresources.kubevirt.io/v1/namespaces/default/expand-vm-spec"
    async with rig.run() as url, aiohttp.ClientSession() as session:
        tls = rig.client_context(identity)
        vm = {**talk_vm(), "metadata": {"name": "vm", "namespace": "default"}}
        async with session.put(f"{url}{path}", json=vm, headers=JANE, ssl=tls) as answer:
            assert (answer.status, await answer.json()) == (200, vm)
        assert rig.client.reviews[0]["resourceAttributes"] == {
            "group": "subresources.kubevirt.io",
            "version": "v1",
            "namespace": "default",
            "resource": "expand-vm-spec",
            "subresource": "",
            "name": "",
            "verb": "update",
        }
        async with session.put(f"{url}{path}", json={"spec": {}}, headers=JANE, ssl=tls) as answer:
            found = await answer.json()
            assert (answer.status, found["message"]) == (400, "Object is not a valid VirtualMachine")
            assert found["details"]["causes"] == [
                {
                    "reason": "FieldValueRequired",
                    "message": "missing virtual machine template.",
                    "field": "spec.template",
                }
            ]
        async with session.get(f"{url}{path}", headers=JANE, ssl=tls) as answer:
            assert answer.status == 405
        async with session.put(f"{url}{path}x", json=vm, headers=JANE, ssl=tls) as answer:
            assert answer.status == 404
        async with session.put(f"{url}{path}", json=vm, ssl=tls) as answer:
            assert answer.status == 401
        rig.client.allowed = False
        async with session.put(f"{url}{path}", json=vm, headers=JANE, ssl=tls) as answer:
            found = await answer.json()
            assert answer.status == 403
            assert 'User "jane" cannot update resource "expand-vm-spec"' in found["message"]


async def test_a_subresource_is_that_of_its_kind_and_answers_what_the_kind_says(tmp_path, monkeypatch):
    monkeypatch.setitem(
        discovery.SUBRESOURCES, "virtualmachines/addvolume", (VM_KIND, Subresource("addvolume", handler="to_vm"))
    )
    info = Subresource("addvolume", handler="to_vmi", verb="get", code=200, body=True)
    monkeypatch.setitem(discovery.SUBRESOURCES, "virtualmachineinstances/addvolume", (VMI_KIND, info))
    rig = Rig()
    calls: list[str] = []
    rig.server._handlers = {
        "to_vm": lambda namespace, name, options: calls.append(f"vm {namespace}/{name}"),
        "to_vmi": lambda namespace, name, options: {"items": [name]},
    }
    identity, trusted = front_proxy(tmp_path)
    rig.server.trust(trusted)
    async with rig.run() as url, aiohttp.ClientSession() as session:
        tls = rig.client_context(identity)
        async with session.put(f"{url}{VM_URL}/addvolume", headers=JANE, ssl=tls) as answer:
            assert (answer.status, await answer.read()) == (202, b"")
        vmi_url = f"{url}{VM_URL}".replace("virtualmachines", "virtualmachineinstances")
        async with session.get(f"{vmi_url}/addvolume", headers=JANE, ssl=tls) as answer:
            assert (answer.status, await answer.json()) == (200, {"items": ["vm"]})
        async with session.put(f"{vmi_url}/addvolume", headers=JANE, ssl=tls) as answer:
            assert answer.status == 405
        async with session.put(f"{vmi_url}/start", headers=JANE, ssl=tls) as answer:
            assert answer.status == 404
    assert calls == ["vm default/vm"]
    assert [review["resourceAttributes"]["resource"] for review in rig.client.reviews] == [
        "virtualmachines",
        "virtualmachineinstances",
    ]


async def test_strangers_may_look_only():
    rig = Rig()
    async with rig.run() as url, aiohttp.ClientSession() as session:
        tls = rig.client_context()
        async with session.put(f"{url}{VM_URL}/start", headers=JANE, ssl=tls) as answer:
            assert (answer.status, (await answer.json())["reason"]) == (401, "Unauthorized")
        group = f"{url}/apis/subresources.kubevirt.io"
        async with session.get(group, ssl=tls) as answer:
            found = await answer.json()
            assert found["preferredVersion"]["version"] == "v1"
        async with session.get(f"{group}/v1alpha3", ssl=tls) as answer:
            found = await answer.json()
            assert found["groupVersion"] == "subresources.kubevirt.io/v1alpha3"
            assert "virtualmachines/start" in [one["name"] for one in found["resources"]]
        async with session.get(f"{group}/v1/version", ssl=tls) as answer:
            assert (await answer.json())["gitVersion"].startswith("v")
        for path in ("/apis", "/openapi/v2", "/openapi/v3", "/healthz", "/apis/subresources.kubevirt.io/v1/healthz"):
            async with session.get(url + path, ssl=tls) as answer:
                assert answer.status == 200, path
        rig.ready = False
        async with session.get(f"{url}/healthz", ssl=tls) as answer:
            assert answer.status == 503
        async with session.get(f"{url}/nothing", ssl=tls) as answer:
            assert (answer.status, (await answer.json())["kind"]) == (404, "Status")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /apis HTTP/1.1\r\nHost: x\r\nX-A: ",
        b"POST /virtualmachines-validate HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    ],
)
async def test_who_does_not_go_on_is_left(monkeypatch, sent):
    """Strangers reach this server, too: a byte now and then keeps no connection."""
    monkeypatch.setattr(server_module, "_IDLE_SECONDS", 0.5)
    monkeypatch.setattr(server_module, "_BODY_SECONDS", 0.5)
    rig = Rig()
    async with rig.run() as url:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=rig.client_context())
        writer.write(sent)

        async def drip() -> None:
            while sent:
                await asyncio.sleep(0.1)
                writer.write(b"a")

        dripping = asyncio.ensure_future(drip())
        try:
            answer = await asyncio.wait_for(reader.read(), 20)
        finally:
            dripping.cancel()
            writer.transport.abort()
        assert b"408" in answer if b"POST" in sent else answer == b""


async def test_webhook_and_new_certificate():
    rig = Rig()
    request = {"uid": "7", "operation": "CREATE", "object": talk_vm(), "userInfo": {"username": "jane"}}
    async with rig.run() as url, aiohttp.ClientSession() as session:
        path = url + "/virtualmachines-validate"
        async with session.post(path, json={"request": request}, ssl=rig.client_context()) as answer:
            assert (await answer.json())["response"]["allowed"]
        async with session.post(path, data=b"[" * 100000, ssl=rig.client_context()) as answer:
            assert answer.status == 400
        rig.serving = certificates.make(["127.0.0.1"], datetime.now(UTC))
        certificates.load(rig.context, rig.serving)
        async with session.post(path, json={"request": request}, ssl=rig.client_context()) as answer:
            assert answer.status == 200


def test_instance_types_of_the_cluster_are_for_everyone_to_see():
    found = {(obj["kind"], obj["metadata"]["name"]): obj for obj in manifests.objects()}
    role = found["ClusterRole", "instancetype.kubevirt.io:view"]
    assert role["rules"] == [
        {
            "apiGroups": ["instancetype.kubevirt.io"],
            "resources": ["virtualmachineclusterinstancetypes", "virtualmachineclusterpreferences"],
            "verbs": ["get", "list", "watch"],
        }
    ]
    binding = found["ClusterRoleBinding", "instancetype.kubevirt.io:view"]
    assert [subject["name"] for subject in binding["subjects"]] == ["system:authenticated"]
    for name in ("admin", "edit", "view"):
        rules = found["ClusterRole", f"kubevirt.io:{name}"]["rules"]
        verbs = {resource: rule["verbs"] for rule in rules for resource in rule["resources"]}
        assert verbs["expand-vm-spec"] == ["update"]
        assert verbs["virtualmachines/expand-spec"] == ["get"]
        assert ("create" in verbs["virtualmachineinstancetypes"]) is (name != "view")


def test_manifests():
    text = manifests.render()
    assert text == manifests.render()
    found = list(yaml.safe_load_all(text))
    assert found[0]["kind"] == "Namespace"
    assert [one["metadata"]["name"] for one in found if one["kind"] == "CustomResourceDefinition"] == [
        kind.crd_name for kind in KINDS
    ]
    roles = [one for one in found if one["kind"] in ("ClusterRole", "Role")]
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], role["metadata"]["name"]
    names = {one["metadata"]["name"] for one in roles}
    assert {"kubevirt.io:view", "kubevirt.io:edit", "kubevirt.io:admin", "kubevirt.io:default"} <= names
    assert len({(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in found}) == len(
        found
    )


def test_options():
    parser = _command().parser
    found = parser.parse_args(["--bind", "127.0.0.1", "--url", "https://127.0.0.1:8443"])
    assert (found.command, found.port, found.namespace) == ("serve", 8443, "kubevirt")
    assert parser.parse_args(["manifests"]).command == "manifests"
