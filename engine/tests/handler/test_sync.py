# SPDX-License-Identifier: GPL-3.0-or-later
"""The node agent with a real libvirtd, a real QEMU and a real Pod network. Only the API server is played."""

import copy
import fcntl
import itertools
import os
import signal
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from turtles.domain import decision, lifecycle, paths
from turtles.handler import connection, delivery, plumbing
from turtles.handler import domain as domains
from turtles.handler.cluster import Key
from turtles.handler.errors import LibvirtError, OperationFailed
from turtles.handler.operations import Operations
from turtles.handler.state import Store
from turtles.handler.sync import Synchroniser
from turtles.handler.watcher import Watcher
from turtles.kube.controller import run_workers
from turtles.kube.queue import WorkQueue

from .rig import PROXY, Pod, find_nobody

pytestmark = pytest.mark.root

NODE = "node-1"
KEY = ("default", "testvm")
# A guest in one sector: waits for the power button, then switches itself off.
GUEST = bytes.fromhex("fa ba0206 b80001 ef ba0006 ed a90001 74fa ba0406 b80020 ef f4 ebfd")
# A guest that does nothing, and doesn't listen.
DEAF_GUEST = bytes.fromhex("fa f4 ebfd")

# A guest that waits a second or so, and resets the machine.
RESTLESS_GUEST = bytes.fromhex("fa b9ffff e480 e2fc b0fe e664 f4 ebfd")


class Cluster:
    """One VMI and what happens to it."""

    def __init__(self, vmi: dict[str, Any], key: Key = KEY) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self.key = key
        self.vmi: dict[str, Any] | None = vmi
        self.events: list[tuple[str, str, str]] = []
        self.patches: list[dict[str, Any]] = []
        self.changed = threading.Condition()

    def get(self, key: Key) -> dict[str, Any] | None:
        return self.vmi

    def patch(
        self, vmi: Mapping[str, Any], status: Mapping[str, Any], *, labels: Mapping[str, str] | None = None
    ) -> None:
        with self.changed:
            assert self.vmi is vmi, "written on top of something else"
            new = copy.deepcopy(self.vmi)
            self.patches.append(copy.deepcopy(dict(status)))
            for name, value in status.items():
                if value is None:
                    new["status"].pop(name, None)
                else:
                    new["status"][name] = copy.deepcopy(value)
            self.vmi = new
            self.changed.notify_all()
        self.queue.add(self.key)

    def event(self, vmi: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        self.events.append((type_, reason, message))

    def enqueue(self, key: Key) -> None:
        self.queue.add(key)

    def update(self, change: Callable[[dict[str, Any]], None]) -> None:
        with self.changed:
            new = copy.deepcopy(self.vmi)
            assert new is not None
            change(new)
            self.vmi = new
        self.queue.add(self.key)

    def delete(self) -> None:
        self.update(lambda vmi: vmi["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"))

    def wait(self, condition: Callable[[dict[str, Any]], Any], seconds: float = 60) -> dict[str, Any]:
        with self.changed:
            ok = self.changed.wait_for(lambda: self.vmi and condition(self.vmi["status"]), seconds)
            assert ok, (self.vmi, self.events)
            assert self.vmi is not None
            return self.vmi["status"]

    def wait_phase(self, phase: str, seconds: float = 60) -> dict[str, Any]:
        return self.wait(lambda status: status["phase"] == phase, seconds)


class Agent:
    """A running node agent; ``stop`` leaves everything behind as kill -9 would."""

    def __init__(self, cluster: Cluster, pod: Pod, store: Path) -> None:
        cluster.queue = WorkQueue()
        self.cluster = cluster
        self.synchroniser = Synchroniser(cluster, NODE, str(pod.pods_dir), Store(store), Watcher(), PROXY, find_nobody)
        # One worker: when a test kills it, nobody goes on in its place.
        self.threads = run_workers(cluster.queue, self.synchroniser.sync, 1, "test")
        cluster.queue.add(KEY)

    def stop(self) -> None:
        self.cluster.queue.close()
        for thread in self.threads:
            thread.join(60)


@pytest.fixture(scope="session", autouse=True)
def _events() -> None:
    connection.start_event_loop()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[Cluster, Pod], Agent]]:
    agents: list[Agent] = []

    def start(cluster: Cluster, pod: Pod) -> Agent:
        agents.append(Agent(cluster, pod, tmp_path / "state"))
        return agents[-1]

    yield start
    for agent in agents:
        agent.stop()


