# SPDX-License-Identifier: GPL-3.0-or-later
import queue
from pathlib import Path
from typing import Any

import pytest

from turtles.handler import kvm, node
from turtles.handler.node import NodeAgent
from turtles.kube.errors import NotFound


class Client:
    """Takes patches; the node isn't there at first."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.patches: queue.Queue[tuple[Any, dict[str, Any]]] = queue.Queue()

    def patch(
        self, resource: Any, namespace: None, name: str, body: dict[str, Any], *, subresource: Any = None
    ) -> None:
        assert name == "node-1"
        if self.refusals:
            self.refusals -= 1
            raise NotFound(404, "NotFound", "no such node")
        self.patches.put((subresource, body))

    def take(self) -> dict[Any, dict[str, Any]]:
        """Return the first patches, one of the object and one of its status."""
        return dict(self.patches.get(timeout=5) for _ in range(2))


@pytest.mark.parametrize(
    ("device", "ok", "amount"), [("present", True, "1000"), ("present", False, None), ("absent", True, None)]
)
def test_labels_heartbeat_and_kvm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, ok: bool, amount: str | None
) -> None:
    (tmp_path / "present").touch()
    monkeypatch.setattr(kvm, "probe", lambda **_: kvm.Result(ok, "R", 0.1, "" if ok else "stuck"))
    monkeypatch.setattr(node, "_RETRY", 0.01)
    client = Client(refusals=3)
    agent = NodeAgent(client, "node-1", emulator="qemu", kvm_device=tmp_path / device)  # type: ignore[arg-type]
    agent.start()
    patches = client.take()
    agent.stop()
    metadata = patches[None]["metadata"]
    assert metadata["labels"]["kubevirt.io/schedulable"] == "true"
    assert metadata["labels"]["machine-type.node.kubevirt.io/q35"] == "true"
    assert metadata["annotations"]["kubevirt.io/heartbeat"].endswith("Z")
    assert patches["status"]["status"]["allocatable"] == {"devices.kubevirt.io/kvm": amount}
    assert patches["status"]["status"]["capacity"] == {"devices.kubevirt.io/kvm": amount}


@pytest.mark.parametrize(
    ("vendor", "label"), [("GenuineIntel", "Intel"), ("AuthenticAMD", "AMD"), ("HygonGenuine", "HygonGenuine")]
)
def test_vendor(vendor: str, label: str) -> None:
    found = node.static_labels(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    assert found[f"cpu-vendor.node.kubevirt.io/{label}"] == "true"
