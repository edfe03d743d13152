# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Pod whose launcher was taken over can't do to its node: see :mod:`hostile` for what it does."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import libvirt
import pytest

from turtles.domain import decision
from turtles.handler import connection
from turtles.handler import domain as domains
from turtles.handler import relay as relays
from turtles.handler.cluster import Key
from turtles.handler.errors import LauncherBusy, LauncherNotReady
from turtles.handler.launcher import Launcher
from turtles.handler.state import Store
from turtles.handler.sync import Synchroniser
from turtles.handler.watcher import Watcher
from turtles.handler.workers import Workers
from turtles.kube.queue import WorkQueue

from .rig import PROXY, Pod, find_nobody
from .test_sync import DEAF_GUEST, NODE, Cluster, _events, condition, make_disk, make_vmi  # noqa: F401 - a fixture

pytestmark = pytest.mark.root

HOSTILE = Path(__file__).with_name("hostile.py").read_text()
VICTIM: Key = ("default", "victim")
HOSTILE_KEY: Key = ("default", "testvm")

#: Puts a link to another socket in the place of its own while it is connected to.
SWAP = """
import os, socket
path = "/run/kubevirt/sockets/libvirt-sock"
listener = socket.socket(socket.AF_UNIX); listener.bind(path); listener.listen(8)
os.symlink(open(os.environ["HOME"] + "/target").read(), path + ".new")
kept = []
while True:
    kept.append(listener.accept())
    if os.path.lexists(path + ".new"):
        os.rename(path + ".new", path)
        open(os.environ["HOME"] + "/swapped", "w").close()
"""
#: Connects nobody: its queue is full from the start.
FULL = """
import os, socket, time
path = "/run/kubevirt/sockets/libvirt-sock"
listener = socket.socket(socket.AF_UNIX); listener.bind(path); listener.listen(0)
kept = []
while True:
    kept.append(socket.socket(socket.AF_UNIX)); kept[-1].setblocking(False)
    try: kept[-1].connect(path)
    except BlockingIOError: break
open(os.environ["HOME"] + "/full", "w").close()
time.sleep(600)
"""
#: Listens in namespaces that it has made itself.
NAMESPACES = """
import os, subprocess
os.execvp("unshare", ["unshare", "--user", "--net", "python3", "-c", '''
import socket, time
listener = socket.socket(socket.AF_UNIX); listener.bind("/run/kubevirt/sockets/libvirt-sock"); listener.listen(8)
time.sleep(600)
'''])
"""


