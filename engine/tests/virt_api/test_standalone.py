# SPDX-License-Identifier: GPL-3.0-or-later
"""virt-api as a process, beside a real API server: registration, admission, the aggregated API."""

from __future__ import annotations

import asyncio
import base64
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import yaml
from api.objects import put, talk_vm, talk_vmi
from handler.test_server import Launcher

from turtles.api import labels
from turtles.api.kinds import KINDS
from turtles.handler.consoles import Consoles
from turtles.handler.guest import Guests
from turtles.handler.operations import Operations
from turtles.handler.server import NodeServer
from turtles.handler.state import Store
from turtles.kube.client import MERGE, ApiError, Client, Conflict, Forbidden, Invalid, NotFound
from turtles.kube.kubevirt import KUBEVIRT, POOL, VM, VMI
from turtles.kube.resources import APISERVICE, CRD, MUTATINGWEBHOOK, NODE, SECRET, Resource
from turtles.virt_api import manifests
from turtles.virt_api.names import CERTIFICATES_SECRET, MUTATOR

START = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/{}/{}"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until(check: Any, seconds: float = 60) -> Any:
    """Call until it gives something true; the last exception is raised at the end."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := check():
                return found
        except (ApiError, OSError):
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, "it didn't happen in time"
        time.sleep(0.05)


class Machine:
    """An API server and virt-api; `admin` may do everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.virt_api_port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.config = folder / "etc"
        arguments = ["--config-dir", str(self.config), "--data-dir", str(folder / "data")]
        self.address = [*arguments, "--bind", "127.0.0.1", "--port", str(self.port)]
        subprocess.run(self.command("turtles.standalone.main", "init", *self.address), check=True, capture_output=True)
        self.run("apiserver", "turtles.standalone.main", "apiserver", *self.address)
        self.admin = Client.from_kubeconfig(str(self.config / "admin.kubeconfig"))
        until(lambda: self.admin.request("GET", "/api/v1/namespaces/default"))
        for obj in manifests.objects():
            group, _, version = obj["apiVersion"].rpartition("/")
            kind = obj["kind"]
            namespaced = kind in ("ServiceAccount", "Role", "RoleBinding")
            resource = Resource(group, version, kind, kind.lower() + "s", namespaced)
            self.admin.create(resource, obj)
        until(lambda: len(self.admin.list(CRD)["items"]) == len(KINDS) and self.admin.list(VM))
        self.start_virt_api()

    def command(self, module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", module, *arguments]

    def run(self, name: str, module: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(self.command(module, *arguments), stderr=log, stdout=log)

    def start_virt_api(self) -> None:
        self.run(
            "virt-api",
            "turtles.virt_api.main",
            f"--kubeconfig={self.config / 'virt-api.kubeconfig'}",
            "--bind=127.0.0.1",
            f"--port={self.virt_api_port}",
            f"--url=https://127.0.0.1:{self.virt_api_port}",
        )
        until(lambda: self.fetch("/healthz") == "ok")

    def fetch(self, path: str) -> str:
        context = ssl._create_unverified_context()
        url = f"https://127.0.0.1:{self.virt_api_port}{path}"
        with urllib.request.urlopen(url, context=context, timeout=30) as answer:
            return str(answer.read().decode())

    def certificate(self) -> str:
        return ssl.get_server_certificate(("127.0.0.1", self.virt_api_port))

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(60)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    found = Machine(tmp_path_factory.mktemp("machine"))
    try:
        yield found
    finally:
        for name in list(found.processes):
            found.stop(name)


def vm(name: str, **spec: Any) -> dict[str, Any]:
    obj = put(talk_vm(), "metadata", {"name": name, "namespace": "default"})
    obj["spec"].update(spec)
    return obj


def test_talk_vm_in_its_own_version(machine):
    path = "/apis/kubevirt.io/v1alpha3/namespaces/default/virtualmachines"
    created = machine.admin.request("POST", path, body=vm("talk"))
    assert created["spec"]["running"] is False
    stored = machine.admin.get(VM, "default", "talk")
    assert stored["apiVersion"] == "kubevirt.io/v1"
    assert stored["spec"]["template"]["spec"]["domain"]["machine"] == {"type": "q35"}


def test_a_pool_in_both_of_its_versions(machine):
    path = "/apis/pool.kubevirt.io/{}/namespaces/default/virtualmachinepools"
    pool = {"apiVersion": "pool.kubevirt.io/v1alpha1", "kind": "VirtualMachinePool", "metadata": {"name": "web"}}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": talk_vm()["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "virtualMachineTemplate": template}
    machine.admin.request("POST", path.format("v1alpha1"), body={**pool, "spec": spec})
    assert machine.admin.get(POOL, "default", "web")["apiVersion"] == "pool.kubevirt.io/v1beta1"
    scale = f"{path.format('v1beta1')}/web/scale"
    machine.admin.request("PATCH", scale, body={"spec": {"replicas": 4}}, content_type=MERGE)
    assert machine.admin.get(POOL, "default", "web")["spec"]["replicas"] == 4
    for change, message in (
        ({"selector": {"matchLabels": {"app": None}}}, "selector is immutable after creation."),
        ({"maxUnavailable": "half"}, "maxUnavailable percentage must end with %"),
        ({"updateStrategy": {"proactive": {"selectionPolicy": {"sortPolicy": "Best"}}}}, 'Unsupported value: "Best"'),
        ({"replicas": -1}, "should be greater than or equal to 0"),
    ):
        with pytest.raises(Invalid, match=message):
            machine.admin.patch(POOL, "default", "web", {"spec": change})


def test_bad_vm(machine):
    bad = put(vm("bad"), "spec.template.spec.volumes.1.cloudInitNoCloud.userDataBase64", "no")
    with pytest.raises(Invalid, match="userDataBase64 is not a valid base64 value") as found:
        machine.admin.create(VM, {**bad, "apiVersion": "kubevirt.io/v1"})
    assert found.value.details["causes"][0]["field"].endswith("userDataBase64")
    with pytest.raises(NotFound):
        machine.admin.get(VM, "default", "bad")
    refused = put(vm("bad"), "spec.template.spec.domain.launchSecurity", {"sev": {"attestation": {}}})
    with pytest.raises(Invalid, match="SEV attestation requires VMI StartStrategy 'Paused'"):
        machine.admin.create(VM, {**refused, "apiVersion": "kubevirt.io/v1"})
    # Fields of long ago are pruned by the schema, and then something is missing
    old = put(vm("bad"), "spec.template.spec.volumes.0", {"name": "containerdisk", "registryDisk": {"image": "x"}})
    with pytest.raises(Invalid, match=r"volumes\[0\] must have exactly one source type set"):
        machine.admin.create(VM, {**old, "apiVersion": "kubevirt.io/v1"})


def test_vmi_belongs_to_the_engine(machine):
    created = machine.admin.create(VMI, {**talk_vmi(), "metadata": {"name": "one", "namespace": "default"}})
    assert created["status"]["phase"] == "Pending"
    patched = machine.admin.patch(VMI, "default", "one", {"status": {"phase": "Running"}})
    assert patched["status"]["phase"] == "Pending"
    with pytest.raises(Invalid, match="update of VMI object is restricted"):
        machine.admin.patch(VMI, "default", "one", {"spec": {"hostname": "x"}})
    handler = Client.from_kubeconfig(str(machine.config / "virt-handler.kubeconfig"))
    patched = handler.patch(VMI, "default", "one", {"status": {"phase": "Scheduling"}})
    assert patched["status"]["phase"] == "Scheduling"


def test_the_kubevirt_object_configures_without_a_restart(machine: Machine) -> None:
    def kubevirt(name: str, namespace: str = "kubevirt", **spec: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": namespace}
        return {"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": metadata, "spec": spec}

    machine.admin.create(KUBEVIRT, kubevirt("kubevirt"))
    with pytest.raises(Invalid, match="must be in the engine's namespace kubevirt, not in default"):
        machine.admin.create(KUBEVIRT, kubevirt("kubevirt", "default"))
    with pytest.raises(Invalid, match="KubeVirt object kubevirt/kubevirt already exists"):
        machine.admin.create(KUBEVIRT, kubevirt("second"))
    with pytest.raises(Invalid, match=r"infra replica count can't be 0"):
        machine.admin.patch(KUBEVIRT, "kubevirt", "kubevirt", {"spec": {"infra": {"replicas": 0}}})
    change = {"spec": {"configuration": {"machineType": "pc-q35-7.2"}}}
    machine.admin.patch(KUBEVIRT, "kubevirt", "kubevirt", change)

    def machine_type() -> Any:
        vm = put(talk_vm(), "metadata.name", "configured")
        answer = machine.admin.request(
            "POST", VM.path("default"), query={"dryRun": "All"}, body={**vm, "apiVersion": "kubevirt.io/v1"}
        )
        return answer["spec"]["template"]["spec"]["domain"]["machine"]["type"]

    until(lambda: machine_type() == "pc-q35-7.2")
    kept = put(talk_vm(), "metadata.name", "kept")
    machine.admin.create(VM, {**kept, "apiVersion": "kubevirt.io/v1"}, namespace="default")
    with pytest.raises(Invalid, match="Rejecting the uninstall request, since there are still Virtual Machine"):
        machine.admin.delete(KUBEVIRT, "kubevirt", "kubevirt")
    machine.admin.patch(KUBEVIRT, "kubevirt", "kubevirt", {"spec": {"uninstallStrategy": "RemoveWorkloads"}})
    machine.admin.delete(KUBEVIRT, "kubevirt", "kubevirt")
    machine.admin.delete(VM, "default", "kept")


def test_start_and_stop(machine):
    machine.admin.create(VM, {**vm("started"), "apiVersion": "kubevirt.io/v1"})
    until(lambda: machine.admin.request("GET", "/apis/subresources.kubevirt.io/v1/version"))
    assert not machine.admin.put_raw(START.format("started", "start"), {})
    assert machine.admin.get(VM, "default", "started")["spec"]["running"] is True
    with pytest.raises(Conflict, match="Always does not support manual start requests"):
        machine.admin.put_raw(START.format("started", "start"))
    machine.admin.put_raw(START.format("started", "stop"), {"gracePeriod": 0})
    assert machine.admin.get(VM, "default", "started")["spec"]["running"] is False
    with pytest.raises(NotFound):
        machine.admin.put_raw(START.format("nobody", "start"), {})
    handler = Client.from_kubeconfig(str(machine.config / "virt-handler.kubeconfig"))
    with pytest.raises(Forbidden):
        handler.put_raw(START.format("started", "start"), {})


@pytest.fixture
def launcher(machine: Machine, tmp_path: Path) -> Iterator[Launcher]:
    """A guest of the VMI `guest` on a node whose virt-handler serves this virt-api."""
    handler = Client.from_kubeconfig(str(machine.config / "virt-handler.kubeconfig"))
    created = machine.admin.create(VMI, {**talk_vmi(), "metadata": {"name": "guest", "namespace": "default"}})
    handler.patch(VMI, "default", "guest", {"status": {"phase": "Running", "nodeName": "node-1"}})
    guests = Guests(Store(tmp_path))
    guest = guests.track(("default", "guest"), created["metadata"]["uid"])
    launcher = Launcher("default_guest")
    guest.launcher = launcher  # type: ignore[assignment]
    cluster = SimpleNamespace(get=lambda key: None, event=lambda *_: None, enqueue=lambda key: None)
    server = NodeServer(Operations(guests, cluster), Consoles(), "127.0.0.1", 0, bind="127.0.0.1")  # type: ignore[arg-type]
    service = handler.get(APISERVICE, None, "v1.subresources.kubevirt.io")
    server.trust(base64.b64decode(service["spec"]["caBundle"]).decode())
    annotations = {labels.NODE_SERVER: server.endpoint.annotation()}
    machine.admin.create(
        NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "annotations": annotations}}
    )
    yield launcher
    server.close()
    launcher.close()


