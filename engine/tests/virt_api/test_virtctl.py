# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests as KubeVirt's virtctl makes them: paths, bodies without Content-Type, and the answers that it relies on.

Taken from virtctl's client library (kubevirt.io/client-go). What it sends over WebSockets is in `test_streams`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from turtles.kube.kubevirt import VM, VMI
from turtles.kube.resources import PVC
from turtles.virt_api import subresources

from .fakes import FakeClient
from .test_instances import FakeNodes, vmi
from .test_server import JANE, Rig, front_proxy

GROUP = "/apis/subresources.kubevirt.io"
IN_NAMESPACE = f"{GROUP}/v1/namespaces/default"
MACHINE, INSTANCE = f"{IN_NAMESPACE}/virtualmachines/vmi", f"{IN_NAMESPACE}/virtualmachineinstances/vmi"

USERS = {"metadata": {}, "items": [{"userName": "root", "loginTime": 1.5}]}
FILESYSTEMS = {"metadata": {}, "items": [{"diskName": "vda1", "mountPoint": "/"}]}
INFO = {"guestAgentVersion": "9.2.0", "hostname": "web"}

CLAIM = {"persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}}
DATA_VOLUME = {"dataVolume": {"name": "data", "hotpluggable": True}}
DISK = {"disk": {"bus": "scsi"}, "name": "", "serial": "data"}


def stored(strategy: str = "Always", *conditions: str) -> FakeClient:
    """A running machine and a claim."""
    instance = vmi("Running", "AgentConnected", *conditions)
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "vmi", "uid": "m", "controller": True}
    instance["metadata"]["ownerReferences"] = [owner]
    instance["spec"] = {"domain": {"devices": {}, "memory": {"guest": "64Mi"}}}
    machine = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"namespace": "default", "name": "vmi", "uid": "m"},
        "spec": {"runStrategy": strategy, "template": {"spec": {"domain": {"devices": {}}}}},
    }
    claim = {
        "metadata": {"namespace": "default", "name": "data"},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
    }
    return FakeClient((VM, machine), (VMI, instance), (PVC, claim))


class Virtctl:
    """virtctl behind the API server."""

    def __init__(self, url: str, session: aiohttp.ClientSession, tls: Any, client: FakeClient) -> None:
        self._url, self._session, self._tls, self.client = url, session, tls, client

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        headers = {**JANE, "Accept": "application/json, */*", "User-Agent": "virtctl/v1.9.0"}
        request = self._session.request(
            method, self._url + path, data=data, headers=headers, ssl=self._tls, skip_auto_headers=["Content-Type"]
        )
        async with request as answer:
            return answer.status, await answer.read()


@asynccontextmanager
async def virtctl(tmp_path: Path, client: FakeClient) -> AsyncIterator[Virtctl]:
    rig = Rig()
    rig.client = client
    rig.server._client = client  # type: ignore[assignment]
    nodes = FakeNodes(userlist=USERS, filesystemlist=FILESYSTEMS, guestosinfo=INFO)
    rig.server._handlers = subresources.handlers(client, nodes)  # type: ignore[arg-type]
    identity, trusted = front_proxy(tmp_path)
    rig.server.trust(trusted)
    async with rig.run() as url, aiohttp.ClientSession() as session:
        yield Virtctl(url, session, rig.client_context(identity), client)