def make_vmi(pod: Pod, binding: str = "masquerade", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "testvm", "namespace": "default", "uid": str(uuid.uuid4()), "resourceVersion": "1"},
        "spec": {
            "domain": {
                "resources": {"requests": {"memory": "32M"}},
                "devices": {
                    "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
                    "interfaces": [{"name": "default", binding: {}}],
                    "rng": {},
                },
            },
            "networks": [{"name": "default", "pod": {}}],
            "volumes": [{"name": "root", "emptyDisk": {"capacity": "1Mi"}}],
            **spec,
        },
        "status": {
            "phase": "Scheduled",
            "nodeName": NODE,
            "activePods": {pod.uid: NODE},
            "conditions": [{"type": "Ready", "status": "False"}],
        },
    }


def make_disk(pod: Pod, code: bytes = GUEST) -> None:
    folder = pod.volumes / "ephemeral-disks" / "empty-disks"
    folder.mkdir()
    raw = pod.work / "boot.raw"
    raw.write_bytes(code.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(folder / "root.qcow2")], check=True)
    subprocess.run(["chown", "-R", "107:107", str(folder)], check=True)


def condition(status: Mapping[str, Any], type_: str) -> dict[str, Any]:
    return next((item for item in status["conditions"] if item["type"] == type_), {})


