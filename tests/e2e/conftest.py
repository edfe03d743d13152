# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An engine of the tests' own, installed by the collection's playbook beside whatever runs on the machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from kubernetes import client

INSTANCE = "turtles-e2e"
VARIABLES = {
    "turtles_instance": INSTANCE,
    "turtles_api_port": 16443,
    "turtles_virt_api_port": 18443,
    "turtles_bridge": "turtles-e2e0",
    "turtles_pod_cidr": "10.245.0.0/16",
    "turtles_service_cidr": "10.95.0.0/16",
}


def playbook(name: str, *arguments: str, folder: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a playbook with this Python's ansible-core in a folder; its output is shown where it fails."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), name, *arguments],
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert not check or done.returncode == 0, f"{name} failed:\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return done


def recap(output: str) -> dict[str, int]:
    """The counts of the play's recap for localhost."""
    line = re.search(r"^localhost\s+:(.*)$", output, re.MULTILINE)
    assert line, output
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line[1])}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The engine in standalone mode, and a guest image; both removed in the end.

    With TURTLES_E2E_KEEP in the environment they stay, which makes the next run of the tests shorter.
    """
    if os.geteuid() != 0:
        pytest.skip("installing an engine needs root")
    folder = tmp_path_factory.mktemp("e2e")
    key = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    variables = ["-e", json.dumps(VARIABLES)]
    playbook("turtles.kubevirt.deploy", *variables, folder=folder)
    try:
        yield Cluster(
            kubeconfig=Path(f"/etc/{INSTANCE}/admin.kubeconfig"),
            instance=INSTANCE,
            image=f"oci-archive:/var/lib/{INSTANCE}/images/tiny.tar",
            key=key,
        )
    finally:
        if "TURTLES_E2E_KEEP" not in os.environ:
            playbook("turtles.kubevirt.teardown", *variables, folder=folder)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own; what is in it goes with it."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    yield name
    cluster.core.delete_namespace(name)
    for vm in cluster.custom.list_namespaced_custom_object("kubevirt.io", "v1", name, "virtualmachines")["items"]:
        cluster.wait_gone(name, vm["metadata"]["name"])


@pytest.fixture
def ansible(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs one module on localhost as `ansible -m` does and gives its result."""

    def run(module: str, arguments: dict[str, Any], *options: str, fails: bool = False) -> dict[str, Any]:
        results = tmp_path / uuid.uuid4().hex
        command = [str(Path(sys.executable).parent / "ansible"), "localhost", "-c", "local", "-m", module]
        done = subprocess.run(
            [*command, "-a", json.dumps(arguments), "--tree", str(results), *options],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stdout + done.stderr
        result: dict[str, Any] = json.loads((results / "localhost").read_text())
        assert bool(done.returncode) is fails, result
        return result

    return run