@pytest.mark.parametrize(
    ("command", "strategy", "conditions", "path", "body", "code"),
    [
        ("start", "Halted", (), f"{MACHINE}/start", {}, 409),
        ("stop", "Always", (), f"{MACHINE}/stop", {}, 202),
        ("stop --grace-period=0 --force", "Always", (), f"{MACHINE}/stop", {"gracePeriod": 0}, 202),
        ("stop --dry-run", "Manual", (), f"{MACHINE}/stop", {"dryRun": ["All"]}, 202),
        ("restart", "Always", (), f"{MACHINE}/restart", {}, 202),
        ("restart --force --grace-period=0", "Manual", (), f"{MACHINE}/restart", {"gracePeriodSeconds": 0}, 202),
        ("pause", "Always", (), f"{INSTANCE}/pause", {}, 200),
        ("pause --dry-run", "Always", (), f"{INSTANCE}/pause", {"dryRun": ["All"]}, 200),
        ("unpause", "Always", ("Paused",), f"{INSTANCE}/unpause", {}, 200),
        ("soft-reboot", "Always", (), f"{INSTANCE}/softreboot", None, 200),
        ("reset", "Always", (), f"{INSTANCE}/reset", None, 200),
        (
            "addvolume",
            "Always",
            (),
            f"{MACHINE}/addvolume",
            {"name": "data", "disk": DISK, "volumeSource": CLAIM},
            202,
        ),
        (
            "addvolume, of a DataVolume",
            "Always",
            (),
            f"{MACHINE}/addvolume",
            {"name": "data", "disk": {**DISK, "cache": "none"}, "volumeSource": DATA_VOLUME, "dryRun": ["All"]},
            202,
        ),
        (
            "addvolume, of an instance",
            "Always",
            (),
            f"{INSTANCE}/addvolume",
            {"name": "data", "disk": DISK, "volumeSource": CLAIM},
            202,
        ),
        ("removevolume, of what isn't there", "Always", (), f"{MACHINE}/removevolume", {"name": "data"}, 409),
        ("memory-dump get", "Always", (), f"{MACHINE}/memorydump", {"claimName": "data", "phase": ""}, 202),
        ("memory-dump remove, without one", "Always", (), f"{MACHINE}/removememorydump", None, 409),
        ("freeze", "Always", (), f"{INSTANCE}/freeze", {"unfreezeTimeout": "0s"}, 200),
        ("unfreeze", "Always", (), f"{INSTANCE}/unfreeze", None, 200),
        ("evacuate-cancel vm", "Always", (), f"{MACHINE}/evacuate/cancel", {"evacuationNodeName": "n"}, 200),
        ("evacuate-cancel vmi", "Always", (), f"{INSTANCE}/evacuate/cancel", {"evacuationNodeName": "n"}, 200),
    ],
)
async def test_commands(
    tmp_path: Path, command: str, strategy: str, conditions: tuple[str, ...], path: str, body: Any, code: int
) -> None:
    async with virtctl(tmp_path, stored(strategy, *conditions)) as client:
        status, answer = await client.ask("PUT", path, body)
        assert (status, answer) == (code, b"") if code < 300 else status == code, answer
        if code >= 300:
            found = json.loads(answer)
            assert (found["kind"], found["apiVersion"], found["code"]) == ("Status", "v1", code)
        (review,) = client.client.reviews
        plural, _, subresource = path.removeprefix(f"{IN_NAMESPACE}/").split("/", 2)
        wanted = (plural, subresource, "update")
        attributes = review["resourceAttributes"]
        assert (attributes["resource"], attributes["subresource"], attributes["verb"]) == wanted


@pytest.mark.parametrize(
    ("command", "path", "expected"),
    [
        ("guestosinfo", f"{INSTANCE}/guestosinfo", INFO),
        ("userlist", f"{INSTANCE}/userlist", USERS),
        ("fslist", f"{INSTANCE}/filesystemlist", FILESYSTEMS),
    ],
)
async def test_what_the_guest_says(tmp_path: Path, command: str, path: str, expected: Any) -> None:
    async with virtctl(tmp_path, stored()) as client:
        status, answer = await client.ask("GET", path)
        assert (status, json.loads(answer)) == (200, expected)


async def test_a_machine_with_all_that_it_has(tmp_path: Path) -> None:
    async with virtctl(tmp_path, stored()) as client:
        status, answer = await client.ask("GET", f"{MACHINE}/expand-spec")
        assert (status, json.loads(answer)["kind"]) == (200, "VirtualMachine")
        status, answer = await client.ask("PUT", f"{IN_NAMESPACE}/expand-vm-spec", json.loads(answer))
        assert (status, json.loads(answer)["kind"]) == (200, "VirtualMachine")


async def test_version_is_that_of_the_preferred_version(tmp_path: Path) -> None:
    async with virtctl(tmp_path, stored()) as client:
        status, answer = await client.ask("GET", GROUP)
        group = json.loads(answer)
        assert (status, group["kind"], group["preferredVersion"]["version"]) == (200, "APIGroup", "v1")
        status, answer = await client.ask("GET", f"/apis/{group['preferredVersion']['groupVersion']}/version")
        assert set(json.loads(answer)) == {
            *("gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform")
        }
        status, answer = await client.ask("GET", f"{GROUP}/v1/guestfs")
        assert set(json.loads(answer)) >= {"registry", "tag", "imagePrefix"}
        assert client.client.reviews == [], "everybody may see these"