def libvirtd_pid(pod: Pod) -> int:
    directory = os.open(pod.socket.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(f"/proc/self/fd/{directory}/libvirt-sock")
        pid: int = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    os.close(directory)
    return pid


def test_attempts_that_fail_become_rarer_whatever_libvirt_tells_of_them(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = make_pod()
    make_disk(pod)
    cluster = Cluster(make_vmi(pod))
    attempts: list[float] = []
    five = threading.Event()

    def fail(connection: Any, xml: str, *, paused: bool) -> None:
        attempts.append(time.monotonic())
        if len(attempts) == 5:
            five.set()
        cluster.enqueue(KEY)  # as the domain's events do
        raise LibvirtError("no tap")

    monkeypatch.setattr(connection.Connection, "start", fail)
    run(cluster, pod)
    pod.start()
    assert five.wait(60)
    pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert all(pause >= least for pause, least in zip(pauses, (0.05, 0.1, 0.2, 0.4), strict=True)), pauses
    monkeypatch.undo()
    cluster.wait_phase("Running", 30)


def test_from_scheduled_to_succeeded(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], tmp_path: Path
) -> None:
    """The launcher comes up late; libvirtd is killed; the agent is killed; the guest shuts down when deleted."""
    pod = make_pod()
    make_disk(pod)
    cluster = Cluster(make_vmi(pod))
    agent = run(cluster, pod)
    pod.start(wait=False)
    status = cluster.wait_phase("Running", 30)
    interface = status["interfaces"][0]
    assert interface["ipAddress"] == pod.ip
    assert interface["infoSource"] == "domain"
    assert interface["podInterfaceName"] == "eth0"
    assert interface["mac"].startswith("02:")
    assert status["machine"]["type"].startswith("pc-q35")
    assert status["memory"]["guestRequested"] == "31250Ki"
    assert status["currentCPUTopology"] == {"cores": 1, "sockets": 1, "threads": 1}
    assert status["volumeStatus"] == [{"name": "root", "target": "vda", "size": 2**20}]
    assert condition(status, "SoftwareEmulation")["status"] == "True"
    assert condition(status, "LiveMigratable")["status"] == "True"
    assert condition(status, "Ready") == {"type": "Ready", "status": "False"}
    assert status["phaseTransitionTimestamps"][-1]["phase"] == "Running"
    assert len(cluster.patches) == 1
    assert ("Normal", "Started", "VirtualMachineInstance started.") in cluster.events

    os.kill(libvirtd_pid(pod), signal.SIGKILL)
    agent.stop()
    run(cluster, pod)
    cluster.delete()
    status = cluster.wait_phase("Succeeded")
    assert ("Normal", "Stopped", "The guest shut down.") in cluster.events
    # QEMU says how much memory the guest has got, as whole pages, some time after its start.
    assert len([patch for patch in cluster.patches if set(patch) != {"memory"}]) == 2, cluster.patches[1:]
    assert not condition(status, "Synchronized")


def test_kill_at_any_moment_while_starting(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = make_pod()
    make_disk(pod, DEAF_GUEST)
    pod.start()
    cluster = Cluster(make_vmi(pod, "bridge"))
    real = {name: getattr(module, name) for module, name in _STEPS}

    class Killed(BaseException):
        pass

    for module, name in _STEPS:
        for before in (True, False):
            reached = threading.Event()

            def interrupted(*args: Any, _name: str = name, _before: bool = before, **options: Any) -> Any:
                if not _before:
                    real[_name](*args, **options)
                reached.set()  # noqa: B023 - waited for below
                raise Killed

            monkeypatch.setattr(module, name, interrupted)
            monkeypatch.setattr(threading, "excepthook", lambda _: None)
            agent = run(cluster, pod)
            assert reached.wait(60), (name, before)
            agent.stop()
            monkeypatch.setattr(module, name, real[name])
            if name == "start" and not before:
                break
    assert cluster.vmi is not None
    assert cluster.vmi["status"]["phase"] == "Scheduled"
    run(cluster, pod)
    status = cluster.wait_phase("Running")
    assert status["interfaces"][0]["ipAddress"] == pod.ip
    assert condition(status, "LiveMigratable")["reason"] == "InterfaceNotLiveMigratable"


_STEPS = (
    (delivery, "deliver"),
    (plumbing, "read_pod_interface"),
    (plumbing, "connect"),
    (connection.Connection, "start"),
)


def test_a_guest_gets_processors_memory_and_links(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]
) -> None:
    pod = make_pod()
    make_disk(pod)
    pod.start()
    vmi = make_vmi(pod, architecture="amd64")
    vmi["spec"]["domain"].update(
        cpu={"sockets": 1, "cores": 1, "threads": 1, "maxSockets": 4},
        memory={"guest": "1Gi", "maxGuest": "4Gi"},
        resources={"requests": {"memory": "1Gi"}},
    )
    cluster = Cluster(vmi)
    run(cluster, pod)
    status = cluster.wait_phase("Running", 30)
    assert status["memory"] == {"guestAtBoot": "1Gi", "guestCurrent": "1Gi", "guestRequested": "1Gi"}
    assert not condition(status, "HotMemoryChange")
    cluster.update(lambda vmi: vmi["spec"]["domain"]["cpu"].update(sockets=3))
    status = cluster.wait(lambda status: status["currentCPUTopology"]["sockets"] == 3)
    assert not condition(status, "HotVCPUChange")
    # This guest takes no memory; it is asked once, and the VMI says that it was.
    cluster.update(lambda vmi: vmi["spec"]["domain"]["memory"].update(guest="2Gi"))
    status = cluster.wait(lambda status: condition(status, "HotMemoryChange"))
    assert condition(status, "HotMemoryChange")["status"] == "True"
    assert status["memory"] == {"guestAtBoot": "1Gi", "guestCurrent": "1Gi", "guestRequested": "2Gi"}
    cluster.update(lambda vmi: vmi["spec"]["domain"]["memory"].update(guest="1Gi"))
    cluster.wait(lambda status: not condition(status, "HotMemoryChange"))
    (interface,) = status["interfaces"]
    assert interface["linkState"] == "up"
    for state in ("down", "up"):
        cluster.update(lambda vmi, state=state: vmi["spec"]["domain"]["devices"]["interfaces"][0].update(state=state))
        cluster.wait(lambda status, state=state: status["interfaces"] == [{**interface, "linkState": state}])


@pytest.mark.parametrize("policy", ["Terminate", "Reboot"])
def test_a_guest_that_reboots(make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], policy: str) -> None:
    pod = make_pod()
    make_disk(pod, RESTLESS_GUEST)
    pod.start()
    vmi = make_vmi(pod)
    vmi["spec"]["domain"]["rebootPolicy"] = policy
    cluster = Cluster(vmi)
    run(cluster, pod)
    if policy == "Terminate":
        cluster.wait_phase("Succeeded")
        return
    cluster.wait_phase("Running")
    time.sleep(3)
    assert cluster.vmi is not None
    assert cluster.vmi["status"]["phase"] == "Running"


