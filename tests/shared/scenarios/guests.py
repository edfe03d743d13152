# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What users do with guests that run: subresources of instances as virtctl uses them, and the modules on top."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from kubernetes.client.exceptions import ApiException

from engine import Engine, Object, condition
from playbooks import playbook, recap
from scenarios.snapshots import serves_snapshots, snapshot
from scenarios.volumes import attach

ROOT = Path(__file__).parents[3]
Module = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def agent_image(cluster: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny guest with a guest agent."""
    folder = tmp_path_factory.mktemp("agent")
    made, archive = folder / "made.tar", folder / "tiny-agent.tar"
    program = ROOT / "roles/guest_image/files/guest_image.py"
    subprocess.run([sys.executable, str(program), "tiny", "--agent", "--output", str(made)], check=True)
    copy = ["skopeo", "copy", "--quiet", f"oci-archive:{made}", f"oci-archive:{archive}:latest"]
    subprocess.run(copy, check=True)
    return cluster.publish(archive)


def instance(cluster: Engine, namespace: str, done: Callable[[Object], Any], what: str, timeout: float = 60) -> Object:
    vmi = cluster.wait(namespace, "virtualmachineinstances", "web", lambda o: o and done(o), timeout=timeout, what=what)
    assert vmi is not None
    return vmi


def refusal(answer: tuple[int, bytes]) -> tuple[int, str]:
    code, body = answer
    status = json.loads(body)
    assert (status["kind"], status["code"]) == ("Status", code)
    return code, status["message"]


def read_until(stream: websocket.WebSocket, words: bytes) -> bytes:
    received = b""
    while words not in received:
        data = stream.recv()
        assert data, f"the stream ended after {received!r}"
        received += data
    return received


def log_in(console: websocket.WebSocket) -> None:
    """Press Enter until the guest asks who it is: nobody kept what it said before."""
    pressing = threading.Event()

    def press() -> None:
        while not pressing.wait(1):
            console.send_binary(b"\n")

    thread = threading.Thread(target=press)
    thread.start()
    try:
        read_until(console, b"login: ")
    finally:
        pressing.set()
        thread.join()
    console.send_binary(b"root\n")
    read_until(console, b"# ")


def test_console_screen_and_ports(cluster: Engine, namespace: str, ansible: Module, tmp_path: Path) -> None:
    cluster.create(namespace, cluster.virtual_machine("web"))
    address = cluster.wait_running(namespace, "web")["status"]["interfaces"][0]["ipAddress"]
    cluster.ssh(address, "true", timeout=180)

    console = cluster.connect(namespace, "web", "console")
    assert console.getsubprotocol() == "plain.kubevirt.io"
    log_in(console)
    console.send_binary(b"echo $((40 + 2)) turtles\n")
    assert b"42 turtles" in read_until(console, b"42 turtles")
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        cluster.connect(namespace, "web", "console?preserveSession=true")
    assert refused.value.status_code == 409
    second = cluster.connect(namespace, "web", "console")
    while console.recv():
        pass  # the rest of what came before the session ended
    second.send_binary(b"\necho $((50 + 5))\n")
    read_until(second, b"55")
    second.close()

    screen = cluster.connect(namespace, "web", "vnc")
    assert read_until(screen, b"\n").startswith(b"RFB 003.")
    code, picture = cluster.ask(namespace, "web", "vnc/screenshot")
    assert code == 200
    assert is_bright(picture), "the screen is black"
    screen.send_binary(b"RFB 003.008\n")
    assert screen.recv(), "the session goes on"
    screen.close()

    for plural in ("virtualmachines", "virtualmachineinstances"):
        for path in ("portforward/22", "portforward/22/tcp"):
            port = cluster.connect(namespace, "web", path, plural=plural)
            assert port.recv().startswith(b"SSH-2.0-")
            port.close()

    options = {"kubeconfig": str(cluster.kubeconfig), "namespace": namespace, "name": "web"}
    file = tmp_path / "screen.png"
    assert ansible("turtles.kubevirt.screenshot", {**options, "dest": str(file)})["changed"]
    assert is_bright(file.read_bytes())


def is_bright(picture: bytes) -> bool:
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    begin = picture.index(b"IDAT")
    (length,) = struct.unpack_from(">I", picture, begin - 4)
    return any(zlib.decompress(picture[begin + 4 : begin + 4 + length]))


def test_pause_and_reset(cluster: Engine, namespace: str, ansible: Module) -> None:
    cluster.create(namespace, cluster.virtual_machine("web"))
    vmi = cluster.wait_running(namespace, "web")
    uid, address = vmi["metadata"]["uid"], vmi["status"]["interfaces"][0]["ipAddress"]
    cluster.ssh(address, "true", timeout=180)

    assert refusal(cluster.ask(namespace, "web", "unpause", method="PUT"))[0] == 409
    assert cluster.ask(namespace, "web", "pause", method="PUT") == (200, b"")
    vmi = instance(cluster, namespace, lambda o: condition(o, "Paused"), "pause")
    assert condition(vmi, "Paused")["reason"] == "PausedByUser"
    cluster.wait_status(namespace, "web", "Paused")
    for action, word in (("pause", "VMI is already paused"), ("softreboot", "VMI is paused")):
        code, message = refusal(cluster.ask(namespace, "web", action, method="PUT"))
        assert (code, message.rpartition(": ")[2]) == (409, word)
    assert refusal(cluster.ask(namespace, "web", "portforward/22"))[0] == 409
    assert cluster.ask(namespace, "web", "unpause", method="PUT") == (200, b"")
    cluster.wait_status(namespace, "web", "Running")

    options = {"kubeconfig": str(cluster.kubeconfig), "namespace": namespace, "name": "web"}
    for state in ("paused", "unpaused"):
        assert ansible("turtles.kubevirt.vm", {**options, "state": state})["changed"]
        assert not ansible("turtles.kubevirt.vm", {**options, "state": state})["changed"]

    for action in ("reset", "softreboot"):
        before = cluster.boot_id(address)
        assert cluster.ask(namespace, "web", action, method="PUT") == (200, b"")
        wait_for_another_boot(cluster, address, before)
    vmi = cluster.wait_running(namespace, "web")
    assert vmi["metadata"]["uid"] == uid, "it is the same instance"
    assert any("SoftRebooted" in event for event in cluster.events(namespace))
    # There is no agent in this guest
    for what, method in (("guestosinfo", "GET"), ("userlist", "GET"), ("filesystemlist", "GET"), ("freeze", "PUT")):
        code, message = refusal(cluster.ask(namespace, "web", what, method=method))
        assert (code, message.rpartition(": ")[2]) == (409, "VMI does not have guest agent connected")


def wait_for_another_boot(cluster: Engine, address: str, before: str) -> None:
    deadline = time.monotonic() + cluster.seconds(180)
    while cluster.boot_id(address) == before:
        assert time.monotonic() < deadline, "the guest did not reboot"
        time.sleep(0.5)  # what happens in the guest can't be watched from outside


def by_agent(cluster: Engine, namespace: str, folder: Path, command: str) -> str:
    """The output of a command that the connection plugin guest_agent runs in the guest web."""
    variables = {
        "ansible_connection": "turtles.kubevirt.guest_agent",
        "ansible_kubevirt_vm": "web",
        "ansible_kubevirt_namespace": namespace,
        "ansible_kubevirt_kubeconfig": str(cluster.kubeconfig),
    }
    program = [str(Path(sys.executable).parent / "ansible"), "web", "-i", "web,", "-m", "ansible.builtin.raw"]
    done = subprocess.run(
        [*program, "-a", command, "-e", json.dumps(variables), "--tree", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(json.loads((folder / "web").read_text())["stdout"]).strip()


def test_the_guest_agent(cluster: Engine, namespace: str, ansible: Module, agent_image: str, tmp_path: Path) -> None:
    cluster.claim(namespace, "data", "16Mi")
    vm = cluster.virtual_machine("web", image=agent_image, memory="128Mi")
    attach(vm, "data", {"persistentVolumeClaim": {"claimName": "data"}}, {"disk": {"bus": "virtio"}})
    cluster.create(namespace, vm)
    vmi = instance(cluster, namespace, lambda o: condition(o, "AgentConnected"), "agent", timeout=240)
    address = vmi["status"]["interfaces"][0]["ipAddress"]

    code, body = cluster.ask(namespace, "web", "guestosinfo")
    info = json.loads(body)
    assert code == 200
    assert info["hostname"] == "web"
    assert info["os"]["kernelRelease"] == cluster.ssh(address, "uname -r", timeout=180)
    assert {"name": "guest-ping", "enabled": True} in info["supportedCommands"]
    assert info["fsFreezeStatus"] == "thawed"
    filesystems = json.loads(cluster.ask(namespace, "web", "filesystemlist")[1])["items"]
    (root,) = [entry for entry in filesystems if entry["mountPoint"] == "/"]
    assert root["fileSystemType"] == "ext4"
    assert 0 < root["usedBytes"] <= root["totalBytes"]
    users = json.loads(cluster.ask(namespace, "web", "userlist")[1])
    assert users["metadata"] == {}
    assert isinstance(users["items"], list)

    options = {"kubeconfig": str(cluster.kubeconfig), "namespace": namespace, "name": "web"}
    found = ansible("turtles.kubevirt.guest_info", {**options, "wait": True})
    assert (found["agent_connected"], found["hostname"]) == (True, "web")
    assert "/" in [entry["mountPoint"] for entry in found["filesystems"]]
    assert found["interfaces"][0]["ipAddress"] == address

    assert by_agent(cluster, namespace, tmp_path, "uname -r") == info["os"]["kernelRelease"]
    waiting = {**options, "state": "running", "wait_for": "cloud_init"}
    failed = ansible("turtles.kubevirt.vm", waiting, fails=True)
    assert "cloud-init isn't installed in the guest" in failed["msg"]
    files = "mkdir -p {0}; cd {0}; echo '{{}}' >status.json; echo '{1}' >result.json"
    by_agent(cluster, namespace, tmp_path, files.format("/run/cloud-init", '{"v1": {"errors": []}}'))
    assert not ansible("turtles.kubevirt.vm", waiting)["changed"]
    by_agent(cluster, namespace, tmp_path, files.format("/run/cloud-init", '{"v1": {"errors": ["no package"]}}'))
    assert ansible("turtles.kubevirt.vm", waiting, fails=True)["cloud_init_errors"] == ["no package"]

    assert cluster.ask(namespace, "web", "freeze", method="PUT") == (200, b"")
    instance(cluster, namespace, lambda o: o["status"].get("fsFreezeStatus") == "frozen", "frozen file systems")
    assert ansible("turtles.kubevirt.guest_info", options)["frozen"]
    assert cluster.ask(namespace, "web", "unfreeze", method="PUT") == (200, b"")
    instance(cluster, namespace, lambda o: "fsFreezeStatus" not in o["status"], "thawed file systems")

    if serves_snapshots(cluster):
        made = snapshot(cluster, namespace, "frozen", "web")
        assert made["status"]["indications"] == ["Online", "GuestAgent"]
        assert made["status"]["snapshotVolumes"]["includedVolumes"] == ["data"]
        assert json.loads(cluster.ask(namespace, "web", "guestosinfo")[1])["fsFreezeStatus"] == "thawed"

    before = cluster.boot_id(address)
    assert ansible("turtles.kubevirt.vm", {**options, "state": "soft_rebooted"})["changed"]
    wait_for_another_boot(cluster, address, before)


@pytest.fixture
def patient(cluster: Engine) -> Iterator[None]:
    """The namespace of the example is gone in the end, whatever happens."""
    yield
    with contextlib.suppress(ApiException):
        cluster.core.delete_namespace("guests")
    cluster.wait_gone("guests", "patient")


@pytest.mark.usefixtures("patient")
def test_the_example(cluster: Engine, agent_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", str(cluster.kubeconfig))
    picture = tmp_path / "patient.png"
    where = ("-e", f"image={agent_image}", "-e", f"guests_screenshot={picture}")
    output = playbook(str(ROOT / "docs/examples/guests.yml"), *where, folder=tmp_path).stdout
    assert (recap(output)["changed"], recap(output)["failed"]) == (6, 0), output
    assert "and has mounted /" in output
    assert picture.read_bytes().startswith(b"\x89PNG")