class Node:
    """Several VMIs and one agent with a single worker."""

    def __init__(self, store: Path, *clusters: Cluster) -> None:
        self.clusters = {cluster.key: cluster for cluster in clusters}
        self.queue: WorkQueue[Key] = WorkQueue()
        for cluster in clusters:
            cluster.queue = self.queue
        [pods_dir] = {cluster.pods_dir for cluster in clusters}  # type: ignore[attr-defined]
        self.synchroniser = Synchroniser(self, NODE, pods_dir, Store(store), Watcher(), PROXY, find_nobody)
        self.workers = Workers(self.queue, self.synchroniser.sync, 1, "test")
        for key in self.clusters:
            self.queue.add(key)

    def get(self, key: Key) -> dict[str, Any] | None:
        return self.clusters[key].vmi

    def patch(
        self, vmi: Mapping[str, Any], status: Mapping[str, Any], *, labels: Mapping[str, str] | None = None
    ) -> None:
        self.clusters[_key(vmi)].patch(vmi, status, labels=labels)

    def event(self, vmi: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        self.clusters[_key(vmi)].event(vmi, type_, reason, message)

    def enqueue(self, key: Key) -> None:
        self.queue.add(key)

    def stop(self) -> None:
        self.queue.close()
        for thread in self.workers.threads:
            thread.join(60)


def _key(vmi: Mapping[str, Any]) -> Key:
    return vmi["metadata"]["namespace"], vmi["metadata"]["name"]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def start(*clusters: Cluster) -> Node:
        nodes.append(Node(tmp_path / "state", *clusters))
        return nodes[-1]

    yield start
    for each in nodes:
        each.stop()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of time, in small."""
    for module, name, seconds in (
        (connection, "OPENING", 1.0),
        (connection, "CALL", 1.0),
        (domains, "CALL", 1.0),
        (connection, "CLOSING", 0.2),
        (decision, "LOOK_INTERVAL", 0.3),
        (decision, "NOT_READY_AFTER", 0.5),
        (decision, "UNRESPONSIVE_AFTER", 2.0),
        (decision, "DESTROY_LIMIT", 1.0),
    ):
        monkeypatch.setattr(module, name, seconds)


def cluster_of(pod: Pod, key: Key = HOSTILE_KEY, **spec: Any) -> Cluster:
    vmi = make_vmi(pod, **spec)
    vmi["metadata"]["name"] = key[1]
    cluster = Cluster(vmi, key)
    cluster.pods_dir = str(pod.pods_dir)  # type: ignore[attr-defined]
    return cluster


def set_mode(pod: Pod, mode: str) -> None:
    draft = pod.work / "mode.new"
    draft.write_text(mode)
    draft.chmod(0o644)
    draft.rename(pod.work / "mode")


@pytest.fixture
def hostile(make_pod: Callable[[], Pod]) -> Iterator[Pod]:
    """A Pod that behaves so far."""
    pod = make_pod()
    make_disk(pod, DEAF_GUEST)
    set_mode(pod, "honest")
    pod.start(wait=False, program=HOSTILE)
    yield pod
    print(pod.log())  # shown if the test fails


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Peak:
    """The most memory this process has had since it was made, beyond what it had then, in bytes."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self.before = self._read()

    @staticmethod
    def _read() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        [line] = [line for line in lines if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    def growth(self) -> int:
        return self._read() - self.before


def domains_of(pod: Pod) -> list[str]:
    directory = os.open(pod.socket.parent, os.O_RDONLY)
    try:
        connection = libvirt.open(f"qemu+unix:///session?socket=/proc/self/fd/{directory}/libvirt-sock")
        names = [domain.name() for domain in connection.listAllDomains()]
        connection.close()
    finally:
        os.close(directory)
    return names


def test_a_link_put_there_while_it_is_connected_to_leads_nowhere(
    make_pod: Callable[[], Pod], node: Callable[..., Node]
) -> None:
    pod, another = make_pod(), make_pod()
    another.start()
    make_disk(another, DEAF_GUEST)
    (pod.work / "target").write_text(str(another.socket))
    pod.start(program=SWAP)
    cluster = cluster_of(pod)
    node(cluster)
    until((pod.work / "swapped").exists)
    assert pod.socket.is_symlink()
    # The way it takes: connection accepted and silent; then the link; and so on until nobody waits any more.
    time.sleep(2)
    assert cluster.vmi is not None
    assert cluster.vmi["status"]["phase"] == "Scheduled"
    assert domains_of(another) == []


def test_a_user_s_own_namespaces_are_not_taken_for_the_pod_s(
    make_pod: Callable[[], Pod], node: Callable[..., Node]
) -> None:
    pod = make_pod()
    pod.start(program=NAMESPACES)
    launcher = Launcher(str(pod.pods_dir), pod.uid, Watcher(), lambda: None, lambda detail: None)
    with pytest.raises(LauncherNotReady, match=r"created by a user|user namespace of its own"):
        launcher.connection()
    launcher.close()


def test_a_full_queue_is_not_waited_for(make_pod: Callable[[], Pod]) -> None:
    pod = make_pod()
    pod.start(program=FULL)
    until((pod.work / "full").exists)
    launcher = Launcher(str(pod.pods_dir), pod.uid, Watcher(), lambda: None, lambda detail: None)
    began = time.monotonic()
    with pytest.raises(LauncherBusy, match="does not answer"):
        launcher.connection()
    assert time.monotonic() - began < 0.5
    launcher.close()


def test_an_event_while_the_connection_is_opened_does_not_crash_libvirt(hostile: Pod) -> None:
    set_mode(hostile, "early")
    until(hostile.socket.exists)
    launcher = Launcher(str(hostile.pods_dir), hostile.uid, Watcher(), lambda: None, lambda detail: None)
    with pytest.raises(LauncherBusy, match=r"sent an unexpected message \(program 0x20008086, procedure 318, type 2"):
        launcher.connection()
    launcher.close()


@pytest.mark.parametrize("mode", ["silent", "keepalive", "dribble", "huge", "garbage", "close"])
def test_a_libvirtd_that_stops_answering(hostile: Pod, node: Callable[..., Node], mode: str) -> None:
    """Not Ready at once, Failed soon, with the reason; and no connection is left."""
    cluster = cluster_of(hostile)
    running = node(cluster)
    cluster.wait_phase("Running", 30)
    peak = Peak()
    set_mode(hostile, mode)
    status = cluster.wait(lambda status: condition(status, "Synchronized"))
    assert condition(status, "Ready")["reason"] == "LauncherUnresponsive"
    assert condition(status, "Ready")["status"] == "False"
    cluster.wait_phase("Failed")
    assert cluster.events[-1][:2] == ("Warning", "LauncherUnresponsive")
    words = {
        "huge": "sent a message of 16777216 bytes; the limit is 524288",
        "garbage": "sent an unexpected message (program 0x20008088, procedure 1, type 3",
        "close": "closed the connection",
    }
    assert words.get(mode, "did not answer within 1 s (") in cluster.events[-1][2]
    until(lambda: not running.synchroniser.guests)
    until(lambda: not len(relays.shared()))
    assert peak.growth() < 8 << 20


def test_a_silent_libvirtd_does_not_hold_up_its_vmi_s_deletion(hostile: Pod, node: Callable[..., Node]) -> None:
    cluster = cluster_of(hostile)
    node(cluster)
    cluster.wait_phase("Running", 30)
    set_mode(hostile, "silent")
    cluster.delete()
    cluster.wait_phase("Failed")


def test_a_guest_that_is_never_ended_is_left_to_its_pod_s_end(hostile: Pod, node: Callable[..., Node]) -> None:
    cluster = cluster_of(hostile, terminationGracePeriodSeconds=0)
    node(cluster)
    cluster.wait_phase("Running", 30)
    set_mode(hostile, "undying")
    cluster.delete()
    cluster.wait_phase("Failed")
    assert "could not be powered off" in cluster.events[-1][2]


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        ("long", "sent a message of"),
        ("wide", "exceeds 20000 elements"),
        ("laughs", "has a document type"),
    ],
)
def test_documents_that_would_take_all_memory(hostile: Pod, node: Callable[..., Node], mode: str, word: str) -> None:
    cluster = cluster_of(hostile)
    node(cluster)
    cluster.wait_phase("Running", 30)
    peak = Peak()
    set_mode(hostile, mode)
    cluster.wait_phase("Failed")
    assert word in cluster.events[-1][2]
    assert len(cluster.events[-1][2]) < 1500
    assert peak.growth() < 16 << 20