@pytest.mark.parametrize("kept", [True, False])
def test_variables_of_efi_outlive_the_machine_where_they_are_to(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], kept: bool
) -> None:
    pod = make_pod()
    make_disk(pod)
    state = pod.pods_dir / pod.uid / "volumes/kubernetes.io~empty-dir/private/persistent-state"
    state.mkdir()
    os.chown(state, 107, 107)
    pod.start()
    vmi = make_vmi(pod, terminationGracePeriodSeconds=0)
    vmi["spec"]["domain"]["firmware"] = {"bootloader": {"efi": {"secureBoot": False, "persistent": kept}}}
    cluster = Cluster(vmi)
    agent = run(cluster, pod)
    cluster.wait_phase("Running", 60)
    variables = state / "efi-variables.fd" if kept else state.parent / vmi["metadata"]["uid"] / "efi-variables.fd"
    assert variables.exists()
    cluster.delete()
    cluster.wait_phase("Failed")
    deadline = time.monotonic() + 30
    while len(agent.synchroniser.guests):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert variables.exists() is kept


def test_a_deaf_guest_is_destroyed(make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]) -> None:
    pod = make_pod()
    make_disk(pod, DEAF_GUEST)
    pod.start()
    cluster = Cluster(make_vmi(pod, terminationGracePeriodSeconds=2))
    run(cluster, pod)
    cluster.wait_phase("Running")
    began = time.monotonic()
    cluster.delete()
    cluster.wait_phase("Failed")
    assert time.monotonic() - began > 1.8
    assert cluster.events[-1][0] == "Warning"
    assert "did not shut down within its grace period of 2 s" in cluster.events[-1][2]


def test_a_paused_guest_is_switched_off_at_once(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]
) -> None:
    """It can't react, so that its grace period would be waited out for nothing."""
    pod = make_pod()
    make_disk(pod)
    pod.start()
    cluster = Cluster(make_vmi(pod, startStrategy="Paused", terminationGracePeriodSeconds=600))
    run(cluster, pod)
    status = cluster.wait(lambda status: condition(status, "Paused"))
    assert condition(status, "Paused")["reason"] == "PausedByUser"
    cluster.delete()
    cluster.wait_phase("Failed", 30)
    assert cluster.events[-1][0] == "Warning"
    assert "it was paused" in cluster.events[-1][2]


def test_a_guest_that_sleeps_is_woken_to_shut_down(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = make_pod()
    make_disk(pod)
    pod.start()
    woken = threading.Event()
    real = domains.Domain.state

    def state(domain: domains.Domain) -> tuple[int, int]:
        found = real(domain)
        asleep = found[0] == lifecycle.State.RUNNING and not woken.is_set()
        return (int(lifecycle.State.PMSUSPENDED), 0) if asleep else found

    monkeypatch.setattr(domains.Domain, "state", state)
    monkeypatch.setattr(domains.Domain, "wake_up", lambda _: woken.set())
    cluster = Cluster(make_vmi(pod))
    run(cluster, pod)
    cluster.wait_phase("Running")
    cluster.delete()
    cluster.wait_phase("Succeeded")
    assert woken.is_set()


def test_no_grace_and_no_acpi(make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]) -> None:
    pod = make_pod()
    make_disk(pod, DEAF_GUEST)
    pod.start()
    vmi = make_vmi(pod)
    vmi["spec"]["domain"]["features"] = {"acpi": {"enabled": False}}
    cluster = Cluster(vmi)
    run(cluster, pod)
    cluster.wait_phase("Running")
    cluster.delete()
    cluster.wait_phase("Succeeded", 5)