def test_users_reach_guests_through_all_of_it(machine: Machine, launcher: Launcher) -> None:
    """API server, virt-api, virt-handler: with the rights that these have, and certificates that nobody handed out."""
    path = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/guest"
    until(lambda: machine.admin.request("GET", "/apis/subresources.kubevirt.io/v1/version"))
    machine.admin.put_raw(f"{path}/pause")
    assert launcher.domain.calls == ["pause"]
    with pytest.raises(Conflict, match="VMI is not paused"):
        machine.admin.put_raw(f"{path}/unpause")

    kubeconfig = yaml.safe_load((machine.config / "admin.kubeconfig").read_text())
    token = kubeconfig["users"][0]["user"]["token"]

    async def console() -> None:
        tls = ssl.create_default_context(cadata=(machine.config / "pki/ca.crt").read_text())
        url = f"https://127.0.0.1:{machine.port}{path}/"
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.ws_connect(f"{url}console", ssl=tls, protocols=["plain.kubevirt.io"]) as user:
                assert user.protocol == "plain.kubevirt.io"
                await user.send_bytes(b"root\n")
                device = await asyncio.to_thread(launcher.device, 0)
                assert await asyncio.to_thread(device.recv, 100) == b"root\n"
                device.sendall(b"# ")
                assert (await user.receive(30)).data == b"# "
            async with session.get(f"{url}vnc", ssl=tls) as answer:
                assert answer.status == 400

    asyncio.run(console())


