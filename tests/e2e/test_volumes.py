# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What guests see of their volumes, and those volumes that feature gates or the machine allow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from scenarios import shared, volumes
from scenarios.volumes import address_of, attach, share

globals().update(shared(volumes))

#: What vm-dump-metrics does on a virtio port, once the guest has given it its name.
ASK_FOR_METRICS = """
port=/dev/virtio-ports/org.github.vhostmd.1
until [ -e $port ]; do sleep 0.1; done
exec 3<>$port
printf 'GET /metrics/XML\\n\\n' >&3
while read -r line <&3 && [ "$line" ]; do echo "$line"; done
"""
GATES = ["HostDisk", "DownwardMetrics"]
#: Debian 13 has one that runs without root.
HAS_VIRTIOFSD = Path("/usr/libexec/virtiofsd").exists()


@pytest.fixture
def gates(cluster: Cluster) -> Iterator[None]:
    """The feature gates of volumes are on."""
    where = ("kubevirt.io", "v1", "kubevirt", "kubevirts", "kubevirt")
    before = cluster.custom.get_namespaced_custom_object(*where)["spec"].get("configuration") or {}
    known = (before.get("developerConfiguration") or {}).get("featureGates")

    def turn(on: list[str] | None) -> None:
        body = {"spec": {"configuration": {"developerConfiguration": {"featureGates": on}}}}
        cluster.custom.patch_namespaced_custom_object(*where, body)

    turn([*(known or ()), *GATES])
    yield
    turn(known)


@pytest.mark.usefixtures("gates")
def test_host_disk_and_metrics(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    vm = cluster.virtual_machine("host")
    path = tmp_path / "disks/a.img"
    source = {"hostDisk": {"path": str(path), "type": "DiskOrCreate", "capacity": "8Mi"}}
    attach(vm, "host", source, {"disk": {"bus": "virtio"}})
    attach(vm, "metrics", {"downwardMetrics": {}}, {"disk": {"bus": "virtio"}})
    vm["spec"]["template"]["spec"]["domain"]["devices"]["downwardMetrics"] = {}
    cluster.create_with_gate(namespace, vm)
    address = address_of(cluster.wait_running(namespace, "host", timeout=120))
    cluster.ssh(address, "echo kept | dd of=/dev/vdc conv=fsync 2>/dev/null")
    assert path.stat().st_size == 8 * 2**20
    assert path.open("rb").read(4) == b"kept"
    assert cluster.ssh(address, "head -c 4 /dev/vdd") == "mvbd"
    assert "<name>NumberOfPhysicalCPUs</name>" in cluster.ssh(address, "tail -c +17 /dev/vdd | tr -d '\\0'")
    assert "<name>NumberOfPhysicalCPUs</name>" in cluster.ssh(address, ASK_FOR_METRICS)


@pytest.mark.usefixtures("configured", "gates")
def test_filesystems(cluster: Cluster, namespace: str) -> None:
    vm = cluster.virtual_machine("shared", run_strategy="Always" if HAS_VIRTIOFSD else "Once")
    share(vm, "settings", {"configMap": {"name": "settings"}})
    cluster.create_with_gate(namespace, vm)
    if not HAS_VIRTIOFSD:
        cluster.wait_event(namespace, "shared", ["filesystem 'settings'", "no virtiofsd"], timeout=60)
        return
    address = address_of(cluster.wait_running(namespace, "shared", timeout=120))
    assert cluster.ssh(address, "mkdir -p /m && mount -t virtiofs settings /m && cat /m/app.conf") == "answer=42"
