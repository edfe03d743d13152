# SPDX-License-Identifier: GPL-3.0-or-later
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakeapi import merge

from turtles.handler import node
from turtles.handler.node import NodeAgent
from turtles.kube.errors import Forbidden, NotFound
from turtles.probe.kvm import Result
from turtles.probe.node import Findings

CAPABILITIES = """<capabilities><guest><arch name='x86_64'><machine canonical='pc-q35-7.2'>q35</machine></arch></guest>
</capabilities>"""


class Client:
    """Takes patches of one node; the node isn't there at first."""

    def __init__(self, refusals: int = 0, **metadata: Any) -> None:
        self.refusals = refusals
        self.metadata = metadata
        self.status: dict[str, Any] = {}
        self.looks = 0
        self.patches: queue.Queue[tuple[Any, dict[str, Any]]] = queue.Queue()

    def get(self, resource: Any, namespace: None, name: str) -> dict[str, Any]:
        self.looks += 1
        return {"metadata": {"name": name, **self.metadata}, "status": self.status}

    def patch(
        self, resource: Any, namespace: None, name: str, body: dict[str, Any], *, subresource: Any = None
    ) -> None:
        assert name == "node-1"
        if self.refusals:
            self.refusals -= 1
            raise NotFound(404, "NotFound", "no such node")
        self.patches.put((subresource, body))

    def take(self, count: int) -> list[tuple[Any, dict[str, Any]]]:
        return [self.patches.get(timeout=60) for _ in range(count)]


class Keeping(Client):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def patch(self, *words: Any, **options: Any) -> None:
        with self.lock:
            self.metadata = merge(self.metadata, words[3].get("metadata") or {})
            self.status = merge(self.status, words[3].get("status") or {})
            super().patch(*words, **options)

    def replace(self) -> None:
        """Another object of the same name."""
        with self.lock:
            self.metadata, self.status = {}, {}

    def remove(self, label: str) -> None:
        with self.lock:
            self.metadata = merge(self.metadata, {"labels": {label: None}})


def start(client: Client, find: Any, **options: Any) -> NodeAgent:
    agent = NodeAgent(client, "node-1", find, **options)  # type: ignore[arg-type]
    agent.start()
    return agent


@pytest.mark.parametrize(
    ("result", "amount"),
    [(Result(True, "RPLITC", 0.1, ""), "1000"), (Result(False, "R", 3, "stuck"), None), (None, None)],
)
def test_labels_heartbeat_and_kvm(monkeypatch: pytest.MonkeyPatch, result: Result | None, amount: str | None) -> None:
    monkeypatch.setattr(node, "_RETRY", 0.01)
    client = Client(refusals=3)
    agent = start(client, lambda: Findings(result))
    patches = dict(client.take(2))
    agent.stop()
    metadata = patches[None]["metadata"]
    assert metadata["labels"]["kubevirt.io/schedulable"] == "true"
    assert metadata["labels"]["machine-type.node.kubevirt.io/q35"] == "true"
    assert metadata["annotations"]["kubevirt.io/heartbeat"].endswith("Z")
    assert patches["status"]["status"]["allocatable"] == {"devices.kubevirt.io/kvm": amount}
    assert patches["status"]["status"]["capacity"] == {"devices.kubevirt.io/kvm": amount}


@pytest.mark.parametrize(
    ("state", "expected"),
    [('{"policyName":"static"}', "true"), ('{"policyName":"none"}', "false"), (None, "false"), ("{", None)],
)
def test_processors_of_their_own(tmp_path: Path, state: str | None, expected: str | None) -> None:
    if state is not None:
        (tmp_path / "cpu_manager_state").write_text(state)
    client = Client()
    agent = start(client, lambda: Findings(None), offer_devices=lambda kvm: None, kubelet_dir=tmp_path)
    given = client.take(1)[0][1]["metadata"]["labels"]
    agent.stop()
    assert given.get("kubevirt.io/cpumanager") == given.get("cpumanager") == expected


def test_a_kubelet_is_offered_devices_and_owns_the_status() -> None:
    client, offered = Client(), queue.Queue[bool]()
    agent = start(client, lambda: Findings(Result(True, "", 0, "")), offer_devices=offered.put)
    assert offered.get(timeout=60) is True
    assert [subresource for subresource, _ in client.take(1)] == [None]
    agent.stop()