def test_the_launcher_dies(make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]) -> None:
    pod = make_pod()
    make_disk(pod, DEAF_GUEST)
    pod.start()
    cluster = Cluster(make_vmi(pod))
    run(cluster, pod)
    cluster.wait_phase("Running")
    pod.kill()
    cluster.wait_phase("Failed", 5)
    assert cluster.events[-1][:2] == ("Warning", "LauncherUnresponsive")
    assert "launcher Pod's log" in cluster.events[-1][2]


def test_the_domain_vanishes_while_nobody_looks(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]
) -> None:
    pod = make_pod()
    make_disk(pod, DEAF_GUEST)
    pod.start()
    cluster = Cluster(make_vmi(pod))
    cluster.update(lambda vmi: vmi["status"].update(phase="Running"))
    run(cluster, pod)
    cluster.wait_phase("Failed")
    assert "no longer knows the guest" in cluster.events[-1][2]


def test_deleted_before_it_started(make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]) -> None:
    pod = make_pod()
    cluster = Cluster(make_vmi(pod))
    cluster.delete()
    run(cluster, pod)
    cluster.wait_phase("Failed")
    assert cluster.events[-1][1] == "Deleted"


def test_an_obstacle_that_goes_away(make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]) -> None:
    pod = make_pod()
    pod.start()
    cluster = Cluster(make_vmi(pod, startStrategy="Paused"))
    run(cluster, pod)
    status = cluster.wait(lambda status: condition(status, "Synchronized"))
    assert condition(status, "Synchronized")["status"] == "False"
    assert "root.qcow2" in condition(status, "Synchronized")["message"]
    make_disk(pod, DEAF_GUEST)
    status = cluster.wait_phase("Running", 30)
    assert condition(status, "Paused")["reason"] == "PausedByUser"
    assert not condition(status, "Synchronized")