def test_instance_types_are_known_at_once(machine):
    """As kubectl applies a file with both; and what virt-api may read is enough."""
    group = "/apis/instancetype.kubevirt.io/v1beta1"
    metadata = {"name": "tiny"}
    spec = {"cpu": {"guest": 2}, "memory": {"guest": "96Mi"}, "annotations": {"size": "tiny"}}
    body = {"apiVersion": group.removeprefix("/apis/"), "kind": "VirtualMachineClusterInstancetype"}
    stored = machine.admin.request(
        "POST", f"{group}/virtualmachineclusterinstancetypes", body={**body, "metadata": metadata, "spec": spec}
    )
    assert stored["spec"] == spec
    sized = {**vm("sized", instancetype={"name": "tiny"}), "apiVersion": "kubevirt.io/v1"}
    with pytest.raises(
        Invalid, match=r"VM field\(s\) .*resources.requests.memory conflicts with selected instance type"
    ):
        machine.admin.create(VM, sized)
    put(sized, "spec.template.spec.domain.resources", {})
    created = machine.admin.create(VM, sized)
    assert created["spec"]["instancetype"] == {"name": "tiny", "kind": "virtualmachineclusterinstancetype"}
    expanded = until(lambda: machine.admin.request("GET", START.format("sized", "expand-spec")))
    assert "instancetype" not in expanded["spec"]
    assert expanded["spec"]["template"]["spec"]["domain"]["memory"] == {"guest": "96Mi"}
    assert expanded["spec"]["template"]["metadata"]["annotations"] == {"size": "tiny"}
    path = "/apis/subresources.kubevirt.io/v1/namespaces/default/expand-vm-spec"
    assert machine.admin.put_raw(path, sized)["spec"]["template"]["spec"]["domain"]["cpu"]["sockets"] == 2
    machine.admin.request("DELETE", f"{group}/virtualmachineclusterinstancetypes/tiny")
    labelled = machine.admin.patch(VM, "default", "sized", {"metadata": {"labels": {"a": "b"}}})
    assert labelled["metadata"]["labels"] == {"a": "b"}, "it may come again"
    claims = "/api/v1/namespaces/default/persistentvolumeclaims"
    labels = {"instancetype.kubevirt.io/default-preference": "none"}
    claim = {"metadata": {"name": "disk", "labels": labels}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    claim["spec"]["resources"] = {"requests": {"storage": "1Mi"}}
    machine.admin.request("POST", claims, body={"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim})
    inferring = vm("inferring", instancetype={"inferFromVolume": "containerdisk"})
    put(
        inferring,
        "spec.template.spec.volumes.0",
        {"name": "containerdisk", "persistentVolumeClaim": {"claimName": "disk"}},
    )
    with pytest.raises(ApiError, match="unable to find required instancetype") as refused:
        machine.admin.create(VM, {**inferring, "apiVersion": "kubevirt.io/v1"})
    assert refused.value.status == 400


def test_what_is_taken_away_comes_back(machine):
    before = machine.certificate()
    machine.admin.delete(MUTATINGWEBHOOK, None, MUTATOR)
    machine.admin.delete(APISERVICE, None, "v1.subresources.kubevirt.io")
    machine.admin.delete(SECRET, "kubevirt", CERTIFICATES_SECRET)
    until(lambda: machine.admin.get(MUTATINGWEBHOOK, None, MUTATOR))
    until(lambda: machine.admin.get(APISERVICE, None, "v1.subresources.kubevirt.io"))
    until(lambda: machine.certificate() != before)
    until(lambda: machine.admin.create(VM, {**vm("afterwards"), "apiVersion": "kubevirt.io/v1"}))


def test_either_server_may_die(machine):
    machine.admin.create(VMI, {**talk_vmi(), "metadata": {"name": "lasting", "namespace": "default"}})
    machine.stop("virt-api", signal.SIGKILL)
    with pytest.raises(ApiError):
        machine.admin.create(VM, {**vm("meanwhile"), "apiVersion": "kubevirt.io/v1"})
    # What runs doesn't need virt-api
    handler = Client.from_kubeconfig(str(machine.config / "virt-handler.kubeconfig"))
    handler.patch(VMI, "default", "lasting", {"status": {"phase": "Scheduled"}})
    machine.start_virt_api()
    machine.admin.create(VM, {**vm("meanwhile"), "apiVersion": "kubevirt.io/v1"})
    machine.stop("apiserver", signal.SIGKILL)
    machine.run("apiserver", "turtles.standalone.main", "apiserver", *machine.address)
    until(lambda: machine.admin.create(VM, {**vm("later"), "apiVersion": "kubevirt.io/v1"}))
    assert machine.stop("virt-api") == 0
    machine.start_virt_api()


def test_log_is_structured(machine):
    for line in (machine.folder / "virt-api.log").read_text().splitlines():
        assert yaml.safe_load(line)["component"] == "virt-api"