def test_labels_of_an_earlier_probe_go() -> None:
    client = Client(
        labels={
            "machine-type.node.kubevirt.io/pc-q35-1.0": "true",
            "cpu-model.node.kubevirt.io/Old": "true",
            "machine-type.node.kubevirt.io/q35": "true",
            "kubernetes.io/os": "linux",
        }
    )
    agent = start(client, lambda: Findings(None, host_capabilities=CAPABILITIES), offer_devices=lambda kvm: None)
    labels = [
        body["metadata"]["labels"]
        for _, body in client.take(2)
        if "kubevirt.io/schedulable" not in body["metadata"]["labels"]
    ]
    agent.stop()
    assert labels == [
        {
            "machine-type.node.kubevirt.io/pc-q35-7.2": "true",
            "machine-type.node.kubevirt.io/pc-q35-1.0": None,
            "cpu-model.node.kubevirt.io/Old": None,
        }
    ]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "HEARTBEAT", 0.01)
    monkeypatch.setattr(node, "_RETRY", 0.01)


@pytest.mark.parametrize("kubelet", [True, False])
@pytest.mark.usefixtures("quick")
def test_what_was_found_comes_back_and_costs_nothing_while_it_is_there(kubelet: bool) -> None:
    machine, client = "machine-type.node.kubevirt.io/pc-q35-7.2", Keeping()
    works = Findings(Result(True, "", 0, ""), host_capabilities=CAPABILITIES)
    agent = start(client, lambda: works, **({"offer_devices": lambda kvm: None} if kubelet else {}))

    def complete() -> bool:
        kvm = (client.status.get("allocatable") or {}).get("devices.kubevirt.io/kvm")
        return machine in client.metadata.get("labels", {}) and kvm == (None if kubelet else "1000")

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    wait(complete)
    for lose in (client.replace, lambda: client.remove(machine)):
        # two looks later whatever was under way has ended
        looks = client.looks + 2
        wait(lambda looks=looks: client.looks > looks)
        client.take(client.patches.qsize())
        looks = client.looks + 3
        wait(lambda looks=looks: client.looks > looks)
        written = [body for _, body in client.take(client.patches.qsize())]
        assert written
        assert all("annotations" in body["metadata"] for body in written), "heartbeats only"
        lose()
        wait(complete)
    agent.stop()


@pytest.mark.usefixtures("quick")
def test_labels_that_are_refused_stop_no_heartbeat() -> None:
    class Refusing(Client):
        def get(self, resource: Any, namespace: None, name: str) -> dict[str, Any]:
            if self.looks:
                raise Forbidden(403, "Forbidden", "no")
            return super().get(resource, namespace, name)

    client = Refusing()
    agent = start(client, lambda: Findings(None, host_capabilities=CAPABILITIES), offer_devices=lambda kvm: None)
    client.take(12)
    agent.stop()


def test_a_node_may_be_left_out() -> None:
    client = Client(annotations={"node-labeller.kubevirt.io/skip-node": "true"})
    done = queue.Queue[bool]()
    agent = start(client, lambda: Findings(None, host_capabilities=CAPABILITIES), offer_devices=done.put)
    assert done.get(timeout=60) is False
    assert "kubevirt.io/heartbeat" in client.take(1)[0][1]["metadata"]["annotations"]
    agent.stop()
    with pytest.raises(queue.Empty):
        client.patches.get(timeout=0.2)


def test_a_probe_that_fails_offers_no_kvm() -> None:
    def fail() -> Findings:
        raise subprocess.CalledProcessError(1, "virt-node-probe")

    offered = queue.Queue[bool]()
    agent = start(Client(), fail, offer_devices=offered.put)
    assert offered.get(timeout=60) is False
    agent.stop()


def test_a_node_that_is_left_has_nothing_of_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "ON_NODE", ())
    folder = tmp_path / "kubevirt"
    (folder / "sockets").mkdir(parents=True)
    theirs = {"node-labeller.kubevirt.io/skip-node": "true", "example.org/kubevirt.io": "yes"}
    client = Client(
        labels={
            "kubevirt.io/schedulable": "true",
            "cpu-vendor.node.kubevirt.io/Intel": "true",
            "cpumanager": "true",
            "notkubevirt.io/a": "",
        },
        annotations={"kubevirt.io/heartbeat": "2026-01-01T00:00:00Z", **theirs},
    )
    agent = start(client, lambda: Findings(None))
    client.take(2)
    agent.stop()
    agent.leave([folder, tmp_path / "never-there"])
    ((_subresource, body),) = client.take(1)
    assert body["metadata"] == {
        "labels": dict.fromkeys(("kubevirt.io/schedulable", "cpu-vendor.node.kubevirt.io/Intel", "cpumanager")),
        "annotations": {"kubevirt.io/heartbeat": None},
    }
    assert not folder.exists()


def test_a_node_that_can_not_be_left_clean_is_told_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node, "ON_NODE", ("false",))
    client = Client(labels={"kubevirt.io/schedulable": "true"})
    agent = start(client, lambda: Findings(None))
    client.take(2)
    agent.stop()
    client.refusals = 1
    agent.leave([Path("/never/there")])
    told = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("can't remove the node's labels") for line in told)
    assert any(line.startswith("can't remove the node's folders") for line in told)