def test_a_final_phase_takes_the_domain_away(
    make_pod: Callable[[], Pod],
    run: Callable[[Cluster, Pod], Agent],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pod = make_pod()
    make_disk(pod, DEAF_GUEST)
    pod.start()
    cluster = Cluster(make_vmi(pod))
    removed: list[bool] = []
    done = threading.Event()
    real = domains.Domain.remove

    def remove(domain: domains.Domain, **options: bool) -> None:
        real(domain, **options)
        try:
            domain.state()
        except LibvirtError:
            removed.append(True)
        done.set()

    monkeypatch.setattr(domains.Domain, "remove", remove)
    agent = run(cluster, pod)
    cluster.wait_phase("Running")
    cluster.update(lambda vmi: vmi["status"].update(phase="Failed"))
    assert done.wait(60)
    agent.stop()
    assert removed == [True]
    assert Store(tmp_path / "state").uids() == []


def test_every_device_starts(make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]) -> None:
    """What admission lets through, libvirt and QEMU can run."""
    pod = make_pod()
    make_disk(pod)
    pod.start()
    files = {
        "ephemeral-disks/disk-data/system/disk.qcow2": "qcow2",
        "ephemeral-disks/empty-disks/data.qcow2": "qcow2",
        "ephemeral-disks/empty-disks/stick.qcow2": "qcow2",
        "private/vmi-disks/claim/disk.img": "raw",
        "ephemeral-disks/cloud-init-data/seed/noCloud.iso": "raw",
        "ephemeral-disks/cloud-init-data/drive/configdrive.iso": "raw",
    }
    for name, format_ in files.items():
        (pod.volumes / name).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", format_, str(pod.volumes / name), "1M"], check=True)
    subprocess.run(["chown", "-R", "107:107", str(pod.volumes)], check=True)
    vmi = make_vmi(pod)
    vmi["spec"]["domain"] = {
        "cpu": {
            "cores": 1,
            "sockets": 2,
            "threads": 2,
            "model": "Nehalem",
            "features": [
                {"name": "aes", "policy": "require"},
                {"name": "vmx", "policy": "disable"},
                {"name": "avx", "policy": "optional"},
                {"name": "sse4a", "policy": "forbid"},
                {"name": "pcid", "policy": "force"},
            ],
        },
        "memory": {"guest": "64Mi"},
        "machine": {"type": "q35"},
        "firmware": {"uuid": str(uuid.uuid4()), "serial": "serial-1"},
        "clock": {
            "timezone": "Europe/Berlin",
            "timer": {
                "hpet": {"present": False},
                "pit": {"tickPolicy": "delay"},
                "rtc": {"tickPolicy": "catchup", "track": "guest"},
                "kvm": {"present": True},
                "hyperv": {"present": True},
            },
        },
        "devices": {
            "disks": [
                {"name": "root", "disk": {"bus": "virtio"}, "bootOrder": 1, "serial": "D-1"},
                {"name": "system", "disk": {"bus": "sata"}, "cache": "writethrough"},
                {"name": "data", "disk": {"bus": "scsi"}, "io": "native"},
                {"name": "claim", "disk": {"bus": "scsi", "readonly": True}},
                {"name": "stick", "disk": {"bus": "usb"}, "io": "threads"},
                {"name": "seed", "cdrom": {"bus": "sata", "tray": "closed"}},
                {"name": "drive", "disk": {"bus": "sata"}},
            ],
            "interfaces": [{"name": "default", "masquerade": {}, "model": "e1000", "bootOrder": 2}],
            "rng": {},
            "watchdog": {"name": "dog", "i6300esb": {"action": "reset"}},
            "inputs": [
                {"name": "pen", "type": "tablet", "bus": "usb"},
                {"name": "pad", "type": "tablet", "bus": "virtio"},
            ],
        },
    }
    vmi["spec"]["volumes"] += [
        {"name": "system", "containerDisk": {"image": "example"}},
        {"name": "data", "emptyDisk": {"capacity": "1Mi"}},
        {"name": "stick", "emptyDisk": {"capacity": "1Mi"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}},
        {"name": "seed", "cloudInitNoCloud": {"userData": "x"}},
        {"name": "drive", "cloudInitConfigDrive": {"userData": "x"}},
    ]
    cluster = Cluster(vmi)
    run(cluster, pod)
    status = cluster.wait(lambda status: status["phase"] == "Running" or condition(status, "Synchronized"))
    assert status["phase"] == "Running", cluster.events
    assert condition(status, "LiveMigratable")["reason"] == "DisksNotLiveMigratable"


@pytest.mark.parametrize("model", ["e1000e", "rtl8139", "ne2k_pci", "pcnet", "virtio"])
def test_every_interface_model_starts(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], model: str
) -> None:
    pod = make_pod()
    make_disk(pod)
    pod.start()
    vmi = make_vmi(pod, "bridge")
    vmi["spec"]["domain"]["devices"]["interfaces"][0]["model"] = model
    cluster = Cluster(vmi)
    run(cluster, pod)
    status = cluster.wait(lambda status: status["phase"] == "Running" or condition(status, "Synchronized"))
    assert status["phase"] == "Running", cluster.events


def test_a_vmi_that_cannot_be_delivered(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision, "LOOK_AGAIN", 0.05)
    pod = make_pod()
    vmi = make_vmi(pod)
    obstacle = pod.volumes / "private" / paths.DELIVERED_VMI.name
    obstacle.mkdir()
    late = {"type": "Synchronized", "status": "False", "reason": "NodeAgentNotResponding"}  # virt-controller's
    vmi["status"]["conditions"].append(late)
    cluster = Cluster(vmi)
    run(cluster, pod)
    status = cluster.wait(lambda status: "message" in condition(status, "Synchronized"))
    assert condition(status, "Synchronized")["message"] == (
        "the VirtualMachineInstance can't be delivered to its launcher: Is a directory"
    )
    assert len(cluster.events) == 1
    obstacle.rmdir()
    pod.start(wait=False, vmi=vmi)
    status = cluster.wait_phase("Running", 30)
    assert not condition(status, "Synchronized")


