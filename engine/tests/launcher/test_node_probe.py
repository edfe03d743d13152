# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's probe with the real QEMU and libvirt, as root and as launchers' user."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from turtles.domain import node_labels
from turtles.probe import kvm, node

pytestmark = pytest.mark.root


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's own folder: its paths are too long for libvirt's sockets.
    with tempfile.TemporaryDirectory(prefix="np-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def huge_pages() -> Iterator[list[str]]:
    """What runs a command where huge pages are mounted for root, as systemd does it on every machine."""
    place = Path("/dev/hugepages")
    made = not place.exists()
    place.mkdir(exist_ok=True)
    yield ["unshare", "--mount", "sh", "-c", f'mount -t hugetlbfs none {place} && exec "$@"', "sh"]
    if made:
        place.rmdir()


def test_what_a_node_can_do(folder: Path, huge_pages: list[str]) -> None:
    before = {path: path.stat() for path in (Path("/dev/kvm"),) if path.exists()}
    output = folder / "probe"
    command = [sys.executable, "-m", "turtles.launcher.node_probe", "--output", str(output)]
    subprocess.run([*huge_pages, *command], check=True)
    findings = node.read(output)
    assert findings.domain_capabilities, "libvirt answered"
    works = findings.kvm is not None and findings.kvm.ok
    assert (findings.kvm is None) == (not before)
    labels = node_labels.probed(findings.domain_capabilities, findings.host_capabilities, findings.features, kvm=works)
    assert labels["machine-type.node.kubevirt.io/q35"] == "true"
    # The cache is the one of launchers on this node, which get /dev/kvm only if it works.
    [cache] = (output / node.CACHE).iterdir()
    assert cache.name == ("kvm" if works else "emulation")
    assert list(cache.rglob("*.xml"))
    assert output.stat().st_uid == 107
    for path, status in before.items():
        assert (path.stat().st_uid, path.stat().st_mode) == (status.st_uid, status.st_mode), "the node's own"
    assert not [line for line in Path("/proc/self/mounts").read_text().splitlines() if " /dev/kvm " in line]


def test_findings_survive_being_stored(tmp_path: Path) -> None:
    for findings in (node.Findings(None), node.Findings(kvm.Result(True, "RPLITC", 0.2, ""), "<a/>", "<b/>", "<c/>")):
        node.write(tmp_path, findings)
        assert node.read(tmp_path) == findings
    with pytest.raises(FileNotFoundError):
        node.read(tmp_path / "nothing")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "turtles.launcher.node_probe", "--output", str(tmp_path / "file/x")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 1
    assert "can't be probed" in done.stderr