def start_victim(running: Node, pod: Pod) -> None:
    """Start another guest on a node, and wait until it runs."""
    make_disk(pod, DEAF_GUEST)
    pod.start()
    victim = cluster_of(pod, VICTIM)
    victim.queue = running.queue
    running.clusters[VICTIM] = victim
    running.queue.add(VICTIM)
    victim.wait_phase("Running", 15)


def test_others_go_on_beside_silence(
    hostile: Pod, make_pod: Callable[[], Pod], node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker, which waits for the Pod that says nothing: the other one's guest starts nevertheless."""
    monkeypatch.setattr(connection, "OPENING", 30.0)
    set_mode(hostile, "silent")
    until(hostile.socket.exists)
    silent = cluster_of(hostile)
    running = node(silent)
    until((hostile.work / "accepted").exists)
    pod = make_pod()
    start_victim(running, pod)
    assert silent.vmi is not None
    assert silent.vmi["status"]["phase"] == "Scheduled"
    hostile.kill()


def test_others_go_on_beside_endless_events(
    hostile: Pod, make_pod: Callable[[], Pod], node: Callable[..., Node]
) -> None:
    """Neither libvirt's event thread nor the processor is theirs."""
    pod = make_pod()
    flooding = cluster_of(hostile)
    running = node(flooding)
    flooding.wait_phase("Running", 30)
    set_mode(hostile, "events")
    time.sleep(1)  # what it may send at once is used up
    peak, spent, began = Peak(), time.process_time(), time.monotonic()
    start_victim(running, pod)
    while time.monotonic() - began < 3:
        time.sleep(0.1)
    assert (time.process_time() - spent) / (time.monotonic() - began) < 0.4
    assert peak.growth() < 16 << 20