def test_deleted_while_its_launcher_waits_for_it(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]
) -> None:
    pod = make_pod()
    vmi = make_vmi(pod)
    cluster = Cluster(vmi)
    pod.start(wait=False, vmi=vmi)
    cluster.delete()
    run(cluster, pod)
    cluster.wait_phase("Failed")
    assert cluster.events[-1][1] == "Deleted"
    assert not (pod.volumes / "private" / paths.DELIVERED_VMI.name).exists()


def test_with_virt_launcher(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher waits for its VMI, the agent for libvirt's socket; when the VMI has succeeded, the launcher ends.

    The agent is killed before it has delivered anything, and again while the guest runs.
    """
    pod = make_pod()
    delivered = pod.volumes / "private" / paths.DELIVERED_VMI.name
    vmi = make_vmi(pod, "bridge")
    vmi["spec"]["domain"]["devices"]["disks"].append({"name": "seed", "disk": {"bus": "virtio"}})
    vmi["spec"]["volumes"].append({"name": "seed", "cloudInitNoCloud": {"userDataBase64": "SGkuXG4="}})
    vmi["spec"]["terminationGracePeriodSeconds"] = 1
    vmi["metadata"]["annotations"] = {"note": "x" * 250_000}
    cluster = Cluster(vmi)
    pod.start(wait=False, vmi=vmi)
    reached = threading.Event()

    def killed(*args: Any) -> None:
        reached.set()
        raise SystemExit

    with monkeypatch.context() as context:
        context.setattr(threading, "excepthook", lambda _: None)
        context.setattr(delivery, "deliver", killed)
        agent = run(cluster, pod)
        assert reached.wait(60)
        agent.stop()
    agent = run(cluster, pod)
    status = cluster.wait(lambda status: status["phase"] == "Running" or condition(status, "Synchronized"))
    assert status["phase"] == "Running", (cluster.events, pod.log())
    assert status["interfaces"][0]["ipAddress"] == pod.ip
    assert not delivered.exists()
    agent.stop()
    run(cluster, pod)
    cluster.delete()
    cluster.wait(lambda status: status["phase"] in ("Failed", "Succeeded"))
    assert pod.process is not None
    assert pod.process.wait(60) == 0, pod.log()


def test_a_disk_that_is_still_locked_is_waited_for(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]
) -> None:
    """As by the guest before. The launcher sees each attempt, and bears it."""
    pod = make_pod()
    vmi = make_vmi(pod)
    cluster = Cluster(vmi)
    delivery.deliver(str(pod.pods_dir), pod.uid, vmi)
    pod.start(vmi=vmi)
    # QEMU takes its locks of an image as locks of bytes (block/file-posix.c).
    with (pod.volumes / "ephemeral-disks/empty-disks/root.qcow2").open("r+b") as disk:
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 200, 0)
        fcntl.fcntl(disk, fcntl.F_OFD_SETLK, lock)
        run(cluster, pod)
        deadline = time.monotonic() + 40
        while sum(reason == "SyncFailed" for _, reason, _ in cluster.events) < 6:
            assert time.monotonic() < deadline, (cluster.events, pod.log())
            time.sleep(0.02)
        assert "lock" in cluster.events[-1][2]
        assert pod.process is not None
        assert pod.process.poll() is None, pod.log()
    cluster.wait_phase("Running", 30)


def test_what_users_ask_for(make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]) -> None:
    """Pause, reset button, reboot: the guest says R on its serial console each time it boots."""
    pod = make_pod()
    make_disk(pod, bytes.fromhex("ba f803 b052 ee") + GUEST)
    pod.start()
    vmi = make_vmi(pod)
    uid = vmi["metadata"]["uid"]
    cluster = Cluster(vmi)
    guests = run(cluster, pod).synchroniser.guests
    operations = Operations(guests, cluster)
    cluster.wait_phase("Running", 30)

    operations.run(KEY, uid, "pause", {})
    status = cluster.wait(lambda status: condition(status, "Paused"))
    assert condition(status, "Paused")["reason"] == "PausedByUser"
    operations.run(KEY, uid, "unpause", {})
    cluster.wait(lambda status: not condition(status, "Paused"))

    launcher = operations.guest(KEY, uid).launcher
    assert launcher is not None
    with launcher.connect(paths.serial_socket(uid)) as console:
        console.settimeout(60)
        operations.run(KEY, uid, "reset", {})
        _boots(console)
        operations.run(KEY, uid, "softreboot", {"byAgent": False})
        _boots(console)
    assert ("Normal", "SoftRebooted", "VirtualMachineInstance soft rebooted") in cluster.events
    with launcher.connect(paths.vnc_socket(uid)) as screen:
        screen.settimeout(60)
        assert screen.recv(12).startswith(b"RFB 003.")
    assert [patch["phase"] for patch in cluster.patches if "phase" in patch] == ["Running"], "it is the same machine"
    for name in ("userlist", "freeze"):
        with pytest.raises(OperationFailed, match="agent"):
            operations.run(KEY, uid, name, {})


def _boots(console: socket.socket) -> None:
    while b"R" not in (data := console.recv(1000)):
        assert data, "the console was closed"


def test_a_socket_that_the_pod_has_put_in_its_place_is_not_connected_to(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], tmp_path: Path
) -> None:
    pod = make_pod()
    make_disk(pod)
    pod.start()
    vmi = make_vmi(pod)
    uid = vmi["metadata"]["uid"]
    guests = run(cluster := Cluster(vmi), pod).synchroniser.guests
    cluster.wait_phase("Running", 30)
    guest = guests.get(KEY)
    assert guest is not None
    assert guest.launcher is not None
    place = pod.volumes / "private" / uid / "virt-vnc"
    with socket.socket(socket.AF_UNIX) as secret:
        secret.bind(str(tmp_path / "s"))
        secret.listen()
        place.unlink()
        place.symlink_to(tmp_path / "s")
        with pytest.raises(OSError, match=r"Too many levels|Socket operation"):
            guest.launcher.connect(paths.vnc_socket(uid))
        place.unlink()
        os.link(tmp_path / "s", place)
        with pytest.raises(PermissionError, match="belongs to user 0"):
            guest.launcher.connect(paths.vnc_socket(uid))
    (pod.volumes / "private" / uid).rename(pod.volumes / "private/aside")
    (pod.volumes / "private" / uid).symlink_to(tmp_path)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        guest.launcher.connect(paths.vnc_socket(uid))


def test_an_encrypted_guest_is_not_launched_before_its_owner_sends_a_session(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]
) -> None:
    """No processor here can encrypt: the machine would fail if it were launched."""
    pod = make_pod()
    make_disk(pod)
    pod.start()
    vmi = make_vmi(pod, startStrategy="Paused")
    vmi["spec"]["domain"]["launchSecurity"] = {"sev": {"attestation": {}}}
    cluster = Cluster(vmi)
    agent = run(cluster, pod)
    guests = agent.synchroniser.guests
    deadline = time.monotonic() + 30
    while (guest := guests.get(KEY)) is None or guest.launcher is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(3)
    assert not [patch for patch in cluster.patches if "phase" in patch]
    with pytest.raises(OperationFailed, match="SEV"):
        Operations(guests, cluster).run(KEY, vmi["metadata"]["uid"], "sevcertchain", {})


def test_frozen_file_systems_are_thawed_in_time(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever agent is there then."""
    pod = make_pod()
    make_disk(pod)
    pod.start()
    thawed = threading.Event()
    monkeypatch.setattr(domains.Domain, "freeze", lambda domain: None)
    monkeypatch.setattr(domains.Domain, "thaw", lambda domain: thawed.set())
    vmi = make_vmi(pod)
    cluster = Cluster(vmi)
    agent = run(cluster, pod)
    cluster.wait_phase("Running", 30)
    operations = Operations(agent.synchroniser.guests, cluster)
    began = time.monotonic()
    operations.run(KEY, vmi["metadata"]["uid"], "freeze", {"unfreezeTimeout": 3})
    agent.stop()
    agent = run(cluster, pod)
    assert thawed.wait(30)
    assert time.monotonic() - began >= 3
    guest = agent.synchroniser.guests.get(KEY)
    assert guest is not None
    assert guest.state.thaw_at is None
